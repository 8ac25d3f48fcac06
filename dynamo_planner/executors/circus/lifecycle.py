"""Phases of a worker: its record and an observation in, its next record out. No clock and no I/O.

``starting`` becomes ``ready`` when it answers, and ``failed`` when it ends or takes too long; ``ready`` becomes
``failed`` when it ends. ``failed`` becomes ``starting`` again once its backoff is over and no process of the last start
remains. ``draining`` is set from outside, and ends with the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.records import Process, WorkerRecord


class WorkerObservation(NamedTuple):
    """One observation of a worker.

    Args:
        process: Its process, or ``None`` where its start led to none.
        alive: Whether that runs.
        healthy: Whether it answered its health check.
        log: Its last log lines.
    """

    process: Process | None
    alive: bool
    healthy: bool
    log: str


def advance(worker: WorkerRecord, observed: WorkerObservation, pool: CircusPool, now_s: float) -> WorkerRecord:
    """The worker after an observation."""
    worker = worker.replace(process=observed.process)
    if worker.phase not in {"starting", "ready"}:
        return worker
    age_s = now_s - worker.since_s
    if observed.process is None:
        return _failed(worker, "its start was interrupted", now_s, retry_in_s=0.0)
    if not observed.alive:
        verb = "ended before it was ready," if worker.phase == "starting" else "ended unexpectedly,"
        return _crashed(
            worker, f"{verb} {age_s:.1f} s after it was {_BECAME[worker.phase]}{_quoted(observed.log)}", pool, now_s
        )
    if worker.phase == "ready":
        well = worker.crashes and age_s >= pool.restart_backoff_max_s
        return worker.replace(crashes=0) if well else worker
    if observed.healthy or (pool.health is None and age_s >= pool.ready_after_s):
        return worker.replace(phase="ready", since_s=now_s, message="")
    if age_s >= pool.startup_timeout_s:
        message = f"not ready within startup_timeout_s ({pool.startup_timeout_s:g} s) and killed{_quoted(observed.log)}"
        return _crashed(worker, message, pool, now_s)
    return worker


_BECAME = {"starting": "started", "ready": "ready"}


def _quoted(log: str) -> str:
    return f"; last lines of its log:\n{log}" if log else "; its log is empty"


def _crashed(worker: WorkerRecord, message: str, pool: CircusPool, now_s: float) -> WorkerRecord:
    """Failed, to be restarted after a backoff that doubles with each crash."""
    backoff_s = min(pool.restart_backoff_max_s, pool.restart_backoff_s * 2.0 ** min(worker.crashes, 30))
    failed = _failed(worker, message, now_s, backoff_s)
    return failed.replace(crashes=worker.crashes + 1)


def _failed(worker: WorkerRecord, message: str, now_s: float, retry_in_s: float) -> WorkerRecord:
    return worker.replace(phase="failed", since_s=now_s, message=message, retry_at_s=now_s + retry_in_s)


def unstarted(worker: WorkerRecord, message: str, pool: CircusPool, now_s: float) -> WorkerRecord:
    """A worker that the arbiter did not restart."""
    return _crashed(worker, message, pool, now_s)


def due(worker: WorkerRecord, now_s: float) -> bool:
    """Whether a failed worker is to be restarted now; not while a process of it remains."""
    return worker.phase == "failed" and worker.process is None and now_s >= (worker.retry_at_s or 0.0)


def restarted(
    worker: WorkerRecord,
    token: str,
    port: int | None,
    command: tuple[str, ...],
    knobs: Mapping[str, KnobValue],
    now_s: float,
) -> WorkerRecord:
    """The worker at the beginning of another start."""
    return worker.replace(
        token=token,
        knobs=FrozenMap(knobs),
        phase="starting",
        since_s=now_s,
        port=port,
        command=command,
        process=None,
        retry_at_s=None,
    )


def draining(
    worker: WorkerRecord, now_s: float, graceful_timeout_s: float | None = None, *, comes_back: bool = False
) -> WorkerRecord:
    """The draining worker, to be killed after its graceful timeout, or after the given one.

    A failed one has nothing to finish, and is killed at once; one that drains already keeps its time.
    """
    if worker.phase == "draining" and graceful_timeout_s is None:
        return worker.replace(comes_back=comes_back)
    timeout_s = worker.graceful_timeout_s if graceful_timeout_s is None else graceful_timeout_s
    timeout_s = 0.0 if worker.phase == "failed" else timeout_s
    return worker.replace(phase="draining", since_s=now_s, kill_at_s=now_s + timeout_s, comes_back=comes_back)


def back(worker: WorkerRecord, now_s: float) -> WorkerRecord:
    """A drained worker that is to be restarted at once."""
    stopped = worker.replace(comes_back=False, process=None, asked=(), kill_at_s=None)
    return _failed(stopped, "it restarts with other knobs", now_s, retry_in_s=0.0)


def drain_first(workers: tuple[WorkerRecord, ...], count: int) -> tuple[WorkerRecord, ...]:
    """The workers that a pool drains first: those that failed or are to be restarted, then the last started."""
    gone = [worker for worker in workers if worker.phase in {"failed", "draining"}]
    others = [worker for worker in workers if worker.phase not in {"failed", "draining"}]
    return (*reversed(gone), *reversed(others))[:count]
