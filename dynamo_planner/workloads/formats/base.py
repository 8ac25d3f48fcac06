"""What the formats of trace files have in common.

Text is read line by line, so that memory is bounded by the numbers that are kept.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAX_TOKENS = 2**31 - 1
"""The longest prompt or output, in tokens."""

MAX_LINE = 1 << 20
"""The longest line of a text file, in characters."""


class TraceError(ValueError):
    """A trace could not be read or made; the message names the file and the line, and what is allowed."""


class Columns(NamedTuple):
    """A file's requests, one entry per request in each array, not checked and not sorted yet.

    Args:
        arrival_s: times of arrival, in seconds.
        isl: prompt tokens.
        osl: output tokens.
        prefix_hit: prompt tokens that a prefix cache without bounds would hold, where known.
        duration_s: the length of the trace; 0 by default, which stands for the last arrival.
    """

    arrival_s: np.ndarray
    isl: np.ndarray
    osl: np.ndarray
    prefix_hit: np.ndarray | None = None
    duration_s: float = 0.0


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


class TextLines(Iterator[str]):
    """The lines of a text file, at most :data:`MAX_LINE` long, with the place of the one that was read last."""

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

    def __enter__(self) -> TextLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def error(self, problem: str) -> TraceError:
        """An error about the line that was read last."""
        content = self.text.rstrip("\r\n")
        shown = content if len(content) <= 200 else f"{content[:200]}..."
        return TraceError(f"{self._path}, line {self.number}: {problem}: {shown!r}")


class RequestRows:
    """Arrivals and lengths, collected row by row."""

    def __init__(self) -> None:
        self.arrival_s = array("d")
        self.isl = array("q")
        self.osl = array("q")

    def add(self, arrival_s: float, isl: int, osl: int) -> None:
        """Add a request. Raises ``ValueError`` for a time that is not finite or lengths out of range."""
        if not math.isfinite(arrival_s):
            raise ValueError(f"the time must be a finite number, got {arrival_s}")
        if not (0 <= isl <= MAX_TOKENS and 0 <= osl <= MAX_TOKENS):
            raise ValueError(f"lengths must be from 0 to {MAX_TOKENS} tokens, got {isl} and {osl}")
        self.arrival_s.append(arrival_s)
        self.isl.append(isl)
        self.osl.append(osl)

    def columns(self, prefix_hit: array[int] | None = None) -> Columns:
        """All requests, with times from the earliest one on where that is below 0."""
        hits = None if prefix_hit is None else np.array(prefix_hit)
        arrival = np.array(self.arrival_s)
        earliest = arrival.min(initial=0.0)
        return Columns(arrival - earliest, np.array(self.isl), np.array(self.osl), hits)
