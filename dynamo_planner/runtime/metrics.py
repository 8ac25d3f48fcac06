"""The planner's own metrics for Prometheus: decisions, holds, reasons, outcomes and step durations.

Counters and gauges are by pool. A held pool has no ``dynamo_planner_wanted_replicas``, and one that could not be read
no ``dynamo_planner_replicas``: unknown is absent, never 0.

>>> from dynamo_planner import Decision, Reason, Snapshot
>>> metrics = PlannerMetrics()
>>> held = Reason(code="MetricUnknown", pool="decode", message="kv_usage is unknown")
>>> snapshot = Snapshot(at_s=5, pools={"decode": {"spec": {"role": "decode"}, "replicas": 2}})
>>> metrics.record(Step(at_s=5, name="planner", snapshot=snapshot, decision=Decision(at_s=5, reasons=[held])))
>>> metrics.registry.get_sample_value("dynamo_planner_holds_total", {"pool": "decode", "code": "MetricUnknown"})
1.0
>>> metrics.registry.get_sample_value("dynamo_planner_wanted_replicas", {"pool": "decode"})
"""

from __future__ import annotations

from collections.abc import Callable

from dynamo_planner.core.decision import Decision, Reason, ScaleTo
from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.hold_watch import hold_reason

with needs_extra("prometheus"):
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
    from prometheus_client.process_collector import ProcessCollector

STATES = ("ready", "starting", "failed", "draining", "target")
"""The fields of :class:`Replicas` that ``dynamo_planner_replicas`` has, as its label ``state``."""

SERVICE = ""
"""The label ``pool`` of what is about the service as a whole."""

SINCE = "began_at_s"
"""The value of a reason that an executor reports for as long as it lasts: since when (Unix seconds)."""

STEP_BUCKETS_S = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class PlannerMetrics:
    """Metrics of one planner in a registry of its own, filled by :meth:`record` after each step.

    ``dynamo_planner_reason_value{pool,code,value}`` has every number of the last decision's reasons, by the code of the
    reason and the number's name: ``DemandForecast`` has ``expected`` and ``planned``, ``PromiseKept`` ``attained``.

    ``leading`` returns whether this planner leads, where several elect a leader.
    """

    def __init__(self, leading: Callable[[], bool] | None = None) -> None:
        own, prefix = CollectorRegistry(), "dynamo_planner_"
        self.registry = own
        ProcessCollector(registry=own)
        self._decisions = Counter(
            f"{prefix}decisions",
            "Decisions by what they change: up, down, none or held",
            ["pool", "change"],
            registry=own,
        )
        self._holds = Counter(
            f"{prefix}holds", "Decisions that hold a pool, by the code of the reason", ["pool", "code"], registry=own
        )
        self._reasons = Counter(
            f"{prefix}reasons", "Reasons that bore on decisions, by code", ["pool", "code"], registry=own
        )
        self._outcomes = Counter(f"{prefix}outcomes", "Outcomes of actions", ["pool", "kind", "status"], registry=own)
        self._wanted = Gauge(
            f"{prefix}wanted_replicas",
            "Replicas that the last decision wants; absent while held",
            ["pool"],
            registry=own,
        )
        self._replicas = Gauge(
            f"{prefix}replicas",
            "Replicas as the executor observed them; absent while unknown",
            ["pool", "state"],
            registry=own,
        )
        self._troubles = Gauge(
            f"{prefix}trouble_since_timestamp_seconds",
            "Since when something keeps replicas from starting, serving or ending, by the code of its reason",
            ["pool", "code"],
            registry=own,
        )
        self._numbers = Gauge(
            f"{prefix}reason_value",
            "Numbers behind the last decision: the demand forecast, what it needs, the share in time, and others",
            ["pool", "code", "value"],
            registry=own,
        )
        self._gpus = Gauge(
            f"{prefix}gpus",
            "GPUs that replicas hold, draining ones included; absent while unknown",
            ["pool"],
            registry=own,
        )
        self._took = Histogram(
            f"{prefix}step_duration_seconds", "From observing to the outcomes", buckets=STEP_BUCKETS_S, registry=own
        )
        self._last_step = Gauge(f"{prefix}last_step_timestamp_seconds", "When the last step began", registry=own)
        self._advisory = Gauge(f"{prefix}advisory", "1 while it decides without acting", registry=own)
        self._reloads = Gauge(
            f"{prefix}reload_successful",
            "0 where a changed file was refused and the last good stays",
            ["file"],
            registry=own,
        )

        if leading is not None:
            leader = Gauge(f"{prefix}leader", "1 while this planner leads", registry=own)
            leader.set_function(lambda: float(leading()))

    def record(self, step: Step) -> None:
        """Record a step."""
        snapshot, decision = step.snapshot, step.decision
        self._last_step.set(step.at_s)
        self._advisory.set(step.advisory)
        if step.took_s is not None:
            self._took.observe(step.took_s)
        self._troubles.clear()
        self._numbers.clear()
        for reason in decision.reasons:
            self._record_numbers(reason)
            self._reasons.labels(reason.pool or SERVICE, reason.code).inc()
            if SINCE in reason.values:
                self._troubles.labels(reason.pool or SERVICE, reason.code).set(float(reason.values[SINCE] or 0.0))
        for outcome in step.outcomes:
            self._outcomes.labels(outcome.action.pool or SERVICE, outcome.action.kind, outcome.status).inc()
        self._wanted.clear()
        self._replicas.clear()
        self._gpus.clear()
        for pool in snapshot.pools:
            self._record_pool(pool, snapshot, decision)

    def _record_pool(self, pool: str, snapshot: Snapshot, decision: Decision) -> None:
        change = change_of(pool, decision)
        self._decisions.labels(pool, change).inc()
        if change == "held":
            self._holds.labels(pool, hold_reason(pool, decision).code).inc()
        else:
            self._wanted.labels(pool).set(decision.targets[pool])
        replicas = snapshot.pools[pool].replicas
        if replicas is not None:
            for state in STATES:
                self._replicas.labels(pool, state).set(getattr(replicas, state))

        held = snapshot.pools[pool].gpus_held()
        if held is not None:
            self._gpus.labels(pool).set(held)

    def _record_numbers(self, reason: Reason) -> None:
        for name, value in reason.values.items():
            if isinstance(value, int | float) and name != SINCE:
                self._numbers.labels(reason.pool or SERVICE, reason.code, name).set(value)

    def reloaded(self, file: str, *, successful: bool) -> None:
        """Record that a file was read again, and whether it was taken over."""
        self._reloads.labels(file).set(successful)


def change_of(pool: str, decision: Decision) -> str:
    """The change of a pool's replicas by a decision: ``up``, ``down``, ``none`` or ``held``."""
    for action in decision.actions:
        if isinstance(action, ScaleTo) and action.pool == pool:
            return "up" if action.expected is None or action.replicas > action.expected else "down"
    return "none" if pool in decision.targets else "held"
