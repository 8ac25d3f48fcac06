"""Traces of requests: when they arrive, how long their prompts are, and how many tokens they want."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.profiles.profile import Profile
from dynamo_planner.workloads.formats.base import MAX_TOKENS, UNIX_S, TraceError, TraceFormat
from dynamo_planner.workloads.formats.npz import start_arrays
from dynamo_planner.workloads.formats.registry import TRACE_FORMATS, read_columns
from dynamo_planner.workloads.formats.text import PACKED_SUFFIXES
from dynamo_planner.workloads.hourly import Hours, hours_of
from dynamo_planner.workloads.stats import TraceStats, stats_of
from dynamo_planner.workloads.tables import Requests, Table, from_csv, from_frame, in_zone, moment_at, seconds_from

__all__ = ["Trace", "TraceError", "TraceStats"]

LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trace:
    """Requests in the order of their arrival.

    Args:
        arrival_s: seconds from the start of the trace, float64; this and the other arrays have the shape
            ``(requests,)`` and are read-only.
        isl: prompt tokens, int64.
        osl: output tokens, int64.
        prefix_hit: prompt tokens that a prefix cache without bounds would hold, int64; unknown by default.
        name: a name for reports and messages.
        duration_s: the length of the trace, at least up to the last arrival, which it is by default.
        start: when second 0 was, with its time zone; unknown by default.

    Made from any arrays, it sorts them, and leaves out requests without prompt or output tokens: that is how BurstGPT
    marks the failed ones, and they have no latency. Raises :class:`TraceError` for a time that is negative or not
    finite, a negative length, arrays that do not match, and where no request is left.

    >>> trace = Trace(arrival_s=[3.0, 0.5, 1.0], isl=[30, 10, 20], osl=[5, 5, 0])
    >>> len(trace), trace.isl, trace.between(0.4, 1.0).arrival_s
    (2, array([10, 30]), array([0.1]))
    """

    arrival_s: np.ndarray
    isl: np.ndarray
    osl: np.ndarray
    prefix_hit: np.ndarray | None = None
    name: str = "trace"
    duration_s: float = 0.0
    start: datetime | None = None

    def __post_init__(self) -> None:
        arrival = _column("arrival_s", self.arrival_s).astype(np.float64)
        lengths = {"isl": _tokens("isl", self.isl), "osl": _tokens("osl", self.osl)}
        if self.prefix_hit is not None:
            lengths["prefix_hit"] = _tokens("prefix_hit", self.prefix_hit)
        for name, column in lengths.items():
            if len(column) != len(arrival):
                raise TraceError(f"{name} has {len(column)} entries and arrival_s has {len(arrival)}")
        _refuse("arrival_s", arrival, ~(np.isfinite(arrival) & (arrival >= 0)), "a finite number of at least 0")
        served = np.flatnonzero((lengths["isl"] > 0) & (lengths["osl"] > 0))
        if not len(served):
            raise TraceError(f"no request with prompt and output tokens among {len(arrival)}")
        if len(served) < len(arrival):
            LOG.info("%s: left out %d requests without tokens", self.name, len(arrival) - len(served))
        order = served[np.argsort(arrival[served], kind="stable")]
        _set(self, "arrival_s", arrival[order])
        if self.arrival_s[0] >= UNIX_S[0]:
            raise TraceError(
                f"arrival_s must count from the start of the trace, and {self.arrival_s[0]:.0f} s looks like Unix "
                "time: subtract the earliest"
            )
        for name, column in lengths.items():
            _set(self, name, column[order])
        if self.prefix_hit is not None:
            _refuse("prefix_hit", self.prefix_hit, self.prefix_hit > self.isl, "at most isl")
        if not 0 <= self.duration_s < math.inf:
            raise TraceError(f"duration_s must be a finite number of at least 0, got {self.duration_s}")
        object.__setattr__(self, "duration_s", max(float(self.duration_s), float(self.arrival_s[-1])))

    @classmethod
    def load(cls, path: str | Path, name: str | None = None, *, trace_format: TraceFormat | str | None = None) -> Trace:
        """Read a trace file: ``.npz``, as published for Azure, Mooncake, Qwen-Bailian and BurstGPT, or of one's own.

        ``.npz``: ``arrival_s`` (or, where there is one, ``arrival_s_spread``), ``isl``, ``osl``, and if they are there
        ``prefix_hit`` and ``duration_s``. In every other format time counts from the earliest request, so that a cut
        out of the middle, or Unix time, starts at 0; in ``.npz`` only Unix time does. Mooncake: its stamps come in
        batches of 3 s, and are spread evenly over them. JSON lines: ``prefix_hit`` is worked out from ``hash_ids``.
        Files may be packed with gzip or, with the extra ``zstd``, Zstandard.

        Args:
            path: the file.
            name: a name for reports and messages; that of the file, without its ending, by default.
            trace_format: the format, or its name in
                :data:`~dynamo_planner.workloads.formats.registry.TRACE_FORMATS`; recognised by the content by default.

        Raises :class:`TraceError`, with file, line and content, for what cannot be read, and with the formats to choose
        from where a file could be of several.
        """
        path = Path(path)
        if isinstance(trace_format, str) and trace_format not in TRACE_FORMATS:
            known = ", ".join(TRACE_FORMATS)
            raise TraceError(
                f"{trace_format!r} is no trace format; there are {known}. Give one of your own as an object"
            )
        form = TRACE_FORMATS[trace_format] if isinstance(trace_format, str) else trace_format
        columns = read_columns(path, form)
        if not len(np.atleast_1d(columns.arrival_s)):
            raise TraceError(f"{path}: there is no request in it")
        try:
            return cls(
                columns.arrival_s,
                columns.isl,
                columns.osl,
                columns.prefix_hit,
                name or _stem(path),
                columns.duration_s,
                columns.start,
            )
        except TraceError as error:
            raise TraceError(f"{path}: {error}") from None

    @classmethod
    def read_csv(cls, path: str | Path, *, time: str, isl: str, osl: str, zone: str | None = None) -> Trace:
        """Read a CSV file with a header, whose columns you name.

        Args:
            path: the file; it may be packed with gzip or, with the extra ``zstd``, Zstandard.
            time: the column with the arrivals: ISO 8601 (UTC where it has no zone), Unix seconds, or seconds.
            isl: the column with the prompt tokens.
            osl: the column with the output tokens.
            zone: the time zone to show times in, such as ``Europe/Berlin``; that of the file by default.

        Raises :class:`TraceError` for a column that is not there, with the nearest name, or does not hold, and for a
        file that is not there.
        """
        path = Path(path)
        try:
            return cls._of(from_csv(path, time, isl, osl), _stem(path), zone)
        except FileNotFoundError:
            raise TraceError(f"{path}: no such file") from None
        except TraceError as error:
            told = str(error)
            raise TraceError(told if told.startswith(str(path)) else f"{path}: {told}") from None

    @classmethod
    def from_frame(
        cls, frame: Table, *, time: str, isl: str, osl: str, zone: str | None = None, name: str = "frame"
    ) -> Trace:
        """The requests of a DataFrame of pandas or polars; the columns as in :meth:`read_csv`."""
        return cls._of(from_frame(frame, time, isl, osl), name, zone)

    @classmethod
    def _of(cls, requests: Requests, name: str, zone: str | None) -> Trace:
        start = in_zone(requests.start, zone)
        return cls(requests.arrival_s, requests.isl, requests.osl, name=name, start=start)

    def save(self, path: str | Path) -> None:
        """Write it as ``.npz``; :meth:`load` reads it back. Raises :class:`TraceError` where that cannot be written."""
        arrays = {
            "arrival_s": self.arrival_s,
            "isl": self.isl,
            "osl": self.osl,
            "duration_s": np.array(self.duration_s),
            **start_arrays(self.start),
        }
        if self.prefix_hit is not None:
            arrays["prefix_hit"] = self.prefix_hit
        try:
            with Path(path).open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, **arrays)
        except OSError as error:
            raise TraceError(f"{path}: cannot be written: {error.strerror or error}") from error

    def __len__(self) -> int:
        return len(self.arrival_s)

    def __repr__(self) -> str:
        since = "" if self.start is None else f" from {self.start:%Y-%m-%d %H:%M %Z}"
        lengths = f"{self.isl.mean():.0f} + {self.osl.mean():.0f} tokens" if len(self) else "none"
        hours = self.duration_s / 3600
        return f"Trace({self.name}: {len(self):,} requests of {lengths} on average in {hours:.3g} h{since})"

    def between(self, begin: float | str | datetime, end: float | str | datetime) -> Trace:
        """The requests from ``begin`` on and before ``end``, as a trace that starts at ``begin``.

        Both are seconds of the trace or, where its ``start`` is known, datetimes or ISO 8601.
        """
        from_s, to_s = (seconds_from(self.start, moment) for moment in (begin, end))
        chosen = np.flatnonzero((self.arrival_s >= from_s) & (self.arrival_s < to_s))
        if not len(chosen):
            raise TraceError(f"{self.name}: no request from {begin} to {end}; {self._extent()}")
        start = None if self.start is None else moment_at(self.start, from_s)
        cut = self._choose(chosen, self.arrival_s[chosen] - from_s, min(to_s, self.duration_s) - from_s)
        return replace(cut, start=start)

    def _extent(self) -> str:
        if self.start is None:
            return f"it is {self.duration_s:g} s long"
        return f"it is from {self.start} to {moment_at(self.start, self.duration_s):%Y-%m-%d %H:%M:%S%z}"

    def per_hour(self, profile: Profile | str, sla: Sla, *, aggregated: bool = False) -> Hours:
        """Replicas and GPUs that each hour needs, sized for its busiest minute by a profile (or a bundled one's name).

        Args:
            profile: measured performance of one replica.
            sla: the targets, and the share of requests that must meet them.
            aggregated: whether one pool does both; prefill and decode apart by default.
        """
        profile = Profile.bundled(profile) if isinstance(profile, str) else profile
        roles: tuple[Role, ...] = ("aggregated",) if aggregated else ("prefill", "decode")
        return hours_of(self.arrival_s, self.isl, self.osl, self.duration_s, self.start, profile, sla, roles)

    def speed_up(self, factor: float) -> Trace:
        """The same requests in 1/``factor`` of the time.

        This compresses time: bursts become shorter as well as higher. To change the load alone, use :meth:`at_rate`.
        """
        if not 0 < factor < math.inf:
            raise TraceError(f"the speed-up must be a finite number above 0, got {factor}")
        return replace(self, arrival_s=self.arrival_s / factor, duration_s=self.duration_s / factor)

    def at_rate(self, requests_per_s: float, seed: int, jitter_s: float = 10.0) -> Trace:
        """The same rate curve over the same time at another mean rate.

        Less is a random choice of the requests. More is several copies laid over each other, with the arrivals of each
        copy but the first moved by a normally distributed time of standard deviation ``jitter_s``, so that they do not
        come in pairs (at the ends of the trace they are reflected). Time is never compressed.
        """
        if not 0 < requests_per_s < math.inf:
            raise TraceError(f"requests_per_s must be a finite number above 0, got {requests_per_s}")
        if not self.duration_s > 0:
            raise TraceError(f"{self.name}: it has no length, so there is no rate to change")
        random = np.random.default_rng(seed)
        copies, rest = divmod(requests_per_s * self.duration_s / len(self), 1)
        chosen, arrival = [], []
        for copy in range(int(copies) + 1):
            partial = copy == int(copies)
            here = np.flatnonzero(random.random(len(self)) < rest) if partial else np.arange(len(self))
            moved = self.arrival_s[here] + (random.normal(0, jitter_s, len(here)) if copy else 0)
            chosen.append(here)
            arrival.append(_reflect(moved, self.duration_s))
        if not sum(map(len, chosen)):
            raise TraceError(f"{self.name}: no request is left at {requests_per_s} requests/s")
        return self._choose(np.concatenate(chosen), np.concatenate(arrival), self.duration_s)

    def stats(self) -> TraceStats:
        """The trace in a few numbers."""
        return stats_of(self.arrival_s, self.isl, self.osl, self.duration_s)

    def _choose(self, rows: np.ndarray, arrival_s: np.ndarray, duration_s: float) -> Trace:
        hits = None if self.prefix_hit is None else self.prefix_hit[rows]
        return Trace(arrival_s, self.isl[rows], self.osl[rows], hits, self.name, duration_s, self.start)


def _stem(path: Path) -> str:
    return Path(path.stem).stem if path.suffix in PACKED_SUFFIXES else path.stem


def _reflect(arrival_s: np.ndarray, duration_s: float) -> np.ndarray:
    folded = np.mod(arrival_s, 2 * duration_s)
    reflected: np.ndarray = np.minimum(folded, 2 * duration_s - folded)
    return reflected


def _column(name: str, values: object) -> np.ndarray:
    column = np.asarray(values)
    if column.ndim != 1 or (column.dtype.kind not in "iuf" and column.size):
        raise TraceError(f"{name} must be numbers in one dimension, got {column.dtype} of shape {column.shape}")
    return column


def _tokens(name: str, values: object) -> np.ndarray:
    column = _column(name, values)
    with np.errstate(invalid="ignore"):
        bad = ~((column >= 0) & (column <= MAX_TOKENS) & (column == np.floor(column)))
    _refuse(name, column, bad, f"a whole number from 0 to {MAX_TOKENS}")
    return column.astype(np.int64)


def _refuse(name: str, column: np.ndarray, bad: np.ndarray, allowed: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise TraceError(f"{name}[{row}] must be {allowed}, got {column[row]}")


def _set(trace: Trace, name: str, column: np.ndarray) -> None:
    column.flags.writeable = False
    object.__setattr__(trace, name, column)
