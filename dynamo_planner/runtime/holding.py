"""What decides while there is no complete snapshot: every pool is held, under the guards of the policy."""

from __future__ import annotations

from typing import Any

from dynamo_planner.core.decision import Proposal, Reason
from dynamo_planner.core.policy import Guarded, Policy
from dynamo_planner.core.snapshot import Snapshot


class _HoldEveryPool(Policy, kind="unasked"):
    """Holds every pool, in place of a policy that has no complete snapshot to decide on."""

    failures: tuple[Reason, ...]

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        why = "it could not be observed, so the policy did not decide"
        return Proposal.hold(snapshot.pools, why, self.failures[0].code).because(*self.failures), state


def without_policy(policy: Policy, failures: tuple[Reason, ...]) -> Policy:
    """The guards of a policy around one that holds every pool."""
    holding = _HoldEveryPool(failures=failures)
    return Guarded(policy=holding, guards=policy.guards) if isinstance(policy, Guarded) else holding
