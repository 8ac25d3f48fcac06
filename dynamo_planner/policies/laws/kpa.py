"""KpaLaw: the Knative Pod Autoscaler, on requests in flight.

>>> from dynamo_planner import PoolSpec, PoolStatus
>>> def seen(at_s, running):
...     pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=2, queued=0, running=running)
...     return Snapshot(at_s=at_s, pools={"workers": pool})
>>> policy = KpaLaw(targets={"aggregated": 10})
>>> [decision.targets["workers"] for decision in policy.replay(seen(10 * n, 18 + 9 * n) for n in range(9))]
[2, 3, 4, 5, 6, 7, 8, 9, 9]
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Role, Snapshot
from dynamo_planner.core.values import Count, Frozen, FrozenMap, ReadOnly
from dynamo_planner.policies.laws._common import FRESH_S, NO_TARGET, UNREADABLE, asleep, requests
from dynamo_planner.policies.laws.moving_mean import Samples, mean, sampled
from dynamo_planner.policies.laws.per_pool import Looked, each_pool

LARGEST_COUNT = 10**9

DEFAULT_TARGETS: dict[Role, float] = {"prefill": 1.4, "decode": 44.8, "aggregated": 44.8}
"""70 % of 2 prompts, and of a batch of 64."""


class KpaPool(Frozen):
    """What is remembered of a pool: since when it is awake, the requests in it, and the panic it is in."""

    since_s: float
    samples: Samples = ()
    panic_s: float | None = None
    peak: Count = 0


class KpaMemory(Frozen):
    """What is remembered of every pool."""

    pools: ReadOnly[str, KpaPool]


class KpaLaw(Policy, kind="kpa"):
    """Knative's autoscaler (``pkg/autoscaler/scaling/autoscaler.go`` of Knative Serving 1.18).

    With the mean of the requests in the pool over ``stable_window_s`` and over the last ``panic_window`` of it::

        S, P = ceil(stable / target), ceil(panic / target)
        both within floor(ready / down_rate) and ceil(up_rate * ready)

    and ``S`` is wanted. Where ``ceil(panic / target) >= panic_threshold * ready`` it panics: until it was calm for a
    stable window, the largest ``max(S, P)`` so far is wanted. ``ready`` counts as 1 at least.

    ``targets`` are requests in flight per replica, by role: Knative's is 70 % of a container's concurrency, which for
    an engine is the batch that keeps its SLA. Knative decides every 2 s; asked less often, the panic window holds the
    last sample alone. A pool goes to zero after a stable window without requests, and never sooner than a stable window
    after it was woken up; it wakes up when requests arrive or wait at the frontend, as they do at Knative's activator.

    As a restarted Knative does, it begins in a panic at the present target where that is more than 1, so that lost
    history drops nothing. Metrics older than ``fresh_s`` are unknown, and hold the pool.
    """

    targets: ReadOnly[Role, Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: FrozenMap(DEFAULT_TARGETS))
    stable_window_s: float = Field(default=60.0, ge=6, le=3600)
    panic_window: float = Field(default=0.1, gt=0, le=1)
    panic_threshold: float = Field(default=2.0, gt=1)
    up_rate: float = Field(default=1000.0, gt=1)
    down_rate: float = Field(default=2.0, gt=1)
    fresh_s: float = Field(default=FRESH_S, gt=0)

    state_type: ClassVar[Any] = KpaMemory

    def propose(self, snapshot: Snapshot, state: KpaMemory | None) -> tuple[Proposal, KpaMemory]:
        proposal, pools = each_pool(snapshot, state.pools if state else {}, partial(self._look, snapshot))
        return proposal, KpaMemory(pools=pools)

    def _look(self, snapshot: Snapshot, name: str, pool: PoolStatus, own: KpaPool | None) -> Looked[KpaPool]:
        target = self.targets.get(pool.spec.role)
        if target is None:
            return NO_TARGET, own, None
        if pool.replicas is None:
            return UNREADABLE, own, None
        if pool.replicas.target == 0:
            return asleep(snapshot, self.fresh_s), None, None
        total = requests(snapshot, name, self.fresh_s)
        if isinstance(total, Hold):
            return total, own, None
        own = own or self._started(snapshot.at_s, pool.replicas)
        return self._decided(snapshot.at_s, pool.replicas, own, total, target)

    def _started(self, at_s: float, replicas: Replicas) -> KpaPool:
        several = replicas.target > 1
        return KpaPool(since_s=at_s, panic_s=at_s if several else None, peak=replicas.target if several else 0)

    def _decided(
        self, at_s: float, replicas: Replicas, own: KpaPool, total: float, target: float
    ) -> tuple[Want, KpaPool, Reason]:
        samples = sampled(own.samples, at_s, total, self.stable_window_s)
        stable = mean(samples, at_s - self.stable_window_s)
        panic = mean(samples, at_s - self.panic_window * self.stable_window_s)
        ready = max(replicas.ready, 1)
        lowest, highest = math.floor(ready / self.down_rate), math.ceil(self.up_rate * ready)
        asked = min(math.ceil(panic / target), LARGEST_COUNT)
        wanted, burst = (min(max(count, lowest), highest) for count in (math.ceil(stable / target), asked))
        panic_s = own.panic_s
        if asked / ready >= self.panic_threshold:
            panic_s = at_s
        elif panic_s is not None and panic_s + self.stable_window_s < at_s:
            panic_s = None
        peak = 0 if panic_s is None else max(own.peak, wanted, burst)
        wanted = max(wanted, peak)
        if wanted == 0 and at_s - own.since_s < self.stable_window_s:
            wanted = 1
        message = "the mean of the stable window" if panic_s is None else "panicking: never down"
        values = {"stable": stable, "panic": panic, "target": target, "ready": replicas.ready}
        reason = Reason(code="Stable" if panic_s is None else "Panicking", message=message, values=values)
        own = KpaPool(since_s=own.since_s, samples=samples, panic_s=panic_s, peak=peak)
        return Want(min(wanted, LARGEST_COUNT), load=min(stable / target, 1e9)), own, reason
