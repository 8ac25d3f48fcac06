"""Spare: warm replicas beyond what is needed, for a crash or a burst that no forecast knows.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> policy = (lambda snapshot: {"decode": 10}) | Spare(replicas=1, share=0.15)
>>> snapshot = Snapshot(at_s=0, pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=8)})
>>> print(policy.decide(snapshot).explain())
decode: 8 -> 12 replicas
  SpareKept: 2 replicas beyond the 10 that are needed (needed=10, spare=2, wanted=10)
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from pydantic import Field

from dynamo_planner.core.decision import Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.pool_names import PoolName
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Count, Frozen, FrozenMap, ReadOnly
from dynamo_planner.guards._common import wants


class Granted(Frozen):
    """The replicas that each pool was granted last."""

    pools: ReadOnly[str, Count]


class Spare(Guard, kind="spare"):
    """Raises each pool to what is needed and a spare: ``replicas``, or ``share`` of the need, whichever is more.

    ::

        target = max(wanted, needed + max(replicas, ceil(share * needed)))     needed = ceil(load)

    ``load`` is the fractional need that the policy reports; so a pool that the policy keeps above its need for other
    reasons has its spare already. Where the policy reports none, what it proposes is the need, unless that is what this
    guard granted last: then the pool stays. A pool that goes to zero gets no spare. Put it before the guards that limit
    how fast a pool moves.

    Args:
        replicas: Spare replicas. Default 1.
        share: Spare replicas as a share of the need, 0 to 10. Default 0.
        pools: The pools that get them, by name. Default ``None``, all.
    """

    replicas: Count = 1
    share: float = Field(default=0.0, ge=0, le=10)
    pools: tuple[PoolName, ...] | None = None

    state_type: ClassVar[Any] = Granted

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Granted | None) -> tuple[Proposal, Granted]:
        granted = dict(state.pools) if state else {}
        changes, reasons = {}, []
        for name, want, replicas in wants(snapshot, proposal):
            if want.replicas == 0 or (self.pools is not None and name not in self.pools):
                continue
            if want.load is None and want.replicas == replicas.target == granted.get(name):
                continue
            needed = want.replicas if want.load is None else math.ceil(want.load)
            spare = max(self.replicas, math.ceil(self.share * needed))
            granted[name] = max(want.replicas, needed + spare)
            if granted[name] > want.replicas:
                changes[name] = Want(granted[name], want.load)
                reasons.append(
                    Reason(
                        code="SpareKept",
                        pool=name,
                        message=f"{spare} replicas beyond the {needed} that are needed",
                        values={"needed": needed, "spare": spare, "wanted": want.replicas},
                    )
                )
        kept = {name: count for name, count in granted.items() if name in snapshot.pools}
        return proposal.with_pools(changes, reasons), Granted(pools=FrozenMap(kept))
