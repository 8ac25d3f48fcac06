"""HpaLaw: the Kubernetes HorizontalPodAutoscaler on metrics per replica.

>>> from dynamo_planner import PoolSpec, PoolStatus, Stabilization, StepLimit
>>> hpa = HpaLaw() | Stabilization() | StepLimit()
>>> pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=4, kv_usage=0.9)
>>> print(hpa.decide(Snapshot(at_s=0, pools={"decode": pool})).explain())
decode: 4 -> 6 replicas
  HpaMetric: kv_usage over its target (value=0.9, target=0.6, ratio=1.5, ready=4)
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot
from dynamo_planner.core.values import Frozen
from dynamo_planner.policies.laws._common import (
    FRESH_S,
    HPA_TOLERANCE,
    LARGEST_LOAD_REPLICAS,
    UNREADABLE,
    average_value,
    per_replica,
    requests,
    traffic,
    workers_observed,
)

MetricName = Literal["requests", "queued", "running", "kv_usage", "requests_per_s"]


class HpaMetric(Frozen):
    """A metric and the average per replica to aim at.

    Args:
        name: ``requests_per_s`` are the arrivals at the frontend, an external metric; the others are of the replicas.
            ``requests`` are those that wait or run.
        target: In the unit of the metric, per replica.
    """

    name: MetricName
    target: float = Field(gt=0)


class HpaLaw(Policy, kind="hpa"):
    """The HorizontalPodAutoscaler v2 of Kubernetes, without its ``behavior``.

    From ``replica_calculator.go`` of Kubernetes 1.33 (``GetMetricReplicas``, ``GetExternalPerPodMetricReplicas``). With
    the metric's mean ``m`` over the ready replicas observed, and ``n`` the present target::

        ratio = m / target
        wanted = n if |1 - ratio| <= tolerance else ceil(ratio * ready)

    Ready replicas that were not observed count as at their target when scaling down and as 0 when scaling up; starting
    ones as 0 when scaling up; then the ratio is worked out again, and where it crosses 1 or comes within the tolerance
    nothing changes. An external metric ``x`` has ``ratio = x / (target * replicas)`` and ``wanted = ceil(x / target)``.
    Of several metrics the largest wish counts, and where one is unknown or a lower bound, there is no scale-down. Never
    to zero.

    ``behavior`` is guards: ``HpaLaw() | Stabilization() | StepLimit()`` is an HPA with its defaults, and is to decide
    every 15 s as that does. An HPA is of one Deployment and needs a metric for it; the defaults here are what is often
    used for LLM engines, by the role of the pool.

    Args:
        prefill: The metrics of prefill pools. Default 2 ``requests``.
        decode: The metrics of decode pools. Default a ``kv_usage`` of 0.6.
        aggregated: The metrics of aggregated pools. Default a ``kv_usage`` of 0.6.
        tolerance: The share by which the ratio may differ from 1 without a change. Default 0.1.
        fresh_s: The age in seconds from which on metrics are unknown. Default 60.
    """

    prefill: tuple[HpaMetric, ...] = (HpaMetric(name="requests", target=2.0),)
    decode: tuple[HpaMetric, ...] = (HpaMetric(name="kv_usage", target=0.6),)
    aggregated: tuple[HpaMetric, ...] = (HpaMetric(name="kv_usage", target=0.6),)
    tolerance: float = Field(default=HPA_TOLERANCE, ge=0, lt=1)
    fresh_s: float = Field(default=FRESH_S, gt=0)

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        entries: dict[str, Want | Hold] = {}
        reasons = []
        for name, pool in snapshot.pools.items():
            metrics: tuple[HpaMetric, ...] = getattr(self, pool.spec.role)
            if metrics:
                entries[name], reason = self._wanted(snapshot, name, pool, metrics)
                reasons += [reason] if reason else []
        return Proposal(pools=entries, reasons=tuple(reasons)), state

    def _wanted(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, metrics: tuple[HpaMetric, ...]
    ) -> tuple[Want | Hold, Reason | None]:
        replicas = pool.replicas
        if replicas is None:
            return UNREADABLE, None
        if replicas.target == 0:
            return Hold("an HPA does not wake up what was scaled to zero", "ScalingDisabled"), None
        wishes: list[tuple[Want, Reason]] = []
        unknown: list[Hold] = []
        for metric in metrics:
            wish = self._of(snapshot, name, pool, replicas, metric)
            if isinstance(wish, Hold):
                unknown.append(wish)
            else:
                wishes.append(wish)
            if metric.name == "requests_per_s" and (more := snapshot.at_least("traffic.requests_per_s")):
                unknown.append(Hold(f"traffic.requests_per_s is a lower bound: {more}", "MetricUnknown"))
        best = max(wishes, key=lambda wish: wish[0].replicas, default=None)
        if best is None or (unknown and best[0].replicas < replicas.target):
            return unknown[0], None
        return best

    def _of(
        self, snapshot: Snapshot, name: str, pool: PoolStatus, replicas: Replicas, metric: HpaMetric
    ) -> tuple[Want, Reason] | Hold:
        value = self._value(snapshot, name, metric, replicas)
        if isinstance(value, Hold):
            return value
        if metric.name == "requests_per_s":
            ratio = value / (metric.target * max(replicas.ready + replicas.starting, 1))
            wanted = average_value(value, metric.target, replicas, self.tolerance)
        else:
            ratio = value / metric.target
            wanted = self._per_pod(ratio, pool, replicas)
        values = {"value": value, "target": metric.target, "ratio": ratio, "ready": replicas.ready}
        over = "within" if self._tolerated(ratio) else "over" if ratio > 1 else "under"
        message = f"{metric.name} {over} its target" + (" and tolerance" if over == "within" else "")
        reason = Reason(code="HpaMetric", pool=name, message=message, values=values)
        return Want(max(wanted, 1), load=min(ratio, LARGEST_LOAD_REPLICAS) * max(replicas.ready, 1)), reason

    def _value(self, snapshot: Snapshot, name: str, metric: HpaMetric, replicas: Replicas) -> float | Hold:
        if metric.name == "requests_per_s":
            return traffic(snapshot, "requests_per_s", self.fresh_s)
        if metric.name == "requests":
            total = requests(snapshot, name, self.fresh_s)
            return total if isinstance(total, Hold) else total / replicas.ready
        return per_replica(snapshot, name, metric.name, self.fresh_s)

    def _tolerated(self, ratio: float) -> bool:
        return abs(1 - ratio) <= self.tolerance

    def _per_pod(self, ratio: float, pool: PoolStatus, replicas: Replicas) -> int:
        observed = max(round(workers_observed(pool)), 1)
        missing, unready = replicas.ready - observed, replicas.starting if ratio > 1 else 0
        if not missing and not unready:
            return replicas.target if self._tolerated(ratio) else math.ceil(ratio * replicas.ready)
        counted = observed + missing + unready
        again = (ratio * observed + (missing if ratio < 1 else 0)) / counted
        if self._tolerated(again) or (ratio < 1) != (again < 1):
            return replicas.target
        wanted = math.ceil(again * counted)
        turned = wanted > replicas.target if ratio < 1 else wanted < replicas.target
        return replicas.target if turned else wanted
