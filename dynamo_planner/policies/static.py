"""StaticLaw: always so many replicas, the plainest baseline.

>>> from dynamo_planner import PoolSpec, PoolStatus
>>> pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=2)
>>> dict(StaticLaw(replicas={"decode": 5}).decide(Snapshot(at_s=0, pools={"decode": pool})).targets)
{'decode': 5}
"""

from __future__ import annotations

from typing import Any

from dynamo_planner.core.decision import Proposal, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Count, ReadOnly


class StaticLaw(Policy, kind="static"):
    """The same replicas whatever is seen; a pool that is not named is left as it is."""

    replicas: ReadOnly[str, Count]

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        wanted = {name: Want(count, float(count)) for name, count in self.replicas.items() if name in snapshot.pools}
        return Proposal(pools=wanted), state
