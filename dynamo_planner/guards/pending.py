"""Pending: starting replicas count when scaling up, and not when scaling down.

>>> from dynamo_planner import PoolSpec, PoolStatus, Replicas, Snapshot
>>> replicas = Replicas(ready=2, starting=2)
>>> snapshot = Snapshot(at_s=0, pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=replicas)})
>>> policy = (lambda snapshot: {"decode": snapshot.pools["decode"].replicas.ready + 1}) | Pending()
>>> print(policy.decide(snapshot).explain())
decode: stays at 4
  ReplicasStarting: 2 ready and 2 starting replicas will do (wanted=3, ready=2, coming=2, target=4)
"""

from __future__ import annotations

from typing import Any

from dynamo_planner.core.decision import Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.snapshot import STUCK_AFTER_STARTUPS, PoolStatus, Snapshot
from dynamo_planner.guards._common import wants


class Pending(Guard, kind="pending"):
    """A limit while replicas are starting: a pool keeps its target unless the proposal is beyond what is on its way.

    - More than ready + starting: the rise goes through.
    - More than ready, and at most ready + starting: the target stays. Raising it would order twice what is on its way,
      and lowering it would count on starts that may yet fail.
    - At most ready: the fall goes through, since the ready ones alone will do.

    A start older than three start-up times (``PoolSpec.startup_s``) is not coming capacity. It does not keep a rise or
    a fall back, and a ``StartStuck`` reason reports it for as long as it is there.
    """

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        stuck = [_stuck_reason(name, pool, snapshot.at_s) for name, pool in snapshot.pools.items()]
        changes, reasons = {}, [reason for reason in stuck if reason is not None]
        for name, want, replicas in wants(snapshot, proposal):
            coming = snapshot.pools[name].coming(snapshot.at_s)
            on_the_way = replicas.ready < want.replicas <= replicas.ready + coming
            if on_the_way and want.replicas != replicas.target:
                changes[name] = Want(replicas.target, want.load)
                reasons.append(
                    Reason(
                        code="ReplicasStarting",
                        pool=name,
                        message=f"{replicas.ready} ready and {coming} starting replicas will do",
                        values={
                            "wanted": want.replicas,
                            "ready": replicas.ready,
                            "coming": coming,
                            "target": replicas.target,
                        },
                    )
                )
        return proposal.with_pools(changes, reasons), state


def _stuck_reason(name: str, pool: PoolStatus, at_s: float) -> Reason | None:
    stuck = pool.stuck(at_s)
    if not stuck:
        return None
    limit_s = STUCK_AFTER_STARTUPS * pool.spec.startup_s
    return Reason(
        code="StartStuck",
        pool=name,
        message=f"{stuck} starting for more than {limit_s:g} s, no longer counted as coming capacity",
        values={"stuck": stuck, "startup_s": pool.spec.startup_s},
    )
