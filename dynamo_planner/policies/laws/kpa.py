"""KpaLaw: the Knative Pod Autoscaler, on requests in flight.

>>> from dynamo_planner import PoolSpec, PoolStatus, Snapshot
>>> def observed(at_s, running):
...     pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=2, queued=0, running=running)
...     return Snapshot(at_s=at_s, pools={"workers": pool})
>>> policy = KpaLaw(targets={"aggregated": 10})
>>> [decision.targets["workers"] for decision in policy.replay(observed(10 * n, 18 + 9 * n) for n in range(9))]
[2, 3, 4, 5, 6, 7, 8, 9, 9]
"""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dynamo_planner.core.decision import Reason, Want
from dynamo_planner.core.snapshot import Replicas, Role, Snapshot
from dynamo_planner.core.values import Count, Frozen, FrozenMap, ReadOnly
from dynamo_planner.policies.laws._common import LARGEST_COUNT, LARGEST_LOAD_REPLICAS, asleep
from dynamo_planner.policies.laws.per_pool import PoolMemories, RequestsLaw, Samples, Verdict, mean, sampled

DEFAULT_TARGETS: dict[Role, float] = {"prefill": 1.4, "decode": 44.8, "aggregated": 44.8}
"""Requests in flight per replica: 70 % (Knative's default utilisation) of 2 prompts, and of a batch of 64."""


class KpaPool(Frozen):
    """The memory of one pool.

    Args:
        since_s: When the pool woke up or was first observed, in Unix seconds.
        samples: The requests in the pool over the stable window.
        panic_s: When the panic it is in was last confirmed, in Unix seconds; ``None`` where it is calm.
        peak: The most replicas that were wanted during this panic.
    """

    since_s: float
    samples: Samples = ()
    panic_s: float | None = None
    peak: Count = 0


class KpaLaw(RequestsLaw, kind="kpa"):
    """Knative's autoscaler (``pkg/autoscaler/scaling/autoscaler.go`` of Knative Serving 1.18).

    With the mean of the requests in the pool over ``stable_window_s`` and over the last ``panic_window`` of it::

        S, P = ceil(stable / target), ceil(panic / target)
        both within floor(ready / down_rate) and ceil(up_rate * ready)

    and ``S`` is wanted. Where ``ceil(panic / target) >= panic_threshold * ready`` it panics: until it was calm for a
    stable window, the largest ``max(S, P)`` so far is wanted.

    Knative decides every 2 s; at a longer interval the panic window holds the last sample alone. A pool goes to zero
    after a stable window without requests, and never sooner than a stable window after it woke up; it wakes up when
    requests arrive or wait at the frontend, as they do at Knative's activator.

    As a restarted Knative does, it begins in a panic at the present target where that is more than 1, so that lost
    history drops nothing.

    Args:
        targets: Requests in flight per replica, by role: Knative's is 70 % of a container's concurrency, which for an
            engine is the batch that keeps its SLA. Default 1.4 for prefill, 44.8 for the others.
        stable_window_s: Seconds, 6 to 3600. Default 60.
        panic_window: A share of the stable window. Default 0.1.
        panic_threshold: A multiple of the ready replicas. Default 2.
        up_rate: The most replicas wanted at once, as a multiple of the ready ones. Default 1000.
        down_rate: The fewest, as their quotient. Default 2.
        fresh_s: The age in seconds from which on metrics are unknown and hold the pool. Default 60.
    """

    targets: ReadOnly[Role, Annotated[float, Field(gt=0)]] = Field(default_factory=lambda: FrozenMap(DEFAULT_TARGETS))
    stable_window_s: float = Field(default=60.0, ge=6, le=3600)
    panic_window: float = Field(default=0.1, gt=0, le=1)
    panic_threshold: float = Field(default=2.0, gt=1)
    up_rate: float = Field(default=1000.0, gt=1)
    down_rate: float = Field(default=2.0, gt=1)

    state_type: ClassVar[Any] = PoolMemories[KpaPool]

    def wake(self, snapshot: Snapshot, replicas: Replicas, own: KpaPool | None) -> Verdict[KpaPool]:
        return asleep(snapshot, self.fresh_s), None, None

    def scale_by_requests(
        self, at_s: float, replicas: Replicas, own: KpaPool | None, total: float, target: float
    ) -> Verdict[KpaPool]:
        own = own or _started(at_s, replicas)
        samples = sampled(own.samples, at_s, total, self.stable_window_s)
        stable = mean(samples, at_s - self.stable_window_s)
        panic = mean(samples, at_s - self.panic_window * self.stable_window_s)
        ready = replicas.ready
        lowest, highest = math.floor(ready / self.down_rate), math.ceil(self.up_rate * ready)
        burst = math.ceil(panic / target)
        calm, panicked = (min(max(count, lowest), highest) for count in (math.ceil(stable / target), burst))
        panic_s = own.panic_s
        if burst / ready >= self.panic_threshold:
            panic_s = at_s
        elif panic_s is not None and panic_s + self.stable_window_s < at_s:
            panic_s = None
        peak = 0 if panic_s is None else max(own.peak, calm, panicked)
        wanted = max(calm, peak)
        if wanted == 0 and at_s - own.since_s < self.stable_window_s:
            wanted = 1
        message = "the mean of the stable window" if panic_s is None else "panicking: never down"
        values = {"stable": stable, "panic": panic, "target": target, "ready": ready}
        reason = Reason(code="Stable" if panic_s is None else "Panicking", message=message, values=values)
        own = KpaPool(since_s=own.since_s, samples=samples, panic_s=panic_s, peak=peak)
        return Want(min(wanted, LARGEST_COUNT), load=min(stable / target, LARGEST_LOAD_REPLICAS)), own, reason


def _started(at_s: float, replicas: Replicas) -> KpaPool:
    several = replicas.target > 1
    return KpaPool(since_s=at_s, panic_s=at_s if several else None, peak=replicas.target if several else 0)
