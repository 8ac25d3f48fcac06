"""LlmdQueueLaw: llm-d's queue law, which scales on the requests that wait and those that run.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot, Traffic
>>> pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=4, queued=0, running=50)
>>> snapshot = Snapshot(at_s=0, traffic=Traffic(requests_per_s=5, queued=6), pools={"workers": pool})
>>> print(LlmdQueueLaw().decide(snapshot).explain())
workers: 4 -> 6 replicas
  QueuedRequests: the requests that wait decide (queued=6, running=50, for_queued=6, for_running=4)
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dynamo_planner.core.decision import Hold, Reason, Want
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot
from dynamo_planner.policies.laws._common import (
    FRONT_UNKNOWN,
    HPA_TOLERANCE,
    LARGEST_LOAD_REPLICAS,
    average_value,
    in_front,
    may_move,
    pool_total,
)
from dynamo_planner.policies.laws.per_pool import PerPoolLaw, Verdict


class LlmdQueueLaw(PerPoolLaw, kind="llmd_queue"):
    """The queue law that llm-d recommends (``guides/workload-autoscaling/keda-epp-queue`` of llm-d after 0.9): a KEDA
    ScaledObject with two triggers, of which the HPA takes the larger wish.

    With ``q`` requests waiting and ``r`` running, in sum over the pool::

        wanted = max(ceil(q / queue_target), ceil(r / running_target))

    where a term keeps the present count while its ratio to the target is within the HPA's tolerance. 6 waiting and 50
    running give max(6 / 1, 50 / 16) = 6. The requests in front of the pools count as waiting for each of them: llm-d's
    router keeps back what no worker has room for (flow control). Without that what waits does so in the engines, and
    counts too. Never to zero; a pool at zero wakes up with the first request.

    The HPA under KEDA adds guards: up by 100 % in 15 s, down after 300 s, without a limit. That is ``LlmdQueueLaw() |
    Stabilization(down_window_s=300) | StepLimit(up_replicas=None, up_factor=2, period_s=15)``. llm-d has one pool;
    here every pool of a disaggregated service has both triggers.

    Args:
        queue_target: Requests waiting per replica. Default 1.
        running_target: Requests running per replica. Default 16.
        tolerance: The share by which a ratio may differ from 1 without a change. Default 0.1.
        fresh_s: The age in seconds from which on an observation is unknown and holds the pool. Default 60.
    """

    queue_target: float = Field(default=1.0, gt=0)
    running_target: float = Field(default=16.0, gt=0)
    tolerance: float = Field(default=HPA_TOLERANCE, ge=0, lt=1)

    def scale(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, replicas: Replicas, own: Any | None
    ) -> Verdict[Any]:
        queued, running = (pool_total(snapshot, name, field, self.fresh_s) for field in ("queued", "running"))
        if isinstance(queued, Hold):
            return queued, None, None
        if isinstance(running, Hold):
            return running, None, None
        in_router = in_front(snapshot, self.fresh_s)
        queued += in_router or 0.0
        for_queued = average_value(queued, self.queue_target, replicas, self.tolerance)
        for_running = average_value(running, self.running_target, replicas, self.tolerance)
        waits = for_queued >= for_running
        reason = Reason(
            code="QueuedRequests" if waits else "RunningRequests",
            message=f"the requests that {'wait' if waits else 'run'} decide",
            values={"queued": queued, "running": running, "for_queued": for_queued, "for_running": for_running},
        )
        load = max(queued / self.queue_target, running / self.running_target)
        want = Want(max(for_queued, for_running, 1), load=min(load, LARGEST_LOAD_REPLICAS))
        return (want, None, reason) if may_move(want, replicas, in_router) else (FRONT_UNKNOWN, None, None)
