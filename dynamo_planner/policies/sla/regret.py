"""Regret: for how long replicas are worth keeping, by what it cost that they were missing.

A shortage is a time in which fewer replicas are ready than are required, until :data:`LATE_WINDOWS` windows of traffic
later. A request that is late in it costs as much as :data:`MISS_PRICE` that are served, so that keeping what was
missing would have paid for::

    hold_s = min(MISS_PRICE late_s / missing, MAX_HOLD_S)

===========  ==========================================================================================================
``late_s``   seconds of traffic that were late: the late requests over the arrival rate
``missing``  the share of the required replicas that was not ready, at most
===========  ==========================================================================================================

Where 4 of 12 replicas were missing, and 100 s of traffic were late until they were ready, replicas are kept for
``10 * 100 / (4 / 12) = 3,000 s`` after their last use. That is ski rental with the price that was paid: it never costs
more than twice what foresight would, whether the surge comes again or not. So traffic on which coming down does not
pay, such as bursts that recur while starts are slow, finds its replicas still there; where nothing is late nothing is
kept.
"""

from __future__ import annotations

from typing import NamedTuple

from dynamo_planner.forecasting.experts.base import decayed

MISS_PRICE = 10.0
"""What a late request costs, in requests that are served."""

LATE_WINDOWS = 2.0
"""For this many windows of traffic after a start or a backlog what is late is still theirs."""

REGRET_HALF_LIFE_S = 21_600.0
"""The hold that a shortage was worth halves in this time, in seconds."""

MAX_HOLD_S = 7_200.0
"""Replicas are kept for at most this many seconds for what a shortage cost."""


class Shortage(NamedTuple):
    """The shortages of a pool.

    Args:
        at_s: The last tick, in Unix seconds.
        hold_s: Seconds for which replicas are worth keeping, by the shortages before.
        short_s: When replicas were last missing in the present shortage, in Unix seconds; ``None`` where there is none.
        missing: The share of the required replicas that was not ready in it, at most.
        late_s: Seconds of traffic that were late in it.
    """

    at_s: float
    hold_s: float = 0.0
    short_s: float | None = None
    missing: float = 0.0
    late_s: float = 0.0

    def worth_s(self) -> float:
        """Seconds for which replicas are worth keeping."""
        now_s = MISS_PRICE * self.late_s / self.missing if self.missing else 0.0
        return min(max(self.hold_s, now_s), MAX_HOLD_S)


def followed(shortage: Shortage | None, at_s: float, missing: float, late_s: float, window_s: float) -> Shortage:
    """The shortages after a tick at which a share of the required replicas was ``missing`` and ``late_s`` seconds of
    traffic were late, as a window of ``window_s`` seconds shows."""
    before = shortage or Shortage(at_s)
    hold_s = decayed(max(at_s - before.at_s, 0.0), REGRET_HALF_LIFE_S) * before.hold_s
    if missing > 0:
        return Shortage(at_s, hold_s, at_s, max(before.missing, missing), before.late_s + late_s)
    if before.short_s is None:
        return Shortage(at_s, hold_s)
    if at_s - before.short_s > LATE_WINDOWS * window_s:
        return Shortage(at_s, max(hold_s, before.worth_s()))
    return Shortage(at_s, hold_s, before.short_s, before.missing, before.late_s + late_s)
