"""The share of values within a target, from the buckets of a histogram or from quantiles.

A histogram does not say where in a bucket its values lie, so that the share within a target has bounds: the shares at
the bucket bounds on either side. The estimate lies between them on a straight line, as ``histogram_quantile`` has it.

>>> share_within({1000.0: 0.6, 2500.0: 0.9}, 2000.0)  # in milliseconds: a target of 2 s between buckets of 1 and 2.5 s
Share(estimate=0.8, lower=0.6, upper=0.9)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

DIGITS = 6
"""Decimal places of a share in a :class:`~dynamo_planner.core.metrics.Dist`: a millionth is less than one request."""


class Share(NamedTuple):
    """A share of requests, 0 to 1.

    Attributes:
        estimate: The most plausible value; where nothing tells how the rest is distributed, the least.
        lower: The least that it can be.
        upper: The most that it can be.
    """

    estimate: float
    lower: float
    upper: float


def cumulative_shares(counts: Mapping[float, float], count: float) -> dict[float, float]:
    """The cumulative buckets of a histogram as shares, without the bounds that add nothing.

    Args:
        counts: For each finite upper bound, ascending, the number of values up to it.
        count: The number of all values.

    Of several bounds with the same share the first and the last are enough, of those below all values the last, and of
    those above them the first. :func:`share_within` is the same with them and without.

    >>> cumulative_shares({1: 0, 2: 0, 5: 3, 10: 3, 20: 3, 50: 4, 100: 4}, 4)
    {2: 0.0, 5: 0.75, 20: 0.75, 50: 1.0}
    """
    if count <= 0:
        return {}
    shares: list[tuple[float, float]] = []
    highest = 0.0
    for bound, below in counts.items():
        highest = max(highest, min(below / count, 1.0))
        shares.append((bound, round(highest, DIGITS)))
    kept = {}
    before = 0.0
    for (bound, share), (_, after) in pairwise([*shares, (0.0, 1.0)]):
        if not before == share == after:
            kept[bound] = share
        before = share
    return kept


def share_within(points: Mapping[float, float], target: float) -> Share:
    """The share of values up to a target, from the shares at some points; beyond the last point it is not extrapolated.

    >>> share_within({100.0: 0.5}, 300.0)
    Share(estimate=0.5, lower=0.5, upper=1.0)
    """
    bounds = sorted(points)
    place = bisect_left(bounds, target)
    if place < len(bounds) and bounds[place] == target:
        return Share(points[target], points[target], points[target])
    start, lower = (bounds[place - 1], points[bounds[place - 1]]) if place else (0.0, 0.0)
    if place == len(bounds):
        return Share(lower, lower, 1.0)
    upper = max(lower, points[bounds[place]])
    return Share(lower + (upper - lower) * (target - start) / (bounds[place] - start), lower, upper)


def share_of_both(first: Share, second: Share) -> Share:
    """The share of requests that meet two targets, from the share that meets each (the bounds of Fréchet).

    At least ``a + b - 1`` meet both, and at most the smaller one of ``a`` and ``b``. The estimate takes the two for
    independent.

    >>> share_of_both(Share(0.9, 0.9, 0.9), Share(0.5, 0.5, 0.6))
    Share(estimate=0.45, lower=0.4, upper=0.6)
    """
    lower = max(0.0, round(first.lower + second.lower - 1.0, 2 * DIGITS))
    return Share(max(lower, first.estimate * second.estimate), lower, min(first.upper, second.upper))
