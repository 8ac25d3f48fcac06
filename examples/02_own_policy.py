"""A policy of your own in ten lines, held to the laws that the shipped ones are held to.

The check needs the extra ``testing``: ``pip install 'dynamo-planner[testing]'``.
"""

import math
from typing import Any

from dynamo_planner import GpuBudget, Policy, Proposal, Snapshot, Want
from dynamo_planner.conformance import check_policy


class PerReplica(Policy):
    """One replica for this many requests a second."""

    requests_per_s: float = 4.0

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        rate = snapshot.traffic.requests_per_s
        if rate is None:
            return Proposal.hold(snapshot.pools, "traffic.requests_per_s is unknown", "MetricUnknown"), state
        load = rate / self.requests_per_s
        return Proposal(pools={pool: Want(math.ceil(load), load=load) for pool in snapshot.pools}), state


if __name__ == "__main__":
    check_policy(PerReplica(requests_per_s=3) | GpuBudget(max_gpus=64))
    print("PerReplica | GpuBudget keeps every law")
