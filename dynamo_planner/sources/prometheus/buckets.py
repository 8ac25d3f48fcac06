"""The buckets of a histogram from the answer about a pool.

>>> cumulative_buckets({(("le", "0.5"),): 3.0, (("le", "1.0"),): 4.0, (("le", "+Inf"),): 4.0}, count=4, scale=1000)
{500.0: 3.0, 1000.0: 4.0}
"""

from __future__ import annotations

import math

from dynamo_planner.sources.prometheus.api import Vector

COUNT_TOLERANCE = 0.01
"""Relative difference up to which a histogram's count and its highest bucket are of the same values."""


def cumulative_buckets(vector: Vector, count: float, scale: float) -> dict[float, float]:
    """The cumulative buckets; empty where they are not of the same values as the count."""
    found: dict[float, float] = {}
    for labels, value in vector.items():
        try:
            found[float(dict(labels)["le"])] = value
        except (KeyError, ValueError):
            return {}
    if not math.isclose(found.pop(math.inf, math.nan), count, rel_tol=COUNT_TOLERANCE, abs_tol=1e-9):
        return {}
    buckets: dict[float, float] = {}
    highest = 0.0
    for bound, value in sorted(found.items()):
        if value >= highest:  # a bound that not all workers have counts fewer than a lower one
            buckets[bound * scale] = highest = value
    return buckets
