"""Telling processes apart, by what Linux says under ``/proc``.

A pid alone proves nothing, because it may have been given to another process since. A pid, the clock tick at which the
process started (which ``exec`` keeps and changes of the system's clock do not move) and the boot that it belongs to
name one process for ever.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dynamo_planner.core.values import Frozen

_PROC = Path("/proc")


class Process(Frozen):
    """One process, now or in the past."""

    pid: int
    started_ticks: int
    boot_id: str


class _Stat(NamedTuple):
    pid: int
    state: str
    session: int
    started_ticks: int


@cache
def boot_id() -> str:
    """What tells this boot of the machine from all others."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _stat(pid: int) -> _Stat | None:
    """State, session and start of a process, by proc(5); ``None`` where there is none. A zombie is none: it is over."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    state = fields[0]
    return None if state in "ZXx" else _Stat(pid, state, int(fields[3]), int(fields[19]))


def identify(pid: int) -> Process | None:
    """The process that has this pid now, or ``None``."""
    stat = _stat(pid)
    return Process(pid=pid, started_ticks=stat.started_ticks, boot_id=boot_id()) if stat else None


def alive(process: Process | None) -> bool:
    """Whether this very process still runs."""
    return process is not None and identify(process.pid) == process


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def descendants(leader: Process, mark: str) -> tuple[Process, ...]:
    """What still runs of a worker: its leader, the rest of the leader's session, and whatever has ``mark`` in its
    environment, which finds those that left the session.

    The kernel gives a session's number to no new process while the session has members, so after its leader's end the
    members are still told by it.
    """
    if leader.boot_id != boot_id():
        return ()
    reused = (holder := identify(leader.pid)) is not None and holder != leader
    found = [
        Process(pid=stat.pid, started_ticks=stat.started_ticks, boot_id=leader.boot_id)
        for pid in _pids()
        if (stat := _stat(pid)) and ((stat.session == leader.pid and not reused) or _has_mark(pid, mark))
    ]
    return tuple(found)


def _has_mark(pid: int, mark: str) -> bool:
    try:
        return mark.encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def marked(prefix: str) -> list[tuple[Process, str]]:
    """The processes that have an environment entry beginning so, and the entry."""
    found = []
    for pid in _pids():
        try:
            entries = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        mark = next((entry.decode() for entry in entries if entry.startswith(prefix.encode())), None)
        process = identify(pid) if mark is not None else None
        if process is not None and mark is not None:
            found.append((process, mark))
    return found


def writes_into(process: Process, directory: Path) -> bool:
    """Whether its standard output or error is a file in this directory."""
    for number in (1, 2):
        try:
            if (_PROC / str(process.pid) / "fd" / str(number)).readlink().parent == directory:
                return True
        except OSError:
            continue
    return False


def find_by_arguments(*wanted: str) -> Process | None:
    """A process of this user that has all of these arguments on its command line."""
    return next((process for process, _ in with_arguments(*wanted)), None)


def with_arguments(*wanted: str) -> Iterator[tuple[Process, list[str]]]:
    """The processes of this user that have all of these arguments on their command line, and the command line."""
    for pid in _pids():
        try:
            arguments = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
            owner = (_PROC / str(pid)).stat().st_uid
        except OSError:
            continue
        process = identify(pid)
        if process and owner == os.geteuid() and all(argument.encode() in arguments for argument in wanted):
            yield process, [os.fsdecode(argument) for argument in arguments]


def send(process: Process, signum: signal.Signals) -> None:
    """Signal this process, if it is still there."""
    if alive(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signum)
