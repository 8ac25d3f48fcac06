"""How a worker comes from one phase to the next: what was seen of it in, its new record out. No clock and no I/O.

``starting`` becomes ``ready`` when it answers, and ``failed`` when it ends or takes too long; ``ready`` becomes
``failed`` when it ends. ``failed`` becomes ``starting`` again when its time has come and nothing is left of the last
start. ``draining`` comes from outside, and ends with the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.records import Process, Worker


class Seen(NamedTuple):
    """What was seen of a worker: its process, whether that runs, whether it answered, and its last log lines."""

    process: Process | None
    alive: bool
    healthy: bool
    log: str


def advance(worker: Worker, seen: Seen, pool: CircusPool, now_s: float) -> Worker:
    """The worker after what was seen of it."""
    worker = worker.replace(process=seen.process)
    if worker.phase not in {"starting", "ready"}:
        return worker
    age_s = now_s - worker.since_s
    if seen.process is None:
        return _failed(worker, "its start was interrupted", now_s, retry_in_s=0.0)
    if not seen.alive:
        verb = "ended before it was ready," if worker.phase == "starting" else "ended unasked,"
        return _crashed(
            worker, f"{verb} {age_s:.1f} s after it was {_BECAME[worker.phase]}{_quoted(seen.log)}", pool, now_s
        )
    if worker.phase == "ready":
        well = worker.crashes and age_s >= pool.restart_backoff_max_s
        return worker.replace(crashes=0) if well else worker
    if seen.healthy or (pool.health is None and age_s >= pool.ready_after_s):
        return worker.replace(phase="ready", since_s=now_s, message="")
    if age_s >= pool.startup_timeout_s:
        message = f"not ready within startup_timeout_s ({pool.startup_timeout_s:g} s) and killed{_quoted(seen.log)}"
        return _crashed(worker, message, pool, now_s)
    return worker


_BECAME = {"starting": "started", "ready": "ready"}


def _quoted(log: str) -> str:
    return f"; last lines of its log:\n{log}" if log else "; its log is empty"


def _crashed(worker: Worker, message: str, pool: CircusPool, now_s: float) -> Worker:
    """Failed, to be started again after a time that doubles with each end that nobody asked for."""
    backoff_s = min(pool.restart_backoff_max_s, pool.restart_backoff_s * 2.0 ** min(worker.crashes, 30))
    failed = _failed(worker, message, now_s, backoff_s)
    return failed.replace(crashes=worker.crashes + 1)


def _failed(worker: Worker, message: str, now_s: float, retry_in_s: float) -> Worker:
    return worker.replace(phase="failed", since_s=now_s, message=message, retry_at_s=now_s + retry_in_s)


def unstarted(worker: Worker, message: str, pool: CircusPool, now_s: float) -> Worker:
    """A worker that the arbiter could not be made to start again."""
    return _crashed(worker, message, pool, now_s)


def due(worker: Worker, now_s: float) -> bool:
    """Whether a failed worker is to be started again now. While something is left of it, it is not."""
    return worker.phase == "failed" and worker.process is None and now_s >= (worker.retry_at_s or 0.0)


def restarted(
    worker: Worker,
    token: str,
    port: int | None,
    command: tuple[str, ...],
    knobs: Mapping[str, KnobValue],
    now_s: float,
) -> Worker:
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
    worker: Worker, now_s: float, graceful_timeout_s: float | None = None, *, comes_back: bool = False
) -> Worker:
    """The worker on its way out, to be killed after its graceful timeout, or after the given one.

    What is left of a failed one has nothing to finish, and one that is on its way goes on.
    """
    if worker.phase == "draining" and graceful_timeout_s is None:
        return worker.replace(comes_back=comes_back)
    timeout_s = worker.graceful_timeout_s if graceful_timeout_s is None else graceful_timeout_s
    timeout_s = 0.0 if worker.phase == "failed" else timeout_s
    return worker.replace(phase="draining", since_s=now_s, kill_at_s=now_s + timeout_s, comes_back=comes_back)


def back(worker: Worker, now_s: float) -> Worker:
    """A drained worker that comes back: to be started again at once."""
    stopped = worker.replace(comes_back=False, process=None, asked=(), kill_at_s=None)
    return _failed(stopped, "it restarts with other knobs", now_s, retry_in_s=0.0)


def leave_first(workers: tuple[Worker, ...], count: int) -> tuple[Worker, ...]:
    """Which workers a pool gives up: those that are failed or on their way to come back, then the last started."""
    gone = [worker for worker in workers if worker.phase in {"failed", "draining"}]
    others = [worker for worker in workers if worker.phase not in {"failed", "draining"}]
    return (*reversed(gone), *reversed(others))[:count]
