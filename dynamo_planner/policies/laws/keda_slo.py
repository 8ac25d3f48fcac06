"""KedaSloLaw: llm-d's latency-driven KEDA law, which scales on the 90th percentiles of TTFT and ITL.

>>> from dynamo_planner import Dist, PoolSpec, PoolStatus, Sla, Snapshot, Traffic
>>> ttft_ms, itl_ms = Dist(mean=300, quantiles={0.9: 900}), Dist(mean=9, quantiles={0.9: 12})
>>> traffic = Traffic(requests_per_s=9, ttft_ms=ttft_ms, itl_ms=itl_ms)
>>> pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=4)
>>> policy = KedaSloLaw(sla=Sla(ttft_ms=1000, itl_ms=25))
>>> print(policy.decide(Snapshot(at_s=0, traffic=traffic, pools={"workers": pool})).explain())
workers: 4 -> 7 replicas
  SaturationHigh: latency over the band of its target (saturation=0.9, up=0.55, down=0.4, credit=1)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from dynamo_planner.core.decision import Hold, Reason, Want
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Role, Sla, Snapshot
from dynamo_planner.core.values import Frozen
from dynamo_planner.policies.laws._common import is_idle, traffic
from dynamo_planner.policies.laws.per_pool import PerPoolLaw, PoolMemories, Samples, Verdict, mean, sampled

QUANTILE = 0.9
"""The level of the latencies that llm-d's formula reads."""

LATENCIES: Mapping[Role, tuple[str, ...]] = {
    "prefill": ("ttft_ms",),
    "decode": ("itl_ms",),
    "aggregated": ("ttft_ms", "itl_ms"),
}
"""The latencies that the replicas of a role bear on."""


class KedaSloPool(Frozen):
    """The memory of one pool: its saturation over the window."""

    samples: Samples


class KedaSloLaw(PerPoolLaw, kind="keda_slo"):
    """The control law of llm-d's SLO-aware autoscaling (``docs/architecture/autoscaling/slo-aware-keda.md`` of llm-d
    after 0.9), which is a formula in a KEDA ScaledObject.

    ``s`` is the mean over ``window_s`` of ``min(max(p90 TTFT / target, p90 ITL / target), clamp)``, and 0 without
    traffic. With ``n`` replicas as the target and ``r`` of them ready::

        s > up:    n + ceil(n * (s * c / up - 1)),  c = r / n where 0 < r < n, otherwise 1
        s < down:  n - floor(n * (1 - s / down))
        otherwise  n

    The credit ``c`` is for replicas that are starting. llm-d has one pool; of a disaggregated service prefill follows
    TTFT here and decode ITL. What the HPA under KEDA adds is guards: up by the larger of 100 % and 4 in 60 s after
    30 s, down by one in 120 s after 180 s. That is ``KedaSloLaw(...) | Stabilization(up_window_s=30,
    down_window_s=180) | StepLimit(up_replicas=4, up_factor=2, period_s=60) | StepLimit(up_replicas=None,
    up_factor=None, down_replicas=1, period_s=120)``.

    Where a percentile is unknown, or older than ``fresh_s``, and it is not because no requests come, the pool is held;
    llm-d takes it for 0. The first decision on a pool lowers nothing.

    Args:
        sla: The targets that the percentiles are divided by.
        up: The saturation above which the pool rises. Default 0.55.
        down: The saturation below which it falls. Default 0.40.
        clamp: The most that one sample of the saturation counts as. Default 2.
        window_s: Seconds that the saturation is averaged over. Default 45.
        fresh_s: The age in seconds from which on the traffic is unknown. Default 60.
    """

    sla: Sla
    up: float = Field(default=0.55, gt=0)
    down: float = Field(default=0.40, gt=0)
    clamp: float = Field(default=2.0, gt=0)
    window_s: float = Field(default=45.0, gt=0)

    state_type: ClassVar[Any] = PoolMemories[KedaSloPool]

    @model_validator(mode="after")
    def _band_is_ordered(self) -> Self:
        if not self.down < self.up < self.clamp:
            raise ValueError(
                f"down ({self.down}) must be below up ({self.up}), and up below clamp ({self.clamp}): change one"
            )
        return self

    def scale(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, replicas: Replicas, own: KedaSloPool | None
    ) -> Verdict[KedaSloPool]:
        raw = self._saturation(snapshot, pool.spec.role)
        if isinstance(raw, Hold):
            return raw, own, None
        samples = sampled(own.samples if own else (), snapshot.at_s, min(raw, self.clamp), self.window_s)
        saturation = mean(samples, snapshot.at_s - self.window_s)
        want, reason = self._wanted(replicas, saturation, first=own is None)
        return want, KedaSloPool(samples=samples), reason

    def _saturation(self, snapshot: Snapshot, role: Role) -> float | Hold:
        if is_idle(snapshot, self.fresh_s):
            return 0.0
        ratios: list[float] = []
        for field in LATENCIES[role]:
            known = traffic(snapshot, field, self.fresh_s)
            if isinstance(known, Hold):
                return known
            quantile: float | None = getattr(snapshot.traffic, field).quantiles.get(QUANTILE)
            if quantile is None:
                return Hold(f"the {QUANTILE} quantile of traffic.{field} is unknown", "MetricUnknown")
            ratios.append(quantile / getattr(self.sla, field))
        return max(ratios)

    def _wanted(self, replicas: Replicas, saturation: float, *, first: bool) -> tuple[Want, Reason]:
        count, ready = replicas.target, replicas.ready
        credit = ready / count if 0 < ready < count else 1.0
        wanted, code, message = count, "WithinBand", "latency within the band of its target"
        if saturation > self.up:
            wanted = count + math.ceil(count * (saturation * credit / self.up - 1))
            code, message = "SaturationHigh", "latency over the band of its target"
        elif saturation < self.down and not first:
            wanted = count - math.floor(count * (1 - saturation / self.down))
            code, message = "SaturationLow", "latency under the band of its target"
        values = {"saturation": saturation, "up": self.up, "down": self.down, "credit": credit}
        load = count * saturation * credit / self.up
        return Want(max(wanted, 1), load=load), Reason(code=code, message=message, values=values)
