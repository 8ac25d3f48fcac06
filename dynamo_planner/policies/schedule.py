"""Planned and static replica counts: a schedule by time of day or along a trace, and a constant baseline.

>>> from dynamo_planner import PoolSpec, PoolStatus
>>> policy = Schedule(plan={"decode": ((0, 2), (3600, 5))})
>>> pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=2)
>>> snapshots = [Snapshot(at_s=at_s, pools={"decode": pool}) for at_s in (0, 1800, 4000)]
>>> [decision.targets["decode"] for decision in policy.replay(snapshots)]
[2, 2, 5]
>>> dict(StaticLaw(replicas={"decode": 5}).decide(snapshots[0]).targets)
{'decode': 5}
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import Any, Self

from pydantic import Field, model_validator

from dynamo_planner.core.decision import Hold, Proposal, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.pool_names import PoolName
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Count, ReadOnly
from dynamo_planner.core.zones import NamedZone


class Schedule(Policy, kind="schedule"):
    """Planned replicas per pool, as steps over time. Before its first step a pool is held.

    Args:
        plan: Per pool ``((from_s, replicas), ...)``, in the order of time; ``from_s`` is in seconds after ``start_s``.
        start_s: When the plan starts, in Unix seconds. Default 0.
        every_s: The period after which the plan repeats, in seconds: 86,400 for every day. Default ``None``, once.
        zone: The time zone of the plan: an IANA name such as ``Europe/Berlin``. Times are then those of its wall clock,
            through daylight saving too, and ``start_s`` counts from 1970-01-01 00:00 there. Default ``None``, UTC.
    """

    plan: ReadOnly[PoolName, tuple[tuple[float, Count], ...]]
    start_s: float = 0.0
    every_s: float | None = Field(default=None, gt=0)
    zone: NamedZone | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name, steps in self.plan.items():
            for (before_s, _), (from_s, _) in pairwise(steps):
                if from_s <= before_s:
                    raise ValueError(f"plan.{name}: {from_s:g} s comes after {before_s:g} s: put its steps in order")
        return self

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        now_s = snapshot.at_s if self.zone is None else self.zone.local_s(snapshot.at_s)
        since_s = now_s - self.start_s
        if self.every_s is not None:
            since_s %= self.every_s
        entries: dict[str, Want | Hold] = {}
        for name in self.plan:
            if name in snapshot.pools:
                step = bisect_right(self.plan[name], since_s, key=lambda entry: entry[0])
                count = self.plan[name][step - 1][1] if step else 0
                entries[name] = Want(count, float(count)) if step else Hold("before the first step", "NotYet")
        return Proposal(pools=entries), state


class StaticLaw(Policy, kind="static"):
    """Constant replicas per pool, the plainest baseline. A pool without an entry keeps its replicas.

    Args:
        replicas: The replicas of each pool by name.
    """

    replicas: ReadOnly[PoolName, Count]

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        wanted = {name: Want(count, float(count)) for name, count in self.replicas.items() if name in snapshot.pools}
        return Proposal(pools=wanted), state
