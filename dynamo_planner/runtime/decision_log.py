"""The decision log: one line of JSON for each step of the loop, written and read back."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from dynamo_planner.core.decision import Decision, Outcome
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Frozen
from dynamo_planner.sources.rotated import files_oldest_first, parse_lines, rotated_path

PRIVATE = 0o600


class Step(Frozen):
    """One turn of the loop.

    Args:
        at_s: When it began (Unix seconds).
        name: Name of the planner.
        snapshot: What was observed.
        decision: What was decided.
        outcomes: The outcomes of its actions.
        advisory: Whether it was recorded without acting, so that there are no outcomes (false).
        took_s: Seconds from observing to the outcomes.
    """

    at_s: float
    name: str
    snapshot: Snapshot
    decision: Decision
    outcomes: tuple[Outcome, ...] = ()
    advisory: bool = False
    took_s: float | None = None


class DecisionLog:
    """A file with a line of JSON for each step, without the policy's state, readable by its user only.

    Once a line would take the file beyond ``max_bytes`` it becomes ``path.1``, the older ones move up, and ``keep`` of
    them are kept. The file is opened for each line, so that it may be moved away or deleted at any time.
    """

    def __init__(self, path: str | Path, *, max_bytes: int = 64 * 2**20, keep: int = 3) -> None:
        self.path = existing_directory_of(path)
        if max_bytes < 1 or keep < 0:
            raise ValueError(f"max_bytes ({max_bytes}) must be at least 1, and keep ({keep}) at least 0")
        self._max_bytes = max_bytes
        self._keep = keep

    def write(self, step: Step) -> None:
        """Append the step, and hand it to the operating system at once. Raises :class:`OSError`."""
        line = step.model_dump_json(exclude={"decision": {"state"}}).encode() + b"\n"
        self._make_room(len(line))
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        file = os.open(self.path, flags, PRIVATE)
        try:
            line = _line_break_after_a_cut_off_line(file) + line
            written = os.write(file, line)
            if written < len(line):
                raise OSError(f"{self.path}: only {written} of {len(line)} bytes could be written: is the disk full?")
        finally:
            os.close(file)

    def _make_room(self, line_bytes: int) -> None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return
        if size == 0 or size + line_bytes <= self._max_bytes:
            return
        files = [self.path, *(rotated_path(self.path, number) for number in range(1, self._keep + 1))]
        files[-1].unlink(missing_ok=True)
        for older, newer in zip(files[:0:-1], files[-2::-1], strict=True):
            if newer.exists():
                newer.replace(older)


def existing_directory_of(path: str | Path) -> Path:
    """The path, if the directory that it lies in exists. Raises :class:`FileNotFoundError`."""
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no directory {path.parent}; create it first")
    return path


def _line_break_after_a_cut_off_line(file: int) -> bytes:
    """What must come before the next line: a crash or a full disk may have cut off the last one."""
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return b""
    return b"" if os.pread(file, 1, status.st_size - 1) == b"\n" else b"\n"


def read_log(path: str | Path, *, strict: bool = False) -> Iterator[Step]:
    """The steps of a log, oldest first, those of its rotated files (``path.2``, ``path.1``) included.

    A line that does not read, as a crash or a full disk may leave one, is named by file and number in a warning and
    skipped; with ``strict`` it raises a :class:`ValueError` that says the same. A step read back has no policy state.
    Raises :class:`FileNotFoundError` at once where there is no such log.
    """
    files = files_oldest_first(path, "decision log")
    return parse_lines(files, Step.model_validate_json, content="a step of a decision log", strict=strict)


def follow_log(path: str | Path, looks_every_s: float = 0.5) -> Iterator[Step]:
    """The steps that are written from now on, also when the log is rotated; it ends only with its reader.

    A line that does not read is skipped. Raises :class:`FileNotFoundError` at once where there is no such log.
    """
    path = Path(path).expanduser()
    file = path.open("rb")
    file.seek(0, os.SEEK_END)
    return _following(path, file, looks_every_s)


def _following(path: Path, file: BinaryIO, looks_every_s: float) -> Iterator[Step]:
    begun = b""
    while True:
        begun += file.readline()
        if begun.endswith(b"\n"):
            with suppress(ValueError):
                yield Step.model_validate_json(begun)
            begun = b""
            continue
        with suppress(FileNotFoundError):
            if path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                file.close()
                file, begun = path.open("rb"), b""
                continue
        time.sleep(looks_every_s)
