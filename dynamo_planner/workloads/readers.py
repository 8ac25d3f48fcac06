"""The files that request traces come in, read into columns.

A file's format is told by its content. What a user may bring: ``.npz`` (``arrival_s``, ``isl``, ``osl``), the CSV files
of the Azure LLM inference traces, the JSON lines of Mooncake, and the CSV files of BurstGPT. Text is read line by line,
so that memory is bounded by the numbers that are kept.
"""

from __future__ import annotations

import csv
import json
import math
import zipfile
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MAX_TOKENS = 2**31 - 1
MAX_LINE = 1 << 20
MAX_NPZ_BYTES = 4 << 30
MOONCAKE_BLOCK_TOKENS = 512
MOONCAKE_BATCH_S = 3.0

FORMATS = (
    "an npz with arrival_s, isl and osl; an Azure CSV (TIMESTAMP,ContextTokens,GeneratedTokens); Mooncake JSON lines "
    "(timestamp, input_length, output_length); or a BurstGPT CSV (Timestamp,...,Request tokens,Response tokens,...)"
)


class TraceError(ValueError):
    """A trace could not be read or made; the message names the file and the line, and what is allowed."""


class Columns(NamedTuple):
    """What a file holds: one entry per request in each array, not checked and not sorted yet."""

    arrival_s: np.ndarray
    isl: np.ndarray
    osl: np.ndarray
    prefix_hit: np.ndarray | None = None
    duration_s: float = 0.0


def read_columns(path: Path) -> Columns:
    """Read a trace file of any known format. Raises :class:`TraceError`."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        if not start.strip():
            raise TraceError(f"{path}: the file is empty")
        if start.startswith(b"PK"):
            return _read_npz(path)
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
            return _read_mooncake(path)
        return _read_csv(path)
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file") from None
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_npz(path: Path) -> Columns:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        arrays = _arrays(path) if size <= MAX_NPZ_BYTES else {}
    except OSError:
        raise
    except Exception as error:  # whatever numpy and zipfile make of a damaged file
        raise TraceError(f"{path}: not a readable npz file: {error}") from error
    if size > MAX_NPZ_BYTES:
        raise TraceError(f"{path}: {size} bytes when unpacked; at most {MAX_NPZ_BYTES} are allowed")
    absent = [name for name in ("arrival_s", "isl", "osl") if name not in arrays]
    if absent:
        raise TraceError(f"{path}: array {absent[0]!r} is missing; there are {sorted(arrays)}")
    duration = arrays.get("duration_s", np.array(0.0))
    if duration.shape != () or duration.dtype.kind not in "iuf":
        raise TraceError(f"{path}: duration_s must be a single number, got {duration!r:.100}")
    arrival = arrays.get("arrival_s_spread", arrays["arrival_s"])
    return Columns(arrival, arrays["isl"], arrays["osl"], arrays.get("prefix_hit"), float(duration))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: np.asarray(file[name]) for name in file.files}


class _Lines(Iterator[str]):
    """The lines of a text file, none of them endless; remembers where it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open(encoding="utf-8-sig", errors="replace", newline="")
        self.number = 0
        self.text = ""

    def __next__(self) -> str:
        self.text = self._file.readline(MAX_LINE)
        if not self.text:
            raise StopIteration
        self.number += 1
        if len(self.text) == MAX_LINE:
            raise self.error(f"the line is longer than {MAX_LINE} characters")
        return self.text

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def error(self, problem: str) -> TraceError:
        content = self.text.rstrip("\r\n")
        shown = content if len(content) <= 200 else f"{content[:200]}..."
        return TraceError(f"{self._path}, line {self.number}: {problem}: {shown!r}")


class _Rows:
    """Arrivals and lengths as they are read."""

    def __init__(self) -> None:
        self.arrival_s = array("d")
        self.isl = array("q")
        self.osl = array("q")

    def add(self, arrival_s: float, isl: int, osl: int) -> None:
        if not math.isfinite(arrival_s):
            raise ValueError(f"the time must be a finite number, got {arrival_s}")
        if not (0 <= isl <= MAX_TOKENS and 0 <= osl <= MAX_TOKENS):
            raise ValueError(f"lengths must be from 0 to {MAX_TOKENS} tokens, got {isl} and {osl}")
        self.arrival_s.append(arrival_s)
        self.isl.append(isl)
        self.osl.append(osl)

    def columns(self, prefix_hit: array[int] | None = None) -> Columns:
        hits = None if prefix_hit is None else np.array(prefix_hit)
        arrival = np.array(self.arrival_s)
        earliest = arrival.min(initial=0.0)  # below 0 where time counts from the first row and the rows are not sorted
        return Columns(arrival - earliest, np.array(self.isl), np.array(self.osl), hits)


