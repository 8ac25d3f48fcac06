"""Phases of a worker: its record and an observation in, its next record out. No clock and no I/O.

``starting`` becomes ``ready`` when it answers, and ``failed`` when it ends or takes too long; ``ready`` becomes
``failed`` when it ends, or when its health check fails for too long: until then it is ``unhealthy``, gets no requests
and counts as failed. ``failed`` becomes ``starting`` again once its backoff is over and no process of the last start
remains. ``draining`` is set from outside, and ends with the record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.executors.circus.health import Answer
from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.records import Process, WorkerRecord

SILENCE_FACTOR = 3.0
"""A worker that does not answer its health check is given this many times as long as one that answers an error: a
server that is busy may be silent for a while."""


class WorkerObservation(NamedTuple):
    """One observation of a worker.

    Args:
        process: Its process, or ``None`` where its start led to none.
        alive: Whether that runs.
        health: The answer to its health check; ``None`` where it was not checked.
        log: Its last log lines.
    """

    process: Process | None
    alive: bool
    health: Answer | None
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
        well = worker.crashes and age_s >= pool.restart_backoff_max_s and not worker.unhealthy
        return _watched(worker.replace(crashes=0, failing_since_s=None) if well else worker, observed, pool, now_s)
    if observed.health == "ok" or (pool.health is None and age_s >= pool.ready_after_s):
        return worker.replace(phase="ready", since_s=now_s, message="")
    if age_s >= pool.startup_timeout_s:
        message = f"not ready within startup_timeout_s ({pool.startup_timeout_s:g} s) and killed{_quoted(observed.log)}"
        return _crashed(worker, message, pool, now_s)
    return worker


def _watched(worker: WorkerRecord, observed: WorkerObservation, pool: CircusPool, now_s: float) -> WorkerRecord:
    """A ready worker after a health check.

    An error takes it out of service at once, a silence the second time: a single one may be a moment of load.
    """
    if observed.health is None:
        return worker
    if observed.health == "ok":
        return worker.replace(unanswered_since_s=None, unhealthy=False, message="")
    silent, again = observed.health == "silent", worker.unanswered_since_s is not None
    since_s = now_s if worker.unanswered_since_s is None else worker.unanswered_since_s
    what = "does not answer its health check" if silent else "answers its health check with an error"
    limit_s = pool.unhealthy_after_s * (SILENCE_FACTOR if silent else 1.0)
    if now_s - since_s >= limit_s:
        return _crashed(worker, f"{what} for {now_s - since_s:.0f} s and is killed{_quoted(observed.log)}", pool, now_s)
    unhealthy = again or not silent
    return worker.replace(unanswered_since_s=since_s, unhealthy=unhealthy, message=what if unhealthy else "")


_BECAME = {"starting": "started", "ready": "ready"}


def _quoted(log: str) -> str:
    return f"; last lines of its log:\n{log}" if log else "; its log is empty"


def _crashed(worker: WorkerRecord, message: str, pool: CircusPool, now_s: float) -> WorkerRecord:
    """Failed, to be restarted after a backoff that doubles with each crash."""
    backoff_s = min(pool.restart_backoff_max_s, pool.restart_backoff_s * 2.0 ** min(worker.crashes, 30))
    failed = _failed(worker, message, now_s, backoff_s)
    since_s = now_s if worker.failing_since_s is None else worker.failing_since_s
    return failed.replace(crashes=worker.crashes + 1, failing_since_s=since_s)


def _failed(worker: WorkerRecord, message: str, now_s: float, retry_in_s: float) -> WorkerRecord:
    return worker.replace(
        phase="failed",
        since_s=now_s,
        message=message,
        retry_at_s=now_s + retry_in_s,
        unanswered_since_s=None,
        unhealthy=False,
    )


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
    stopped = worker.replace(comes_back=False, process=None, asked=(), strays=(), kill_at_s=None)
    return _failed(stopped, "it restarts with other knobs", now_s, retry_in_s=0.0)


def drain_first(
    workers: tuple[WorkerRecord, ...], count: int, requests: Mapping[str, float]
) -> tuple[WorkerRecord, ...]:
    """The workers that a pool drains first.

    Those that failed or are to be restarted, then the unhealthy, then the starting, then the ready ones with the fewest
    ``requests`` (by name; a worker whose requests are unknown comes after the others). Of equals, the last started.
    """

    def order(place: int) -> tuple[int, float, int]:
        worker = workers[place]
        if worker.phase in {"failed", "draining"}:
            return 0, 0.0, -place
        if worker.unhealthy or worker.phase == "starting":
            return 1 if worker.unhealthy else 2, 0.0, -place
        return 3, requests.get(worker.name, math.inf), -place

    return tuple(workers[place] for place in sorted(range(len(workers)), key=order)[:count])
