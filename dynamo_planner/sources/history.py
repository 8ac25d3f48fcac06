"""``HistorySource``: the past of a served model as snapshots, from a recording or from Prometheus.

>>> from dynamo_planner.core.metrics import Traffic
>>> past = HistorySource(lambda: iter([Snapshot(at_s=t, traffic=Traffic(requests_per_s=t)) for t in (0, 10, 20)]))
>>> [snapshot.at_s for snapshot in past]
[0.0, 10.0, 20.0]
>>> past.observe(15).traffic.requests_per_s
10.0
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from pydantic_core import from_json

from dynamo_planner.core.metrics import PoolMetrics
from dynamo_planner.core.snapshot import Observation, PoolSpec, Snapshot
from dynamo_planner.sources.rotated import files_oldest_first, parse_lines
from dynamo_planner.sources.source import SourceError


class RemembersThePast(Protocol):
    """A source that can report earlier times, as ``PrometheusSource`` can."""

    def history(self, pools: Mapping[str, PoolSpec], start_s: float, step_s: float, length: int) -> Iterator[Snapshot]:
        """``length`` snapshots, the first at ``start_s``, ``step_s`` seconds apart."""


class HistorySource:
    """Snapshots of the past, oldest first, to iterate over as often as you like, or for ``policy.replay``.

    As a source it observes, at any time, the newest snapshot up to then.

    Args:
        read: returns an iterator over the snapshots, anew at each call.
        length: how many there are; by default unknown.
    """

    def __init__(self, read: Callable[[], Iterator[Snapshot]], length: int | None = None) -> None:
        self.length = length
        self._read = read
        self._coming: Iterator[Snapshot] = iter(())
        self._now: Snapshot | None = None
        self._next: Snapshot | None = None

    @classmethod
    def recorded(cls, path: str | Path) -> HistorySource:
        """From a file of JSON lines: each a snapshot, or a step of a decision log.

        Older files that were rotated (``path.2``, ``path.1``) come first. A line that cannot be parsed is named in a
        warning and skipped. Raises :class:`FileNotFoundError` where there is no such file.
        """
        files = files_oldest_first(path, "recording")
        return cls(lambda: parse_lines(files, _snapshot, content="a snapshot"))

    @classmethod
    def of(
        cls,
        source: RemembersThePast,
        pools: Mapping[str, PoolSpec],
        *,
        start_s: float,
        end_s: float,
        step_s: float = 30.0,
    ) -> HistorySource:
        """What ``source`` would have reported every ``step_s`` from ``start_s`` to ``end_s``, both included.

        The replicas of a pool are the workers that were observed. Raises :class:`ValueError` where there is no such
        time; reading raises :class:`SourceError`.
        """
        if not (math.isfinite(start_s) and math.isfinite(end_s) and start_s <= end_s):
            raise ValueError(f"start_s ({start_s}) must not be after end_s ({end_s})")
        start_s, step_s = round(start_s, 3), round(step_s, 3)  # Prometheus knows milliseconds
        if not (math.isfinite(step_s) and step_s > 0):
            raise ValueError(f"step_s must be a positive number of seconds, got {step_s}")
        length = int((end_s - start_s) / step_s + 1e-9) + 1
        return cls(lambda: source.history(pools, start_s, step_s, length), length)

    def __iter__(self) -> Iterator[Snapshot]:
        return self._read()

    def observe(self, at_s: float) -> Observation:
        """The newest snapshot up to ``at_s``, as an observation. Raises :class:`SourceError` where all are later."""
        if self._now is not None and at_s < self._now.at_s:
            self._now = self._next = None
        if self._now is None:
            self._coming = self._read()
            self._next = next(self._coming, None)
        while self._next is not None and self._next.at_s <= at_s:
            self._now, self._next = self._next, next(self._coming, None)
        if self._now is None:
            raise SourceError(f"the history has nothing up to {at_s}")
        return _observation(self._now)


def _observation(snapshot: Snapshot) -> Observation:
    pools = {
        name: PoolMetrics(**{field: getattr(pool, field) for field in PoolMetrics.model_fields})
        for name, pool in snapshot.pools.items()
    }
    return Observation(traffic=snapshot.traffic, pools=pools, missing=snapshot.missing)


def _snapshot(line: bytes) -> Snapshot:
    value = from_json(line)
    return Snapshot.model_validate(value["snapshot"] if isinstance(value, dict) and "snapshot" in value else value)
