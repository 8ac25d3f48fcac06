"""The metrics of a pool from the histories of its workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynamo_planner.core.metrics import PoolMetrics, WorkerStatus
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.sources.aggregation.traffic import pool_traffic, why_unknown, why_unobserved
from dynamo_planner.sources.aggregation.window import WorkerHistory

QUANTITY_OF = {
    "queued": "waiting",
    "running": "running",
    "kv_usage": "kv_usage",
    "kv_capacity_tokens": "kv_capacity_tokens",
}
"""For each field of :class:`PoolMetrics` that is a gauge, the quantity of a vocabulary."""

SUMS = ("queued", "running")
"""Known if every worker that answered reports them, since the sum of some would be too low. The others are means."""

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
    if not worker.observed or worker.last is None:
        return WorkerNotes(engine)
    return WorkerNotes(
        engine, FrozenMap({**worker.last.unknown, **({"counters": worker.doubt} if worker.doubt else {})})
    )


def pool_metrics(workers: Sequence[WorkerHistory], at_s: float) -> tuple[PoolMetrics, MissingByPath]:
    """The metrics of a pool at ``at_s``, and why the rest is unknown."""
    listed = [worker for worker in workers if worker.listed]
    observed = [worker for worker in listed if worker.observed]
    statuses = tuple(_status(worker) for worker in listed)
    if not observed:
        last_s = max((status.observed_at_s for status in statuses if status.observed_at_s is not None), default=None)
        coverage = 0.0 if listed else None
        return PoolMetrics(observed_at_s=last_s, coverage=coverage, workers=statuses), {(): why_unobserved(workers)}
    traffic = pool_traffic(workers, at_s)
    values = {field: _together(observed, field) for field in QUANTITY_OF}
    missing: MissingByPath = {("traffic", field): why for field, why in traffic.missing.items()}
    for field, value in values.items():
        if value is None:
            missing[(field,)] = why_unknown(QUANTITY_OF[field], observed) or ""
    metrics = PoolMetrics(
        observed_at_s=at_s,
        coverage=len(observed) / len(listed),
        traffic=traffic.as_traffic(at_s),
        workers=statuses,
        **values,
    )
    return metrics, missing


def _together(observed: Sequence[WorkerHistory], field: str) -> float | None:
    """The sum or mean of a field over workers."""
    values = [value for worker in observed if (value := _gauge(worker, field)) is not None]
    if not values or (field in SUMS and len(values) < len(observed)):
        return None
    return sum(values) if field in SUMS else sum(values) / len(values)


def _gauge(worker: WorkerHistory, field: str) -> float | None:
    if not worker.observed or worker.last is None or worker.doubt:
        return None
    return worker.last.gauges.get(QUANTITY_OF[field])


def _status(worker: WorkerHistory) -> WorkerStatus:
    known = {field: _gauge(worker, field) for field in QUANTITY_OF}
    return WorkerStatus(name=worker.name, observed_at_s=worker.last.at_s if worker.last else None, **known)
