"""StepLimit: a limit on how far a pool's target may move within a period.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> policy = (lambda snapshot: {"decode": 40}) | StepLimit(up_replicas=4, up_factor=2, period_s=15)
>>> snapshot = Snapshot(at_s=0, pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=6)})
>>> print(policy.decide(snapshot).explain())
decode: 6 -> 12 replicas
  ScaleUpLimit: from 6 replicas at most 12 within the period (wanted=40, limit=12, period_start=6, period_s=15)
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dynamo_planner.core.decision import Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Count, Frozen, FrozenMap, ReadOnly
from dynamo_planner.guards._common import wants

CHANGES_PER_PERIOD = 64
"""Changes of a target within one period that are kept apart; more are merged, so that the state stays small."""

ROUNDING = 1e-9
"""Products within this of a whole number of replicas count as it."""

Changes = tuple[tuple[float, Count], ...]
"""The targets that a pool had, oldest first, each with the time in Unix seconds from which on it had it."""

Factor = Annotated[float, Field(ge=1, le=1e6)]


class ObservedTargets(Frozen):
    """The state: the targets in the snapshots of the last period.

    Args:
        at_s: The time of the last snapshot, in Unix seconds.
        pools: The targets of each pool.
    """

    at_s: float
    pools: ReadOnly[str, Changes]


class StepLimit(Guard, kind="step_limit"):
    """Limits how many replicas a pool may gain or lose within ``period_s``, as the policies of the Kubernetes HPA do.

    From the target ``n`` that the pool had ``period_s`` ago, it may rise to the larger of ``n + up_replicas`` and
    ``ceil(max(n, 1) * up_factor)``, and fall to the smaller of ``n - down_replicas`` and ``floor(n / down_factor)``
    (HPA ``selectPolicy: Max``). ``None`` leaves that term out, and with both left out there is no limit; 0 replicas
    with no factor allow no step at all. With ``period_s=0`` it limits the single decision. The defaults are the HPA's:
    4 replicas or 100 % more in 15 s, any number less. An HPA policy of "down by p percent" is
    ``down_factor = 100 / (100 - p)``. Where the tighter of two limits is meant, put two guards in a row.

    A limit never turns a rise into a fall or the other way round. What counts is the target in the snapshots, not
    what was decided: a change is dated to the last snapshot that did not show it, and a pool that is new to the guard
    is taken to have had its target all along.

    Args:
        up_replicas: Replicas that may be gained within the period. Default 4.
        up_factor: The factor that a pool may grow by within the period. Default 2.
        down_replicas: Replicas that may be lost within the period. Default ``None``, any.
        down_factor: The factor that a pool may shrink by within the period. Default ``None``, any.
        period_s: Seconds. Default 15.
    """

    up_replicas: Count | None = 4
    up_factor: Factor | None = 2.0
    down_replicas: Count | None = None
    down_factor: Factor | None = None
    period_s: float = Field(default=15.0, ge=0)

    state_type: ClassVar[Any] = ObservedTargets

    def limit(
        self, snapshot: Snapshot, proposal: Proposal, state: ObservedTargets | None
    ) -> tuple[Proposal, ObservedTargets]:
        pools = {name: self._changes(snapshot, name, state) for name in snapshot.pools}
        changes, reasons = {}, []
        for name, want, replicas in wants(snapshot, proposal):
            start, present = pools[name][0][1], replicas.target
            rising = want.replicas > present
            limit = max(self._highest(start), present) if rising else min(self._lowest(start), present)
            if (want.replicas > limit) if rising else (want.replicas < limit):
                changes[name] = Want(math.floor(limit), want.load)
                reasons.append(self._reason(name, want.replicas, math.floor(limit), start, rising=rising))
        observed = ObservedTargets(
            at_s=snapshot.at_s, pools=FrozenMap({name: own for name, own in pools.items() if own})
        )
        return proposal.with_pools(changes, reasons), observed

    def _changes(self, snapshot: Snapshot, name: str, state: ObservedTargets | None) -> Changes:
        """The targets of a pool within the period, after the one that was in force at its start."""
        changes = state.pools.get(name, ()) if state else ()
        replicas = snapshot.pools[name].replicas
        if replicas is not None and not changes:
            changes = ((snapshot.at_s, replicas.target),)
        elif replicas is not None and state is not None and replicas.target != changes[-1][1]:
            changes = self._appended(changes, state.at_s, replicas.target)
        start_s = snapshot.at_s - self.period_s
        past = sum(since_s <= start_s for since_s, _ in changes)
        return changes[max(past - 1, 0) :]

    def _appended(self, changes: Changes, since_s: float, target: int) -> Changes:
        width_s = self.period_s / CHANGES_PER_PERIOD
        last_s = changes[-1][0]
        if len(changes) > 1 and width_s > 0 and since_s // width_s == last_s // width_s:
            return (*changes[:-1], (last_s, target))
        return (*changes, (since_s, target))

    def _highest(self, start: int) -> float:
        by_count = None if self.up_replicas is None else start + self.up_replicas
        by_factor = None if self.up_factor is None else math.ceil(max(start, 1) * self.up_factor - ROUNDING)
        return max((limit for limit in (by_count, by_factor) if limit is not None), default=math.inf)

    def _lowest(self, start: int) -> int:
        by_count = None if self.down_replicas is None else max(start - self.down_replicas, 0)
        by_factor = None if self.down_factor is None else math.floor(start / self.down_factor + ROUNDING)
        return min((limit for limit in (by_count, by_factor) if limit is not None), default=0)

    def _reason(self, name: str, wanted: int, limit: int, start: int, *, rising: bool) -> Reason:
        code, most = ("ScaleUpLimit", "most") if rising else ("ScaleDownLimit", "least")
        return Reason(
            code=code,
            pool=name,
            message=f"from {start} replicas at {most} {limit} within the period",
            values={"wanted": wanted, "limit": limit, "period_start": start, "period_s": self.period_s},
        )
