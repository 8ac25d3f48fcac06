"""The directory of the state files: the default, and those that are for a while."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "DYN_LOCAL_STATE_DIR"


def default_state_dir() -> Path:
    """``DYN_LOCAL_STATE_DIR``, or ``~/.dynamo/state``."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else Path.home() / ".dynamo" / "state"


TEMPORARY = "dynamo-planner-"
"""The beginning of the names of state directories that are for a while, as that of a demo."""


def temporary_state_dirs(pattern: str) -> Iterator[Path]:
    """The files of this pattern in the temporary state directories of this user."""
    for directory in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*"):
        if directory.stat().st_uid == os.geteuid():
            yield from directory.glob(pattern)


def abandoned_directories() -> Iterator[Path]:
    """The temporary directories of this user whose name has the pid of a demo that has ended, without state files."""
    for directory in Path(tempfile.gettempdir()).glob(f"{TEMPORARY}*-*-*"):
        pid = directory.name.removeprefix(TEMPORARY).split("-")[1]
        ended = pid.isdecimal() and not Path("/proc", pid).exists()
        if ended and directory.stat().st_uid == os.geteuid() and not any(directory.glob("*.json")):
            yield directory


def is_temporary(directory: Path) -> bool:
    """Whether a state directory is for a while only."""
    return directory.name.startswith(TEMPORARY) and directory.parent == Path(tempfile.gettempdir())
