"""The buckets of a histogram as Prometheus answers them.

>>> by_le = lambda le: (("le", le),)
>>> cumulative_buckets({by_le("1.0"): 2.0, by_le("1"): 3.0, by_le("+Inf"): 6.0}, count=6.0, scale=1000)
{1000.0: 5.0}
"""

from __future__ import annotations

import math

from dynamo_planner.sources.prometheus.api import Vector

COUNT_TOLERANCE = 0.01
"""Relative difference up to which a histogram's count and its highest bucket are of the same values."""


def cumulative_buckets(buckets: Vector, count: float, scale: float) -> dict[float, float]:
    """The number of values up to each bound; empty where they are not of the same values as ``count``.

    The same bound may be written in several ways (``1``, ``1.0``), by servers of different versions.
    """
    found: dict[float, float] = {}
    for labels, value in buckets.items():
        try:
            bound = float(dict(labels)["le"])
        except (KeyError, ValueError):
            return {}
        found[bound] = found.get(bound, 0.0) + value
    if not math.isclose(found.pop(math.inf, math.nan), count, rel_tol=COUNT_TOLERANCE, abs_tol=1e-9):
        return {}
    if max(found.values(), default=0.0) > count * (1 + COUNT_TOLERANCE):
        return {}
    kept: dict[float, float] = {}
    highest = 0.0
    for bound, value in sorted(found.items()):
        if value >= highest:  # a bound that not all workers have counts fewer than a lower one
            kept[bound * scale] = highest = value
    return kept
