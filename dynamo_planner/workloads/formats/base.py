"""What the formats of trace files have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

MAX_TOKENS = 2**31 - 1
"""The longest prompt or output, in tokens."""


class TraceError(ValueError):
    """A trace could not be read or made; the message names the file and the line, and what is allowed."""


TimeUnit = Literal["s", "ms", "us", "ns"]
"""The unit of a format's times."""

PER_SECOND: dict[TimeUnit, float] = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

UNIX_S = (1e9, 4e9)
"""Unix times from 2001 to 2096, in seconds: what a stamp in this range, in any unit, is taken for."""


class Columns(NamedTuple):
    """A file's requests, one entry per request in each array, not checked and not sorted yet.

    Args:
        arrival_s: times of arrival, in seconds.
        isl: prompt tokens.
        osl: output tokens.
        prefix_hit: prompt tokens that a prefix cache without bounds would hold, where known.
        duration_s: the length of the trace; 0 by default, which stands for the last arrival.
        start: when second 0 was, with its time zone; unknown by default.
    """

    arrival_s: np.ndarray
    isl: np.ndarray
    osl: np.ndarray
    prefix_hit: np.ndarray | None = None
    duration_s: float = 0.0
    start: datetime | None = None


class TraceFormat(ABC):
    """A format of trace files."""

    description: str
    """The format in a few words, for messages."""

    @abstractmethod
    def recognises(self, start: bytes) -> bool:
        """Whether a file that begins with these bytes is of this format."""

    @abstractmethod
    def read(self, path: Path) -> Columns:
        """Read a file. Raises :class:`TraceError` for one that is damaged."""


class RequestRows:
    """Arrivals and lengths, collected row by row.

    Args:
        unit: of the times.
    """

    def __init__(self, unit: TimeUnit) -> None:
        self._unit = unit
        self._time = array("d")
        self._isl = array("q")
        self._osl = array("q")

    def add(self, time: float, isl: int, osl: int) -> None:
        """Add a request. Raises ``ValueError`` for a time that is not finite or lengths out of range."""
        if not math.isfinite(time):
            raise ValueError(f"the time must be a finite number, got {time}")
        if not (0 <= isl <= MAX_TOKENS and 0 <= osl <= MAX_TOKENS):
            raise ValueError(f"lengths must be from 0 to {MAX_TOKENS} tokens, got {isl} and {osl}")
        self._time.append(time)
        self._isl.append(isl)
        self._osl.append(osl)

    def columns(self, path: Path, prefix_hit: array[int] | None = None) -> Columns:
        """All requests, with times from the earliest one on.

        Raises :class:`TraceError` where the times are Unix times of another unit.
        """
        hits = None if prefix_hit is None else np.array(prefix_hit)
        time, start = np.array(self._time), None
        if len(time):
            refuse_other_unit(path, float(time.min()), self._unit)
            start = start_at(float(time.min()) / PER_SECOND[self._unit])
            time = (time - time.min()) / PER_SECOND[self._unit]
        return Columns(time, np.array(self._isl), np.array(self._osl), hits, start=start)


def start_at(earliest_s: float) -> datetime | None:
    """When a trace began whose earliest time is this one, where that is Unix time."""
    return datetime.fromtimestamp(earliest_s, UTC) if UNIX_S[0] <= earliest_s < UNIX_S[1] else None


def refuse_other_unit(path: Path, earliest: float, unit: TimeUnit) -> None:
    """Raise :class:`TraceError` where a time is not a Unix time in its unit, but one in another.

    >>> refuse_other_unit(Path("mine.csv"), 1_760_000_000_000, "s")
    Traceback (most recent call last):
    ...
    dynamo_planner.workloads.formats.base.TraceError: mine.csv: its times are in s in this format, and 1.76e+12 looks \
like Unix time in ms; name a format with that unit (trace_format)
    """
    for other, per_second in PER_SECOND.items():
        if other != unit and UNIX_S[0] * per_second <= earliest < UNIX_S[1] * per_second:
            raise TraceError(
                f"{path}: its times are in {unit} in this format, and {earliest:g} looks like Unix time in {other}; "
                "name a format with that unit (trace_format)"
            )
