"""The lines of text files, which may be packed with gzip or Zstandard.

Text is read line by line, so that memory is bounded by the numbers that are kept.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO, cast

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.workloads.formats.base import TraceError

MAX_LINE = 1 << 20
"""The longest line of a text file, in characters."""

PACKED_SUFFIXES = (".gz", ".zst")
"""How the names of packed files end. What a file is packed with is told by its first bytes."""

_GZIP, _ZSTANDARD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


def open_unpacked(path: Path) -> BinaryIO:
    """Open a file to read what is in it, unpacked. Raises ``MissingExtraError`` where the extra for it is missing."""
    file = path.open("rb")
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if magic == _ZSTANDARD:
        with needs_extra("zstd"):
            from zstandard import ZstdDecompressor  # noqa: PLC0415  # an extra
        return cast("BinaryIO", ZstdDecompressor().stream_reader(file, read_across_frames=True))
    return file


@contextmanager
def unpacking(path: Path) -> Iterator[None]:
    """Raise :class:`TraceError` for what unpacking a damaged file raises."""
    try:
        yield
    except Exception as error:
        zstandard = sys.modules.get("zstandard")
        if not isinstance(
            error, (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError if zstandard else EOFError)
        ):
            raise
        raise TraceError(f"{path}: cannot be unpacked: {error}") from error


class TextLines(Iterator[str]):
    """The lines of a text file, at most :data:`MAX_LINE` long, with the place of the one that was read last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = TextIOWrapper(open_unpacked(path), encoding="utf-8-sig", errors="replace", newline="")
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
