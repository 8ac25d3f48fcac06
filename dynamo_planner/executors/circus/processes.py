"""Processes: identifying one beyond the reuse of its pid, finding those of a worker, signalling one.

A pid alone identifies nothing: another process may have it by now. A pid, the clock tick of the process's start (which
``exec`` keeps and changes of the system's clock do not move) and the boot identify one process for good.

psutil lists processes and reads command lines and environments. The start tick comes from ``/proc/PID/stat`` itself:
psutil's ``create_time()`` adds the boot time of the present clock, so it differs after the clock was set, and records
outlive that. One read gives the tick, the state and the session of the same process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors.circus.records import Process

with needs_extra("circus"):
    import psutil

_PROC = Path("/proc")


class _Stat(NamedTuple):
    pid: int
    state: str
    parent: int
    session: int
    started_ticks: int


@cache
def boot_id() -> str:
    """The identifier of this boot of the machine."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _stat(pid: int) -> _Stat | None:
    """What proc(5) says of a process; ``None`` where there is none. A zombie is none: it is over."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    state = fields[0]
    return None if state in "ZXx" else _Stat(pid, state, int(fields[1]), int(fields[3]), int(fields[19]))


def identify(pid: int) -> Process | None:
    """The process that has this pid now, or ``None``."""
    stat = _stat(pid)
    return Process(pid=pid, started_ticks=stat.started_ticks, boot_id=boot_id()) if stat else None


def alive(process: Process | None) -> bool:
    """Whether this very process still runs."""
    return process is not None and identify(process.pid) == process


def descendants(leader: Process, mark: str, strays: Collection[Process] = ()) -> tuple[Process, ...]:
    """What still runs of a worker: its leader, the rest of the leader's session, every process with ``mark`` in its
    environment, which finds those that left the session, the ``strays`` that were seen before, and all their children.

    The kernel gives a session's number to no new process while the session has members, so after its leader's end the
    number still identifies them.
    """
    if leader.boot_id != boot_id():
        return ()
    variable, _, value = mark.partition("=")
    stats = _stats()
    reused = leader.pid in stats and not _is(leader, stats[leader.pid])
    known = {stray.pid for stray in strays if stray.pid in stats and _is(stray, stats[stray.pid])}
    found = {
        pid
        for pid, stat in stats.items()
        if (stat.session == leader.pid and not reused) or pid in known or _environment(pid).get(variable) == value
    }
    return tuple(_process(stats[pid]) for pid in sorted(_with_children(found, stats)))


def strays(known: Mapping[Process, Collection[Process]]) -> dict[Process, tuple[Process, ...]]:
    """The descendants of each leader that are in another session, given those that are known of it.

    Of one that has also cleared its environment (``env -i``, ``sudo``, ``mpirun``) nothing but its parents says whose
    it is, and those only as long as they live. So this is asked while they do, and remembered.
    """
    stats = _stats()
    left = {}
    for leader, before in known.items():
        here = {each.pid for each in (leader, *before) if each.pid in stats and _is(each, stats[each.pid])}
        family = _with_children(here, stats)
        left[leader] = tuple(_process(stats[pid]) for pid in sorted(family) if stats[pid].session != leader.pid)
    return left


def _stats() -> dict[int, _Stat]:
    return {pid: stat for pid in psutil.pids() if (stat := _stat(pid))}


def _process(stat: _Stat) -> Process:
    return Process(pid=stat.pid, started_ticks=stat.started_ticks, boot_id=boot_id())


def _is(process: Process, stat: _Stat) -> bool:
    return _process(stat) == process


def _with_children(pids: Collection[int], stats: Mapping[int, _Stat]) -> set[int]:
    children: dict[int, list[int]] = {}
    for stat in stats.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    family, todo = set(pids), [*pids]
    while todo:
        new = [pid for pid in children.get(todo.pop(), ()) if pid not in family]
        family.update(new)
        todo += new
    return family


def _environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it has ended or is another user's."""
    try:
        return psutil.Process(pid).environ()
    except psutil.Error:
        return {}


def marked(prefix: str) -> list[tuple[Process, str]]:
    """The processes with an environment entry of this prefix (``NAME=beginning``), and the entry."""
    variable, _, beginning = prefix.partition("=")
    found = []
    for pid in psutil.pids():
        value = _environment(pid).get(variable)
        process = identify(pid) if value is not None else None
        if process is not None and value is not None and value.startswith(beginning):
            found.append((process, f"{variable}={value}"))
    return found


def output_directories(process: Process) -> set[Path]:
    """The directories of the files that its standard output and error go to, deleted or not."""
    found = set()
    for number in (1, 2):
        with suppress(OSError):
            found.add((_PROC / str(process.pid) / "fd" / str(number)).readlink().parent)
    return found


def find_by_arguments(*wanted: str) -> Process | None:
    """A process of this user that has all of these arguments on its command line."""
    return next((process for process, _ in with_arguments(*wanted)), None)


def with_arguments(*wanted: str) -> Iterator[tuple[Process, list[str]]]:
    """The processes of this user that have all of these arguments on their command line, and the command line."""
    for each in psutil.process_iter():
        try:
            arguments, owner = each.cmdline(), each.uids().effective
        except psutil.Error:
            continue
        process = identify(each.pid)
        if process and owner == os.geteuid() and set(wanted) <= set(arguments):
            yield process, arguments


def send(process: Process, signum: signal.Signals) -> None:
    """Signal this process, if it is still there."""
    if alive(process):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signum)
