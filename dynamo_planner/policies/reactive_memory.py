"""Replica counts that did not do: what :class:`LoadPolicy` learns from each rise, so that it settles.

A rise from ``n`` replicas says that ``n`` do not carry the demand. Thresholds alone forget that: with one replica more
the load is under the lower one, the pool falls, and rises again.

>>> shortfalls = rose((), replicas=3, demand=10.0, at_s=0.0, interval_s=180.0)
>>> refused(shortfalls, replicas=3, demand=9.0, at_s=3600.0) is not None, refused(shortfalls, 3, 8.0, 3600.0)
(True, None)
>>> again = rose(shortfalls, replicas=3, demand=10.0, at_s=20_000.0, interval_s=180.0)
>>> again[0].until_s - 20_000.0  # twice as long as the first time
28800.0
"""

from __future__ import annotations

from dynamo_planner.core.values import Count, Frozen

DEMAND_HALF_LIFE = 3.0
"""The usual demand goes half the way to the present one in this many adjustment intervals."""

LOWER_DEMAND = 0.85
"""A fall is tried again once the usual demand is below this share of the one at which it failed."""

FIRST_HOLD, LONGEST_HOLD = 80.0, 480.0
"""For how many adjustment intervals a count is refused: twice as many each time that it fails again. With intervals of
180 s these are four hours and a day."""

MAX_SHORTFALLS = 8
"""Counts that are remembered for one pool, the largest ones."""


class Shortfall(Frozen):
    """A number of replicas that did not do.

    Args:
        replicas: The replicas.
        demand: The usual demand then, in requests per second; 0 where it was unknown.
        until_s: Until when that many are refused at this demand, in Unix seconds.
        hold_s: For how long they were refused last time, in seconds.
    """

    replicas: Count
    demand: float
    until_s: float
    hold_s: float


Shortfalls = tuple[Shortfall, ...]
"""What is remembered of one pool, fewest replicas first."""


def rose(shortfalls: Shortfalls, replicas: int, demand: float, at_s: float, interval_s: float) -> Shortfalls:
    """The memory after a rise from ``replicas`` at a usual demand, with adjustments every ``interval_s`` seconds."""
    before = next((shortfall for shortfall in shortfalls if shortfall.replicas == replicas), None)
    hold_s = FIRST_HOLD * interval_s
    if before is not None:
        hold_s = before.hold_s if at_s < before.until_s else min(2 * before.hold_s, LONGEST_HOLD * interval_s)
    others = [shortfall for shortfall in shortfalls if shortfall.replicas != replicas]
    new = Shortfall(replicas=replicas, demand=demand, until_s=at_s + hold_s, hold_s=hold_s)
    return tuple(sorted([*others, new], key=lambda shortfall: shortfall.replicas)[-MAX_SHORTFALLS:])


def refused(shortfalls: Shortfalls, replicas: int, demand: float | None, at_s: float) -> Shortfall | None:
    """The shortfall that speaks against so few replicas at a usual demand; one that is unknown may be any."""
    return next(
        (
            shortfall
            for shortfall in shortfalls
            if replicas <= shortfall.replicas
            and at_s < shortfall.until_s
            and (demand is None or demand > LOWER_DEMAND * shortfall.demand)
        ),
        None,
    )
