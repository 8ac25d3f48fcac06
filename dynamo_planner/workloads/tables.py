"""Requests out of tables: CSV files and DataFrames, whose columns the caller names."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np

from dynamo_planner.core.nearest import did_you_mean
from dynamo_planner.workloads.formats.base import TraceError, start_at
from dynamo_planner.workloads.formats.text import TextLines


class Table(Protocol):
    """A DataFrame of pandas or polars, or anything else with columns by name."""

    @property
    def columns(self) -> Iterable[Any]: ...

    def __getitem__(self, name: str) -> Any: ...


class Requests(NamedTuple):
    """Requests by column; ``start`` is when the earliest arrived, where that is known."""

    arrival_s: np.ndarray
    isl: np.ndarray
    osl: np.ndarray
    start: datetime | None


def from_frame(frame: Table, time: str, isl: str, osl: str) -> Requests:
    """The requests of a DataFrame. Raises :class:`TraceError` where a column is missing or does not hold."""
    names = [str(name) for name in frame.columns]
    for name in (time, isl, osl):
        if name not in names:
            raise TraceError(f"no column {name!r}{did_you_mean(name, names)} there are {', '.join(names)}")
    arrival_s, start = _times(_values(frame[time]), time)
    return Requests(arrival_s, _tokens(frame[isl], isl), _tokens(frame[osl], osl), start)


def from_csv(path: Path, time: str, isl: str, osl: str) -> Requests:
    """The requests of a CSV file with a header."""
    with TextLines(path) as lines:
        rows = csv.reader(lines)
        header = [name.strip() for name in next(rows, [])]
        columns: dict[str, list[str]] = {name: [] for name in header}
        for fields in rows:
            if len(fields) < len(header):
                if fields:
                    raise lines.error("too few fields")
                continue
            for column, text in zip(columns.values(), fields, strict=False):
                column.append(text)
    return from_frame(_Columns(columns), time, isl, osl)


class _Columns(dict[str, list[str]]):
    """Columns of a CSV file by name."""

    @property
    def columns(self) -> list[str]:
        return list(self)


def _values(column: Any) -> list[Any]:
    """A column as a list; a pandas column of times has its zone, which numpy would lose."""
    return list(column.to_list() if hasattr(column, "to_list") else column)


def _tokens(column: Any, name: str) -> np.ndarray:
    try:
        return np.array(_values(column), dtype=float)
    except (TypeError, ValueError) as error:
        raise TraceError(f"column {name!r}: {error}") from None


def _times(values: Sequence[Any], name: str) -> tuple[np.ndarray, datetime | None]:
    """Seconds since the earliest, and when that was, of datetimes, of ISO 8601 texts, or of seconds.

    A time without a zone is UTC. Seconds that look like Unix time are.
    """
    if not values:
        raise TraceError("there is no request in it")
    try:
        if isinstance(values[0], str):
            values = _numbers_or_times(values)
        if isinstance(values[0], datetime):
            times = [value if value.tzinfo else value.replace(tzinfo=UTC) for value in values]
            earliest = min(times)
            elapsed = np.array([value.timestamp() for value in times]) - earliest.timestamp()
            return elapsed, datetime.fromtimestamp(earliest.timestamp(), earliest.tzinfo)
        seconds = np.array(values, dtype=float)
    except (TypeError, ValueError, AttributeError) as error:
        raise TraceError(f"column {name!r}: {error}; give datetimes, ISO 8601 or seconds") from None
    first_s = float(np.nanmin(seconds))
    return seconds - first_s, start_at(first_s)


def _numbers_or_times(texts: Sequence[str]) -> list[Any]:
    try:
        float(texts[0])
    except ValueError:
        return [datetime.fromisoformat(text.strip()) for text in texts]
    return [float(text) for text in texts]


def in_zone(start: datetime | None, zone: str | None) -> datetime | None:
    """The same moment in a time zone, where one is named."""
    return start if start is None or zone is None else start.astimezone(ZoneInfo(zone))


def seconds_from(start: datetime | None, moment: datetime | str | float) -> float:
    """Seconds from a start to a moment: a datetime, ISO 8601, or seconds already.

    A moment without a zone is in that of the start. Raises :class:`TraceError` where the start is unknown.

    >>> seconds_from(datetime(2025, 3, 1, 8, tzinfo=UTC), "2025-03-01 09:30")
    5400.0
    """
    if not isinstance(moment, datetime | str):
        return float(moment)
    when = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    if start is None:
        raise TraceError(f"{moment} cannot be placed: this trace counts seconds from a start that is not known")
    when = when if when.tzinfo else when.replace(tzinfo=start.tzinfo)
    return when.timestamp() - start.timestamp()


def moment_at(start: datetime, seconds: float) -> datetime:
    """The moment this many seconds after a start, in its zone, also where its clock is changed in between.

    >>> print(moment_at(datetime(2025, 3, 30, 1, 30, tzinfo=ZoneInfo("Europe/Berlin")), 3600))
    2025-03-30 03:30:00+02:00
    """
    return (start.astimezone(UTC) + timedelta(seconds=seconds)).astimezone(start.tzinfo)
