"""Tolerance: no move for a small change.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> policy = (lambda snapshot: {"decode": 21}) | Tolerance(up=0.1, down=0.1)
>>> snapshot = Snapshot(at_s=0, pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=20)})
>>> print(policy.decide(snapshot).explain())
decode: stays at 20
  WithinTolerance: a change from 20 to 21 is not worth a move (wanted=21, present=20, tolerance=0.1)
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dynamo_planner.core.decision import Proposal, Reason, Want
from dynamo_planner.core.policy import Guard
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.guards._common import wants


class Tolerance(Guard, kind="tolerance"):
    """Keeps a pool where it is while its target would change by no more than a share of the present one.

    With 20 replicas and a tolerance of 0.1, 18 to 22 are no move; with 5 replicas each change is one. A pool at zero
    wakes up, and a pool goes to zero, whatever the tolerance.

    Args:
        up: The share of the present target that a rise must exceed. Default 0: every rise is a move.
        down: The share of the present target that a fall must exceed. Default 0.1.
    """

    up: float = Field(default=0.0, ge=0, le=1)
    down: float = Field(default=0.1, ge=0, le=1)

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        changes, reasons = {}, []
        for name, want, replicas in wants(snapshot, proposal):
            present, wanted = replicas.target, want.replicas
            tolerance = self.up if wanted > present else self.down
            if wanted in {0, present} or abs(wanted - present) > tolerance * present:
                continue
            changes[name] = Want(present, want.load)
            reasons.append(
                Reason(
                    code="WithinTolerance",
                    pool=name,
                    message=f"a change from {present} to {wanted} is not worth a move",
                    values={"wanted": wanted, "present": present, "tolerance": tolerance},
                )
            )
        return proposal.with_pools(changes, reasons), state
