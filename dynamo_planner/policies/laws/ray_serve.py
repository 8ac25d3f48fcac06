"""RayServeLaw: the autoscaling of Ray Serve, on ongoing requests.

>>> from dynamo_planner import PoolSpec, PoolStatus
>>> def seen(at_s):
...     pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=2, queued=0, running=150)
...     return Snapshot(at_s=at_s, pools={"decode": pool})
>>> policy = RayServeLaw(targets={"decode": 50})
>>> [decision.targets["decode"] for decision in policy.replay(map(seen, (0, 15, 30)))]
[2, 2, 3]
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Role, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.policies.laws._common import FRESH_S, NO_TARGET, UNREADABLE, asleep, requests
from dynamo_planner.policies.laws.moving_mean import Samples, mean, sampled
from dynamo_planner.policies.laws.per_pool import Looked, each_pool

DEFAULT_TARGETS: dict[Role, float] = {"prefill": 2.0, "decode": 48.0, "aggregated": 48.0}


class RayServePool(Frozen):
    """What is remembered of a pool: its requests, and which way it has wanted to go since when."""

    samples: Samples = ()
    direction: int = 0
    since_s: float = 0.0


class RayServeMemory(Frozen):
    """What is remembered of every pool."""

    pools: ReadOnly[str, RayServePool]


class RayServeLaw(Policy, kind="ray_serve"):
    """The default policy of Ray Serve 2.60 (``serve/autoscaling_policy.py``).

    With the mean of the requests in the pool over ``look_back_s``, and ``r`` ready replicas::

        want = requests / target
        n = ceil(r + factor * (want - r)), one less where ceil(want) < r = n

    ``factor`` is ``upscaling_factor`` or ``downscaling_factor``. It moves once it has wished the same way for
    ``upscale_delay_s`` or ``downscale_delay_s``; a wish the other way starts that anew. It goes to zero from one
    replica only. Without a ready replica it goes to ``ceil(upscaling_factor)`` at once where requests come.

    ``targets`` are the requests per replica, by role (``target_ongoing_requests``; Serve's default is 2, which suits
    prefill; for decode it is the batch that is aimed at). The first look at a pool lowers nothing. Metrics older than
    ``fresh_s`` are unknown and hold the pool.
    """

    targets: ReadOnly[Role, Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: FrozenMap(DEFAULT_TARGETS))
    look_back_s: float = Field(default=30.0, gt=0)
    upscale_delay_s: float = Field(default=30.0, ge=0)
    downscale_delay_s: float = Field(default=600.0, ge=0)
    upscaling_factor: float = Field(default=1.0, gt=0)
    downscaling_factor: float = Field(default=1.0, gt=0)
    fresh_s: float = Field(default=FRESH_S, gt=0)

    state_type: ClassVar[Any] = RayServeMemory

    def propose(self, snapshot: Snapshot, state: RayServeMemory | None) -> tuple[Proposal, RayServeMemory]:
        proposal, pools = each_pool(snapshot, state.pools if state else {}, partial(self._look, snapshot))
        return proposal, RayServeMemory(pools=pools)

    def _look(self, snapshot: Snapshot, name: str, pool: PoolStatus, own: RayServePool | None) -> Looked[RayServePool]:
        target = self.targets.get(pool.spec.role)
        if target is None:
            return NO_TARGET, own, None
        if pool.replicas is None:
            return UNREADABLE, own, None
        if pool.replicas.ready == 0:
            return self._cold(snapshot, pool.replicas), None, None
        total = requests(snapshot, name, self.fresh_s)
        if isinstance(total, Hold):
            return total, own, None
        return self._decided(snapshot.at_s, pool.replicas, own, total, target)

    def _cold(self, snapshot: Snapshot, replicas: Replicas) -> Want | Hold:
        entry = asleep(snapshot, self.fresh_s)
        if isinstance(entry, Want):
            return Want(max(math.ceil(self.upscaling_factor), replicas.target))
        return entry

    def _decided(
        self, at_s: float, replicas: Replicas, own: RayServePool | None, total: float, target: float
    ) -> tuple[Want, RayServePool, Reason]:
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
        message = "as many as its ongoing requests need" if waited else "it waits before it changes"
        reason = Reason(code="OngoingRequests" if waited else "Delayed", message=message, values=values)
        moved = waited and wish != present
        own = RayServePool(samples=samples, direction=0 if moved else direction, since_s=at_s if moved else since_s)
        return Want(wanted, load=want), own, reason
