"""Regret: for how long replicas are worth keeping, by what it cost that they were missing.

A shortage is a time in which fewer replicas are ready than are required, until :data:`LATE_WINDOWS` windows of traffic
later. A request that is late in it costs as much as :data:`MISS_PRICE` that are served, so that keeping what was
missing would have paid for::

    hold_s = min(MISS_PRICE late_s / missing, MAX_HOLD_S)

===========  ==========================================================================================================
``late_s``   seconds of traffic that were late: the late requests over the arrival rate
``missing``  the share of the required replicas that was not ready, at most
===========  ==========================================================================================================

Where 4 of 12 replicas were missing, and 100 s of traffic were late until they were ready, keeping them for ``10 * 100 /
(4 / 12) = 3,000 s`` after their last use would have paid if the surge came again in that time. That it does has to be
seen once: replicas are kept only after a shortage that began within ``hold_s`` of letting go what the one before had
called for. That is ski rental with the price that was paid, for surges that recur. So traffic on which coming down does
not pay, such as bursts that recur while starts are slow, finds its replicas still there; after a single burst, and
where nothing is late, nothing is kept.
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
        hold_s: Seconds for which replicas are kept, by shortages that recurred.
        short_s: When replicas were last missing in the present shortage, in Unix seconds; ``None`` where there is none.
        missing: The share of the required replicas that was not ready in it, at most.
        late_s: Seconds of traffic that were late in it.
        recurs: Whether it would not be, had the replicas of the one before been kept for as long as they were worth.
        worth_s: Seconds for which keeping the replicas of earlier shortages would have paid, had they recurred.
        let_go_s: When replicas were last let go after a shortage; ``None`` where they were not.
    """

    at_s: float
    hold_s: float = 0.0
    short_s: float | None = None
    missing: float = 0.0
    late_s: float = 0.0
    recurs: bool = False
    worth_s: float = 0.0
    let_go_s: float | None = None

    def kept_s(self) -> float:
        """Seconds for which replicas are kept after their last use."""
        return self._after().hold_s

    def let_go(self, at_s: float) -> Shortage:
        """The shortages after replicas were let go."""
        return self if self.short_s is not None else self._replace(let_go_s=at_s)

    def _after(self) -> Shortage:
        """The shortages once the present one is over."""
        now_s = min(MISS_PRICE * self.late_s / self.missing, MAX_HOLD_S) if self.missing else 0.0
        worth_s = max(self.worth_s, now_s)
        hold_s = max(self.hold_s, worth_s) if self.recurs and self.late_s else self.hold_s
        return Shortage(self.at_s, hold_s, worth_s=worth_s, let_go_s=self.let_go_s)


def followed(shortage: Shortage | None, at_s: float, missing: float, late_s: float, window_s: float) -> Shortage:
    """The shortages after a tick at which a share of the required replicas was ``missing`` and ``late_s`` seconds of
    traffic were late, as a window of ``window_s`` seconds shows."""
    before = shortage or Shortage(at_s)
    kept = decayed(max(at_s - before.at_s, 0.0), REGRET_HALF_LIFE_S)
    before = before._replace(at_s=at_s, hold_s=kept * before.hold_s, worth_s=kept * before.worth_s)
    if missing > 0:
        if before.short_s is None:
            recurs = before.let_go_s is not None and at_s - before.let_go_s <= before.worth_s
            before = before._replace(recurs=recurs, let_go_s=None)
        return before._replace(short_s=at_s, missing=max(before.missing, missing), late_s=before.late_s + late_s)
    if before.short_s is None:
        return before
    if at_s - before.short_s > LATE_WINDOWS * window_s:
        return before._after()
    return before._replace(late_s=before.late_s + late_s)
