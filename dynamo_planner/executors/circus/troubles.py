"""What keeps local workers from starting, serving or ending: the reasons of an executor, and since when.

==================  ===================================================================================
code                what it stands for
==================  ===================================================================================
Crashing            a worker ended without a request or did not become ready, and is not ready again
Unhealthy           a ready worker does not answer its health check, and gets no requests
TerminationStuck    a process is still there although it was killed
RolloutInProgress   workers are replaced for other knobs
==================  ===================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator

from dynamo_planner.core.decision import Reason
from dynamo_planner.executors.circus.clock import SteadyClock
from dynamo_planner.executors.circus.records import Records, WorkerRecord

UNKILLABLE_AFTER_S = 10.0
"""A process that is still there this long after SIGKILL outlives it."""


def troubles(records: Records, clock: SteadyClock) -> tuple[Reason, ...]:
    """One reason for each pool and code: how many workers, since when the first, and the words about that one."""
    now_s = clock()
    found: dict[tuple[str, str], list[tuple[float, WorkerRecord]]] = {}
    for worker in records.workers:
        code, since_s = _trouble(worker, now_s)
        if code:
            found.setdefault((worker.pool, code), []).append((since_s, worker))
    reasons = []
    for (pool, code), workers in found.items():
        since_s, first = min(workers, key=lambda each: each[0])
        words = first.message.partition("\n")[0] or "it outlives SIGKILL: find what holds it"
        many = f"{len(workers)} worker{'s' if len(workers) > 1 else ''} for {max(0.0, now_s - since_s):.0f} s"
        values = {"began_at_s": clock.to_unix(since_s), "replicas": len(workers)}
        reasons.append(Reason(code=code, pool=pool, message=f"{many}: {first.name} {words}", values=values))
    return (*reasons, *_rollouts(records, clock, now_s))


def _rollouts(records: Records, clock: SteadyClock, now_s: float) -> Iterator[Reason]:
    for pool, knobs in records.knobs.items():
        if knobs.before is not None and knobs.since_s is not None:
            message = f"its workers are replaced for {dict(knobs.target)} for {now_s - knobs.since_s:.0f} s"
            values = {"began_at_s": clock.to_unix(knobs.since_s)}
            yield Reason(code="RolloutInProgress", pool=pool, message=message, values=values)


def _trouble(worker: WorkerRecord, now_s: float) -> tuple[str, float]:
    """The code of what is wrong with a worker, and since when; empty where nothing is."""
    if worker.phase == "ready" and worker.unhealthy:
        return "Unhealthy", worker.unanswered_since_s or worker.since_s
    if worker.phase in {"failed", "starting"} and worker.crashes:
        return "Crashing", worker.failing_since_s or worker.since_s
    if worker.phase == "draining" and worker.kill_at_s is not None and now_s > worker.kill_at_s + UNKILLABLE_AFTER_S:
        return "TerminationStuck", worker.kill_at_s
    return "", now_s
