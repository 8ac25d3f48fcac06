"""Records of the state file: processes, workers, their arbiter, and the knobs of pools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field

from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.core.values import Frozen, FrozenMap, KnobValue, ReadOnly
from dynamo_planner.executors.circus.pool import MARK

VERSION = 1

Phase = Literal["starting", "ready", "failed", "draining"]


class Process(Frozen):
    """One process, running or ended: its pid, the clock tick of its start, and the boot that both belong to."""

    pid: int
    started_ticks: int
    boot_id: str


class WorkerRecord(Frozen):
    """One worker, from before its start until no process of it remains. While the record exists its GPUs are leased.

    Args:
        name: Its name, which is that of its watcher.
        pool: The pool that it belongs to.
        token: Identifies one start: it is new for each restart.
        phase: ``starting``, ``ready``, ``failed`` or ``draining``.
        since_s: When it came to its phase (Unix seconds).
        command: Its command line.
        working_dir: Where it runs.
        port: Its port, if it has one.
        gpus: Numbers of its GPUs.
        process: Its process, once that is known.
        graceful_timeout_s: Seconds from SIGTERM to SIGKILL.
        kill_at_s: When it is killed, if it drains (Unix seconds).
        asked: The pids that SIGTERM was sent to (named so in the state file).
        crashes: Number of ends without a request, since it last ran well (0).
        retry_at_s: When it is restarted, if it failed (Unix seconds).
        message: Why it failed.
        knobs: The values that it was started with.
        comes_back: Whether it is restarted once it is drained (false).
        unanswered_since_s: Since when its health check fails, if it is ready (Unix seconds).
        failing_since_s: Since when it has ended without a request, again and again (Unix seconds).
        unhealthy: Whether it is ready and out of service, because its health check fails (false).
        strays: Descendants of its process that left its session, as they were seen last.
    """

    name: str
    pool: str
    token: str
    phase: Phase
    since_s: float
    command: tuple[str, ...]
    working_dir: str
    port: int | None = None
    gpus: tuple[int, ...] = ()
    process: Process | None = None
    graceful_timeout_s: float
    kill_at_s: float | None = None
    asked: tuple[int, ...] = ()
    crashes: int = 0
    retry_at_s: float | None = None
    message: str = ""
    knobs: ReadOnly[str, KnobValue] = Field(default_factory=FrozenMap)
    comes_back: bool = False
    failing_since_s: float | None = None
    unanswered_since_s: float | None = None
    unhealthy: bool = False
    strays: tuple[Process, ...] = ()

    @property
    def serves(self) -> bool:
        """Whether it gets requests."""
        return self.phase == "ready" and not self.unhealthy


class ArbiterRecord(Frozen):
    """The arbiter of these workers; ``directory`` holds its sockets if this planner started it."""

    endpoint: str
    directory: str | None = None


class FailedRollout(Frozen):
    """Values with which a worker did not become ready, until when they are not tried again, and how it ended.

    ``until_s`` is in Unix seconds.
    """

    knobs: ReadOnly[str, KnobValue]
    until_s: float
    message: str


class PoolKnobs(Frozen):
    """The knobs of a pool.

    Args:
        given: Values of the configuration.
        target: Values that its workers are to have.
        before: While workers are replaced, the values to roll back to.
        since_s: While workers are replaced, since when (Unix seconds).
        successor: While workers are replaced, the name of the one that starts in place of another.
        failed: The last values that failed, and until when they are not tried again.
    """

    given: ReadOnly[str, KnobValue]
    target: ReadOnly[str, KnobValue]
    before: ReadOnly[str, KnobValue] | None = None
    since_s: float | None = None
    successor: str | None = None
    failed: FailedRollout | None = None


class Epoch(Frozen):
    """What makes the times of the records Unix seconds: add ``offset_s`` to the seconds since the boot."""

    boot_id: str
    offset_s: float


class Records(Frozen):
    """The contents of a state file.

    Args:
        version: Version of this layout.
        namespace: Name of this set of pools.
        planner: The planner that has the namespace.
        arbiter: The arbiter of the workers.
        workers: The workers, in the order in which they were first started.
        knobs: The knobs of each pool.
        epoch: The clock of the times in these records.
        unwritten: What the planner says of each file of its own that it could not write in its last step.
    """

    version: int = VERSION
    namespace: str
    planner: Process | None = None
    arbiter: ArbiterRecord | None = None
    workers: tuple[WorkerRecord, ...] = Field(default=())
    knobs: ReadOnly[str, PoolKnobs] = Field(default_factory=FrozenMap)
    epoch: Epoch | None = None
    unwritten: tuple[str, ...] = ()

    def mark(self, worker: WorkerRecord) -> str:
        """The environment entry of the processes of this start of a worker."""
        return f"{MARK}={self.namespace}/{worker.name}/{worker.token}"

    def wanted(self, pool: str) -> tuple[WorkerRecord, ...]:
        """The workers of a pool that count towards its target; a successor counts once it has replaced another."""
        successor = self.knobs[pool].successor if pool in self.knobs else None
        return tuple(
            worker
            for worker in self.workers
            if worker.pool == pool and (worker.phase != "draining" or worker.comes_back) and worker.name != successor
        )

    def not_after(self, now_s: float) -> Records:
        """These records with nothing left that is waited for, and nothing that began after now."""

        def ended(worker: WorkerRecord) -> WorkerRecord:
            due = {
                name: now_s
                for name in ("kill_at_s", "retry_at_s", "failing_since_s")
                if getattr(worker, name) is not None
            }
            return worker.replace(since_s=min(worker.since_s, now_s), **due)

        knobs = FrozenMap(
            {
                name: each.replace(failed=None, since_s=None if each.since_s is None else min(each.since_s, now_s))
                for name, each in self.knobs.items()
            }
        )
        return self.replace(workers=tuple(ended(worker) for worker in self.workers), knobs=knobs)

    def replicas(self, pool: str, to_unix: Callable[[float], float]) -> Replicas:
        """The replicas of a pool, with the times of their starts by the clock of the system."""
        workers = [worker for worker in self.workers if worker.pool == pool]
        since_s = sorted(to_unix(worker.since_s) for worker in workers if worker.phase == "starting")
        return Replicas(
            ready=sum(worker.serves for worker in workers),
            starting=len(since_s),
            starting_since_s=tuple(since_s),
            failed=sum(
                worker.phase == "failed" or (worker.phase == "ready" and worker.unhealthy) for worker in workers
            ),
            draining=sum(worker.phase == "draining" for worker in workers),
            target=len(self.wanted(pool)),
        )


class WorkerInfo(Frozen):
    """One worker as users see it: ``state`` since ``since_s`` (Unix seconds), and why, where it failed or is unhealthy.

    An unhealthy one is ready since ``since_s``.
    """

    name: str
    pool: str
    state: Literal["starting", "ready", "unhealthy", "draining", "failed"]
    since_s: float
    pid: int | None
    port: int | None
    gpus: tuple[int, ...]
    log: Path
    message: str = ""

    @classmethod
    def of(cls, worker: WorkerRecord, log: Path, to_unix: Callable[[float], float]) -> WorkerInfo:
        """The public view of a record, with its time by the clock of the system."""
        return cls(
            name=worker.name,
            pool=worker.pool,
            state="unhealthy" if worker.phase == "ready" and worker.unhealthy else worker.phase,
            since_s=to_unix(worker.since_s),
            pid=worker.process.pid if worker.process else None,
            port=worker.port,
            gpus=worker.gpus,
            log=log,
            message=worker.message,
        )
