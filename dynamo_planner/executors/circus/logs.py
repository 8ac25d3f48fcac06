"""The log files of workers: private, rotated, and their last lines.

A worker writes straight into its file and not into a pipe that the arbiter reads, because a worker must survive the
arbiter, and its next line into a broken pipe would end it. So a file that has grown is copied and cut while the worker
holds it open; a line that is written in that moment can be lost.
"""

from __future__ import annotations

import os
from pathlib import Path

BACKUPS = 2
"""How many older log files of a worker are kept: ``.1`` is the newest of them."""


def tail(path: Path, lines: int = 8, max_bytes: int = 4096) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - max_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def rotate(path: Path, over: int, keep: int) -> None:
    """Where a log has more than ``over`` bytes, keep the last ``keep`` of them as ``.1`` and begin it anew."""
    try:
        if path.stat().st_size <= over:
            return
    except FileNotFoundError:
        return
    for number in range(BACKUPS, 1, -1):
        older, newer = _backup(path, number), _backup(path, number - 1)
        if newer.exists():
            newer.replace(older)
    private = os.open(_backup(path, 1), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with path.open("r+b") as file, os.fdopen(private, "wb") as copy:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - keep)
        while start < size and (sent := os.sendfile(copy.fileno(), file.fileno(), start, size - start)):
            start += sent
        file.truncate(0)


def _backup(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
