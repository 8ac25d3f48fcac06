"""What a status command shows of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from dynamo_planner.core.values import Frozen
from dynamo_planner.executors.circus.records import Worker


class WorkerInfo(Frozen):
    """One worker: ``state`` since ``since_s`` (Unix seconds), and why, where it failed."""

    name: str
    pool: str
    state: Literal["starting", "ready", "draining", "failed"]
    since_s: float
    pid: int | None
    port: int | None
    gpus: tuple[int, ...]
    log: Path
    message: str = ""

    @classmethod
    def of(cls, worker: Worker, log: Path) -> WorkerInfo:
        """What there is to say of a worker."""
        return cls(
            name=worker.name,
            pool=worker.pool,
            state=worker.phase,
            since_s=worker.since_s,
            pid=worker.process.pid if worker.process else None,
            port=worker.port,
            gpus=worker.gpus,
            log=log,
            message=worker.message,
        )
