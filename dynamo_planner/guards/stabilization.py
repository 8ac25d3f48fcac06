"""Stabilization: windows that keep one quiet moment from lowering a pool, and one busy moment from raising it.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> policy = (lambda snapshot: {"decode": 2}) | Stabilization(down_window_s=300)
>>> snapshot = Snapshot(at_s=0, pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=6)})
>>> print(policy.decide(snapshot).explain())
decode: stays at 6
  ScaleDownStabilized: 6 was recommended within the last 300 s (wanted=2, recommended=6, window_s=300)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from dynamo_planner.core.decision import Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Count, Frozen, FrozenMap, ReadOnly
from dynamo_planner.guards._common import wants

EXACT_RECOMMENDATIONS = 64
"""Recommendations per window that are kept as they are; beyond, as many slots of time, each with its most careful
one."""

Recommendations = tuple[tuple[float, Count], ...]
"""Recommended replicas with their times in Unix seconds, oldest first."""


class RecommendationWindow(Frozen):
    """The recommendations of one pool that can still matter, for going down (``highest``) and for going up."""

    highest: Recommendations = ()
    lowest: Recommendations = ()


class Recommended(Frozen):
    """The recommendations of every pool."""

    pools: ReadOnly[str, RecommendationWindow]


class Stabilization(Guard, kind="stabilization"):
    """The stabilization windows of the Kubernetes HPA (``behavior.scaleUp/scaleDown.stabilizationWindowSeconds``).

    With ``w`` the proposal and ``n`` the present target::

        up   = min(w, recommendations younger than up_window_s)
        down = max(w, recommendations younger than down_window_s)
        n if up <= n <= down, up if n < up, down if n > down

    What is remembered is ``w``, before stabilization. A pool that is new to the guard starts with one recommendation,
    its present target, as a restarted HPA does, so that a lost state makes no sudden scale-down. A hold is left
    alone and remembered as nothing: on metrics that it cannot read, an HPA returns before it records; so what was
    recommended before a hold goes on to expire. A window that expired whole (a pause longer than it) delays nothing.

    The state holds only what can still decide: for ``down`` a recommendation that a later one equals or exceeds can
    never be the maximum again, and for ``up`` the other way round. That is exact; only past 64 such in one window
    (a pool that shrinks by one replica at each of 64 ticks) the oldest of each 1/64 of the window stands for its
    slot, and the window is longer by at most one slot.

    Args:
        up_window_s: Seconds for which a lower recommendation holds a rise back. Default 0.
        down_window_s: Seconds for which a higher recommendation holds a fall back. Default 300.
    """

    up_window_s: float = Field(default=0.0, ge=0)
    down_window_s: float = Field(default=300.0, ge=0)

    state_type: ClassVar[Any] = Recommended

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Recommended | None) -> tuple[Proposal, Recommended]:
        now = snapshot.at_s
        pools = {name: window for name, window in (state.pools if state else {}).items() if name in snapshot.pools}
        changes, reasons = {}, []
        for name, want, replicas in wants(snapshot, proposal):
            wanted, present = want.replicas, replicas.target
            start = RecommendationWindow(highest=((now, present),), lowest=((now, present),))
            window = pools.get(name, start)
            highest = _younger(window.highest, now - self.down_window_s)
            lowest = _younger(window.lowest, now - self.up_window_s)
            up = min([wanted, *(count for _, count in lowest)])
            down = max([wanted, *(count for _, count in highest)])
            stable = min(max(present, up), down)
            if stable != wanted:
                changes[name] = Want(stable, want.load)
                reasons.append(self._reason(name, wanted, up if wanted > stable else down))
            pools[name] = RecommendationWindow(
                highest=_thinned([*(r for r in highest if r[1] > wanted), (now, wanted)], self.down_window_s),
                lowest=_thinned([*(r for r in lowest if r[1] < wanted), (now, wanted)], self.up_window_s),
            )
        return proposal.with_pools(changes, reasons), Recommended(pools=FrozenMap(pools))

    def _reason(self, name: str, wanted: int, recommended: int) -> Reason:
        rising = wanted > recommended
        code, window_s = ("ScaleUp", self.up_window_s) if rising else ("ScaleDown", self.down_window_s)
        return Reason(
            code=f"{code}Stabilized",
            pool=name,
            message=f"{recommended} was recommended within the last {window_s:g} s",
            values={"wanted": wanted, "recommended": recommended, "window_s": window_s},
        )


def _younger(recommendations: Recommendations, than_s: float) -> Recommendations:
    return tuple(r for r in recommendations if r[0] > than_s)


def _thinned(recommendations: Sequence[tuple[float, int]], window_s: float) -> Recommendations:
    """At most one recommendation a slot where there are many: its first count, which is the careful one, until its last
    time."""
    if len(recommendations) <= EXACT_RECOMMENDATIONS:
        return tuple(recommendations)
    slots: dict[float, tuple[float, int]] = {}
    for at_s, count in recommendations:
        slot = at_s // (window_s / EXACT_RECOMMENDATIONS)
        slots[slot] = (at_s, slots.get(slot, (at_s, count))[1])
    return tuple(slots.values())
