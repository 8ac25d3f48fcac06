"""RayServeLaw: the autoscaling of Ray Serve, on ongoing requests.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> def observed(at_s):
...     pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=2, queued=0, running=150)
...     return Snapshot(at_s=at_s, pools={"decode": pool})
>>> policy = RayServeLaw(targets={"decode": 50})
>>> [decision.targets["decode"] for decision in policy.replay(map(observed, (0, 15, 30)))]
[2, 2, 3]
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dynamo_planner.core.decision import Reason, Want
from dynamo_planner.core.snapshot import Replicas, Role, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.policies.laws._common import asleep
from dynamo_planner.policies.laws.per_pool import PoolMemories, RequestsLaw, Samples, Verdict, mean, sampled

DEFAULT_TARGETS: dict[Role, float] = {"prefill": 2.0, "decode": 48.0, "aggregated": 48.0}
"""Ongoing requests per replica: Serve's default of 2 for prefill, and a batch for the others."""


class RayServePool(Frozen):
    """The memory of one pool.

    Args:
        samples: The requests in the pool over ``look_back_s``.
        direction: Which way the law has wished to go: -1 down, 0 nowhere, 1 up.
        since_s: Since when it has wished so, in Unix seconds.
    """

    samples: Samples = ()
    direction: int = 0
    since_s: float = 0.0


class RayServeLaw(RequestsLaw, kind="ray_serve"):
    """The default policy of Ray Serve 2.60 (``serve/autoscaling_policy.py``).

    With the mean of the requests in the pool over ``look_back_s``, and ``r`` ready replicas::

        want = requests / target
        n = ceil(r + factor * (want - r)), one less where ceil(want) < r = n

    ``factor`` is ``upscaling_factor`` or ``downscaling_factor``. It moves once it has wished the same way for
    ``upscale_delay_s`` or ``downscale_delay_s``; a wish the other way starts that anew. It goes to zero from one
    replica only. Without a ready replica it goes to ``ceil(upscaling_factor)`` at once where requests come. The first
    decision on a pool lowers nothing.

    Args:
        targets: Requests per replica, by role (``target_ongoing_requests``; Serve's default is 2, which suits prefill;
            for decode it is the batch to aim at). Default 2 for prefill, 48 for the others.
        look_back_s: Seconds. Default 30.
        upscale_delay_s: Seconds. Default 30.
        downscale_delay_s: Seconds. Default 600.
        upscaling_factor: A multiple of the difference to the wish. Default 1.
        downscaling_factor: The same for the way down. Default 1.
        fresh_s: The age in seconds from which on metrics are unknown and hold the pool. Default 60.
    """

    targets: ReadOnly[Role, Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: FrozenMap(DEFAULT_TARGETS))
    look_back_s: float = Field(default=30.0, gt=0)
    upscale_delay_s: float = Field(default=30.0, ge=0)
    downscale_delay_s: float = Field(default=600.0, ge=0)
    upscaling_factor: float = Field(default=1.0, gt=0)
    downscaling_factor: float = Field(default=1.0, gt=0)

    state_type: ClassVar[Any] = PoolMemories[RayServePool]

    def is_asleep(self, replicas: Replicas) -> bool:
        return replicas.ready == 0

    def wake(self, snapshot: Snapshot, replicas: Replicas, own: RayServePool | None) -> Verdict[RayServePool]:
        entry = asleep(snapshot, self.fresh_s)
        if isinstance(entry, Want):
            entry = Want(max(math.ceil(self.upscaling_factor), replicas.target))
        return entry, None, None

    def scale_by_requests(
        self, at_s: float, replicas: Replicas, own: RayServePool | None, total: float, target: float
    ) -> Verdict[RayServePool]:
        samples = sampled(own.samples if own else (), at_s, total, self.look_back_s)
        ongoing = mean(samples, at_s - self.look_back_s)
        ready, present, want = replicas.ready, replicas.target, ongoing / target
        factor = self.upscaling_factor if want > ready else self.downscaling_factor
        wish = math.ceil(ready + factor * (want - ready))
        if math.ceil(want) < ready == wish:
            wish -= 1
        wish = max(wish, 0 if present == 1 else 1)
        direction = (wish > present) - (wish < present)
        since_s = own.since_s if own and own.direction == direction else at_s
        delay_s = self.upscale_delay_s if direction > 0 else self.downscale_delay_s
        waited = at_s - since_s >= delay_s and (direction > 0 or own is not None)
        wanted = wish if waited else present
        values = {"ongoing": ongoing, "target": target, "ready": ready, "wish": wish, "since_s": at_s - since_s}
        message = "as many as its ongoing requests require" if waited else "it waits before it changes"
        reason = Reason(code="OngoingRequests" if waited else "Delayed", message=message, values=values)
        moved = waited and wish != present
        own = RayServePool(samples=samples, direction=0 if moved else direction, since_s=at_s if moved else since_s)
        return Want(wanted, load=want), own, reason
