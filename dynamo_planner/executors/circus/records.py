"""What the state file holds: the workers that are meant to be there, and those that are on their way out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from dynamo_planner.core.values import Frozen, FrozenMap, KnobValue, ReadOnly
from dynamo_planner.executors.circus.pool import MARK

VERSION = 1

Phase = Literal["starting", "ready", "failed", "draining"]


class Process(Frozen):
    """One process, running or ended: its pid, the clock tick of its start, and the boot that both belong to."""

    pid: int
    started_ticks: int
    boot_id: str


class Worker(Frozen):
    """One worker, from before its start until nothing is left of it.

    ``token`` names one start: it is new each time the worker is started again. ``since_s`` is when it came to its
    phase (Unix seconds). ``asked`` are the pids that SIGTERM was sent to. ``crashes`` counts ends that nobody asked
    for since it last ran well. ``knobs`` are the values that it was started with. One that ``comes_back`` is started
    again once it is drained. While the record exists its GPUs are held.
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


class ArbiterRecord(Frozen):
    """The arbiter of these workers. ``directory`` holds its sockets where this planner started it."""

    endpoint: str
    directory: str | None = None


class FailedTurn(Frozen):
    """Values with which a worker did not become ready, until when they are not tried again, and how it ended."""

    knobs: ReadOnly[str, KnobValue]
    until_s: float
    message: str


class PoolKnobs(Frozen):
    """The knobs of a pool: as configured (``given``), and as its workers are to have them (``target``).

    While workers are replaced, ``before`` is what to go back to where that fails, and ``successor`` the name of the one
    that starts in addition and takes the place of another once it is ready.
    """

    given: ReadOnly[str, KnobValue]
    target: ReadOnly[str, KnobValue]
    before: ReadOnly[str, KnobValue] | None = None
    successor: str | None = None
    failed: FailedTurn | None = None


class Records(Frozen):
    """The whole of a state file. Workers are in the order in which they were first started."""

    version: int = VERSION
    namespace: str
    planner: Process | None = None
    arbiter: ArbiterRecord | None = None
    workers: tuple[Worker, ...] = Field(default=())
    knobs: ReadOnly[str, PoolKnobs] = Field(default_factory=FrozenMap)

    def mark(self, worker: Worker) -> str:
        """The environment entry that the processes of this start of the worker have."""
        return f"{MARK}={self.namespace}/{worker.name}/{worker.token}"

    def wanted(self, pool: str) -> tuple[Worker, ...]:
        """The workers of a pool that are meant to be there; one that starts in place of another counts once it does."""
        successor = self.knobs[pool].successor if pool in self.knobs else None
        return tuple(
            worker
            for worker in self.workers
            if worker.pool == pool and (worker.phase != "draining" or worker.comes_back) and worker.name != successor
        )
