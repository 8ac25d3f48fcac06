"""The metrics of a pool out of those of its workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dynamo_planner.core.snapshot import PoolMetrics, WorkerStatus
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.sources.aggregation.traffic import traffic_of, unknown_at, why_unseen
from dynamo_planner.sources.aggregation.window import Track

QUANTITY_OF = {
    "queued": "waiting",
    "running": "running",
    "kv_usage": "kv_usage",
    "kv_capacity_tokens": "kv_capacity_tokens",
}
"""What each field is in a vocabulary."""

SUMS = ("queued", "running")
"""Known if every worker that was seen tells them: a sum of some would be too low. The others are means."""

Missing = dict[tuple[str, ...], str]
"""Why a field is unknown, by its path within the pool."""


@dataclass(frozen=True)
class WorkerNotes:
    """What is known of a worker beside numbers: its engine, and of each quantity that it does not tell, why."""

    engine: str | None
    unknown: Mapping[str, str] = FrozenMap()


def notes_of(track: Track, engine: str | None) -> WorkerNotes:
    """The notes of a worker as it was last seen."""
    return WorkerNotes(engine, FrozenMap(track.last.unknown) if track.seen and track.last else FrozenMap())


def pool_metrics(tracks: Sequence[Track], at_s: float) -> tuple[PoolMetrics, Missing]:
    """What was seen of a pool at ``at_s``, and why the rest is unknown."""
    listed = [track for track in tracks if track.listed]
    seen = [track for track in listed if track.seen]
    workers = tuple(_status(track) for track in listed)
    if not seen:
        last_s = max((status.observed_at_s for status in workers if status.observed_at_s is not None), default=None)
        coverage = 0.0 if listed else None
        return PoolMetrics(observed_at_s=last_s, coverage=coverage, workers=workers), {(): why_unseen(tracks)}
    told = traffic_of(tracks, at_s)
    values = {field: _over(seen, field) for field in QUANTITY_OF}
    missing: Missing = {("traffic", field): why for field, why in told.missing.items()}
    for field, value in values.items():
        if value is None:
            missing[(field,)] = unknown_at(QUANTITY_OF[field], seen) or ""
    metrics = PoolMetrics(
        observed_at_s=at_s,
        coverage=len(seen) / len(listed),
        traffic=told.as_traffic(at_s),
        workers=workers,
        **values,
    )
    return metrics, missing


def _over(seen: Sequence[Track], field: str) -> float | None:
    values = [value for track in seen if (value := _gauge(track, field)) is not None]
    if not values or (field in SUMS and len(values) < len(seen)):
        return None
    return sum(values) if field in SUMS else sum(values) / len(values)


def _gauge(track: Track, field: str) -> float | None:
    return track.last.gauges.get(QUANTITY_OF[field]) if track.seen and track.last else None


def _status(track: Track) -> WorkerStatus:
    known = {field: _gauge(track, field) for field in QUANTITY_OF}
    return WorkerStatus(name=track.name, observed_at_s=track.last.at_s if track.last else None, **known)
