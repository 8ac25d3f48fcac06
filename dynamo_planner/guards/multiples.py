"""Multiples: replicas in steps, such as whole nodes or gangs.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> policy = (lambda snapshot: {"decode": 9}) | Multiples(of={"decode": 4})
>>> snapshot = Snapshot(at_s=0, pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=8)})
>>> print(policy.decide(snapshot).explain())
decode: 8 -> 12 replicas
  RoundedToMultiple: replicas come in steps of 4 (wanted=9, replicas=12, step=4)
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from dynamo_planner.core.decision import Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.pool_names import PoolName
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import ReadOnly
from dynamo_planner.guards._common import wants


class Multiples(Guard, kind="multiples"):
    """Rounds the replicas of a pool up to a multiple of a step; down where ``max_replicas`` allows no more.

    With steps of 4 and ``max_replicas=10``, 5 becomes 8, and 9 becomes 8. Where not one step fits, the proposal stays.
    Give pools whose bounds or budget come later multiples of the step as well, since those have the last word.

    Args:
        of: The step of each pool, by name.
    """

    of: ReadOnly[PoolName, Annotated[int, Field(ge=1)]]

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        changes, reasons = {}, []
        for name, want, _ in wants(snapshot, proposal):
            step, most = self.of.get(name, 1), snapshot.pools[name].spec.max_replicas
            rounded = -(-want.replicas // step) * step
            if most is not None and rounded > most:
                rounded = most // step * step
            if rounded in {0, want.replicas}:
                continue
            changes[name] = Want(rounded, want.load)
            reasons.append(
                Reason(
                    code="RoundedToMultiple",
                    pool=name,
                    message=f"replicas come in steps of {step}",
                    values={"wanted": want.replicas, "replicas": rounded, "step": step},
                )
            )
        return proposal.with_pools(changes, reasons), state
