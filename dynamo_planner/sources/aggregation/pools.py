"""The metrics of a pool from the histories of its workers."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass

from dynamo_planner.core.metrics import PoolMetrics, Traffic, WorkerStatus
from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.sources.aggregation.stages import stage_times
from dynamo_planner.sources.aggregation.traffic import traffic_in, why_unknown, why_unobserved
from dynamo_planner.sources.aggregation.window import WorkerHistory, window_totals

QUANTITY_OF = {
    "queued": "waiting",
    "queued_tokens": "waiting_tokens",
    "running": "running",
    "kv_usage": "kv_usage",
    "kv_capacity_tokens": "kv_capacity_tokens",
}
"""For each field of :class:`PoolMetrics` that is a gauge, the quantity of a vocabulary."""

SUMS = ("queued", "queued_tokens", "running")
"""Known if every worker that answered reports them, since the sum of some would be too low. The others are means."""

ASLEEP = "it is asleep and takes no requests (vllm:engine_sleep_state), so that it is no capacity: wake it"
ALL_ASLEEP = "all of its workers are asleep"

MissingByPath = dict[tuple[str, ...], str]
"""Why a field is unknown, by its path within the pool."""


@dataclass(frozen=True)
class WorkerNotes:
    """What is known of a worker beside numbers.

    Args:
        engine: the name of its engine; ``None`` where it was not detected.
        unknown: for each quantity that it does not report, why.
    """

    engine: str | None
    unknown: Mapping[str, str] = FrozenMap()


def notes_of(worker: WorkerHistory, engine: str | None) -> WorkerNotes:
    """The notes of a worker as of its last sample."""
    return WorkerNotes(engine, FrozenMap(worker.last.unknown) if worker.observed and worker.last else FrozenMap())


def pool_metrics(workers: Sequence[WorkerHistory], at_s: float) -> tuple[PoolMetrics, MissingByPath]:
    """The metrics of a pool at ``at_s``, and why the rest is unknown."""
    listed = [worker for worker in workers if worker.listed]
    observed = [worker for worker in listed if worker.observed]
    statuses = tuple(_status(worker) for worker in listed)
    if not observed:
        last_s = max((status.observed_at_s for status in statuses if status.observed_at_s is not None), default=None)
        coverage = 0.0 if listed else None
        return PoolMetrics(observed_at_s=last_s, coverage=coverage, workers=statuses), {(): why_unobserved(workers)}
    window = window_totals(workers, at_s)
    traffic, (stages, no_stages) = traffic_in(window, workers), stage_times(window, observed)
    values = {field: _together(observed, field) for field in QUANTITY_OF}
    missing: MissingByPath = {("traffic", field): why for field, why in traffic.missing.items()}
    missing.update({("stages", stage): why for stage, why in no_stages.items()})
    for field, value in values.items():
        if value is None:
            missing[(field,)] = why_unknown(QUANTITY_OF[field], observed) or ALL_ASLEEP
    usages = [usage for worker in observed if _awake(worker) > 0 and (usage := _gauge(worker, "kv_usage")) is not None]
    if not usages:
        missing[("kv_usage_max",)] = missing[("kv_usage",)]
    awake = [worker.last.gauges.get("awake") for worker in observed if worker.last]
    asleep = sum(1.0 - share for share in awake if share is not None) if None not in awake else None
    if asleep is None:
        missing[("asleep",)] = why_unknown("awake", observed) or ALL_ASLEEP
    for worker in observed:
        if worker.doubt or _awake(worker) == 0:
            missing[("workers", worker.name)] = worker.doubt or ASLEEP
    metrics = PoolMetrics(
        observed_at_s=at_s,
        coverage=sum(map(_awake, observed)) / len(listed),
        asleep=asleep,
        kv_usage_max=max(usages, default=None),
        stages=stages,
        traffic=traffic.as_traffic(at_s),
        workers=statuses,
        **values,
    )
    return metrics, missing


def with_router_tokens(
    pools: Mapping[str, PoolMetrics], missing: MutableMapping[str, str], roles: Mapping[str, Role], traffic: Traffic
) -> dict[str, PoolMetrics]:
    """The pools, with the prompt tokens that a router gave to workers, where those do not report what waits.

    A router counts all of them together, so that there must be one pool alone that takes in prompts.
    """
    taking = [name for name, role in roles.items() if role != "decode" and name in pools]
    if len(taking) != 1 or traffic.prefill_tokens is None or pools[taking[0]].queued_tokens is not None:
        return dict(pools)
    missing.pop(f"pools.{taking[0]}.queued_tokens", None)
    return {**pools, taking[0]: pools[taking[0]].replace(queued_tokens=traffic.prefill_tokens)}


def _together(observed: Sequence[WorkerHistory], field: str) -> float | None:
    """The sum of a field over workers, or its mean over those that are awake: the others are no capacity."""
    counted = observed if field in SUMS else [worker for worker in observed if _awake(worker) > 0]
    values = [value for worker in counted if (value := _gauge(worker, field)) is not None]
    if not values or (field in SUMS and len(values) < len(observed)):
        return None
    return sum(values) if field in SUMS else sum(values) / len(values)


def _awake(worker: WorkerHistory) -> float:
    """The share of a worker that takes requests; all of it where it says nothing of sleep, none where it is doubted."""
    if worker.doubt:
        return 0.0
    return worker.last.gauges.get("awake", 1.0) if worker.last else 1.0


def _gauge(worker: WorkerHistory, field: str) -> float | None:
    if not worker.observed or worker.last is None or worker.doubt:
        return None
    return worker.last.gauges.get(QUANTITY_OF[field])


def _status(worker: WorkerHistory) -> WorkerStatus:
    known = {field: _gauge(worker, field) for field in QUANTITY_OF}
    return WorkerStatus(name=worker.name, observed_at_s=worker.last.at_s if worker.last else None, **known)
