"""Trace files that are CSV tables with a header: a map of their columns is all that a format takes.

>>> import tempfile
>>> mine = CsvTable("my CSV (at, prompt, answer)", arrival="at", isl="prompt", osl="answer")
>>> path = Path(tempfile.mkdtemp()) / "requests.csv"
>>> written = path.write_text("answer,at,prompt\\n5,0.5,100\\n7,2.0,200\\n")
>>> mine.recognises(path.read_bytes()), mine.read(path).isl.tolist()
(True, [100, 200])
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from dynamo_planner.workloads.formats.base import Columns, RequestRows, TimeUnit, TraceError, TraceFormat
from dynamo_planner.workloads.formats.text import TextLines


@dataclass(frozen=True)
class CsvTable(TraceFormat):
    """A CSV table with one request in each row.

    Args:
        description: the format in a few words, for messages.
        arrival: the column with the time of arrival; upper and lower case are the same in the names of columns.
        isl: the column with the prompt tokens.
        osl: the column with the output tokens.
        time: the unit of the times, ``s`` by default, or ``iso`` for dates and times of ISO 8601, which are UTC where
            they have no zone. Times count from the earliest one.
    """

    description: str
    arrival: str
    isl: str
    osl: str
    time: TimeUnit | Literal["iso"] = "s"

    def recognises(self, start: bytes) -> bool:
        header = start.decode("utf-8-sig", errors="replace").splitlines()[:1]
        try:
            return self._places(next(csv.reader(header), [])) is not None
        except csv.Error:
            return False

    def read(self, path: Path) -> Columns:
        rows = RequestRows("s" if self.time == "iso" else self.time)
        with TextLines(path) as lines:
            reader = csv.reader(lines)
            try:
                header = next(reader, [])
                places = self._places(header)
                if places is None:
                    raise TraceError(f"{path}: not {self.description}; its columns are {header[:8]!r:.200}")
                at, isl, osl = places
                time: Callable[[str], float] = _SinceTheFirst() if self.time == "iso" else float
                for fields in reader:
                    if fields:
                        rows.add(time(fields[at]), int(fields[isl]), int(fields[osl]))
            except TraceError:
                raise
            except IndexError as error:
                raise lines.error("too few fields") from error
            except (ValueError, OverflowError, csv.Error) as error:
                raise lines.error(str(error)) from error
        columns = rows.columns(path)
        return columns._replace(start=time.earliest) if isinstance(time, _SinceTheFirst) else columns

    def _places(self, header: list[str]) -> tuple[int, int, int] | None:
        """Where the three columns stand; ``None`` where one is missing."""
        place = {name.strip().lower(): index for index, name in enumerate(header)}
        at, isl, osl = (place.get(name.lower()) for name in (self.arrival, self.isl, self.osl))
        return None if at is None or isl is None or osl is None else (at, isl, osl)


class _SinceTheFirst:
    """Seconds since the first time that it was called with."""

    def __init__(self) -> None:
        self._first: datetime | None = None
        self.earliest: datetime | None = None

    def __call__(self, text: str) -> float:
        time = datetime.fromisoformat(text.strip())
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        if self._first is None:
            self._first = time
        self.earliest = time if self.earliest is None else min(self.earliest, time)
        return (time - self._first).total_seconds()


AZURE = CsvTable(
    "an Azure CSV (TIMESTAMP, ContextTokens, GeneratedTokens)",
    arrival="TIMESTAMP",
    isl="ContextTokens",
    osl="GeneratedTokens",
    time="iso",
)
"""The Azure LLM inference traces of 2023 and 2024."""

BURSTGPT = CsvTable(
    "a BurstGPT CSV (Timestamp, Request tokens, Response tokens)",
    arrival="Timestamp",
    isl="Request tokens",
    osl="Response tokens",
)
"""BurstGPT; failed requests have no response tokens."""