def _read_csv(path: Path) -> Columns:
    with _Lines(path) as lines:
        reader = csv.reader(lines)
        rows = _Rows()
        try:
            header = [name.strip().lower() for name in next(reader, [])]
            parse = _csv_format(header)
            if parse is None:
                raise TraceError(
                    f"{path}: not a trace format that is known: {FORMATS}. It begins with {header[:8]!r:.200}"
                )
            for fields in reader:
                if fields:
                    rows.add(*parse(fields))
        except (ValueError, IndexError, OverflowError, csv.Error) as error:
            if isinstance(error, TraceError):
                raise
            raise lines.error(_in_words(error)) from error
    return rows.columns()


def _in_words(error: Exception) -> str:
    return "too few fields" if isinstance(error, IndexError) else str(error)


def _csv_format(header: list[str]) -> Callable[[list[str]], tuple[float, int, int]] | None:
    """How the rows under this header are to be read."""
    place = {name: index for index, name in enumerate(header)}
    if {"timestamp", "contexttokens", "generatedtokens"} <= place.keys():
        return _azure(place["timestamp"], place["contexttokens"], place["generatedtokens"])
    if {"timestamp", "request tokens", "response tokens"} <= place.keys():
        at, isl, osl = place["timestamp"], place["request tokens"], place["response tokens"]
        return lambda fields: (float(fields[at]), int(fields[isl]), int(fields[osl]))
    return None


def _azure(at: int, isl: int, osl: int) -> Callable[[list[str]], tuple[float, int, int]]:
    """Seconds from the first row; a time without a zone is UTC."""
    first: datetime | None = None

    def parse(fields: list[str]) -> tuple[float, int, int]:
        nonlocal first
        time = datetime.fromisoformat(fields[at].strip())
        if time.tzinfo is None:
            time = time.replace(tzinfo=UTC)
        if first is None:
            first = time
        return (time - first).total_seconds(), int(fields[isl]), int(fields[osl])

    return parse


def _read_mooncake(path: Path) -> Columns:
    rows, hits, seen = _Rows(), array("q"), set[int]()
    with _Lines(path) as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                isl, osl = (_whole(record, name) for name in ("input_length", "output_length"))
                rows.add(_number(record, "timestamp") / 1000, isl, osl)
                hits.append(_prefix_hit(record, isl, seen))
            except (ValueError, OverflowError, RecursionError) as error:
                raise lines.error(str(error)) from error
    columns = rows.columns(hits if seen else None)
    return columns._replace(arrival_s=spread_batches(columns.arrival_s))


def _number(record: Any, name: str) -> float:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {value!r:.100}")  # noqa: TRY004 - it is data, not a type
    return value


def _whole(record: Any, name: str) -> int:
    value = _number(record, name)
    if not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, got {value!r}")  # noqa: TRY004
    return value


def _prefix_hit(record: dict[str, Any], isl: int, seen: set[int]) -> int:
    """The prompt tokens that a prefix cache without bounds would hold: leading blocks that an earlier line has."""
    blocks = record.get("hash_ids", [])
    if not isinstance(blocks, list) or not all(type(block) is int for block in blocks):
        raise ValueError(f"hash_ids must be a list of whole numbers, got {blocks!r:.100}")
    hit = 0
    while hit < len(blocks) and blocks[hit] in seen:
        hit += 1
    seen.update(blocks)
    return min(hit * MOONCAKE_BLOCK_TOKENS, isl)


def spread_batches(arrival_s: np.ndarray) -> np.ndarray:
    """Spread requests of one and the same stamp evenly over the 3 s (or less, up to the next stamp) that it stands for.

    >>> spread_batches(np.array([0.0, 0.0, 0.0, 3.0, 3.0, 4.0])).tolist()
    [0.0, 1.0, 2.0, 3.0, 3.5, 4.0]
    """
    order = np.argsort(arrival_s, kind="stable")
    stamps, first, count = np.unique(arrival_s[order], return_index=True, return_counts=True)
    width = np.minimum(np.diff(stamps, append=np.inf), MOONCAKE_BATCH_S)
    place = np.arange(len(order)) - np.repeat(first, count)
    spread = np.empty(len(order))
    spread[order] = np.repeat(stamps, count) + np.repeat(width / count, count) * place
    return spread
