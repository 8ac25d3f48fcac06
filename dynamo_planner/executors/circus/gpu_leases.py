"""Leases of GPUs: each belongs to one worker at a time, across all namespaces of a state directory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.processes import alive, descendants
from dynamo_planner.executors.circus.records import Records, WorkerRecord
from dynamo_planner.executors.circus.store import Store

with needs_extra("circus"):
    from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)


class GpuLeases:
    """Assigns GPUs to workers.

    A GPU is leased while a record of this namespace has it, and so until no process of its worker remains; and while a
    living planner or worker of another namespace has it.

    Args:
        gpus: Numbers of the GPUs to assign.
        store: The state files, of which those of other namespaces are read.
    """

    def __init__(self, gpus: Sequence[int], store: Store) -> None:
        self.gpus = tuple(gpus)
        self._store = store
        self._lock = FileLock(store.state_dir / "gpus.lock", mode=0o600, thread_local=False)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the choice of GPUs against other namespaces, from reading which are free to recording the lease."""
        if not self.gpus:
            yield
            return
        try:
            self._lock.acquire(timeout=5)
        except Timeout as error:
            raise ExecutorError(f"{self._lock.lock_file} is held by another planner for more than 5 s") from error
        try:
            yield
        finally:
            self._lock.release()

    def free(self, workers: Iterable[WorkerRecord]) -> list[int]:
        """The GPUs without a lease, given the workers of this namespace."""
        held = {gpu for worker in workers for gpu in worker.gpus} | self._held_elsewhere()
        return [gpu for gpu in self.gpus if gpu not in held]

    def renew(self, worker: WorkerRecord, count: int, workers: Iterable[WorkerRecord]) -> tuple[int, ...] | None:
        """The GPUs for another start of a worker: those that it had, if they are free; ``None`` if too few are."""
        free = self.free(other for other in workers if other.name != worker.name)
        if len(worker.gpus) == count and set(worker.gpus) <= set(free):
            return worker.gpus
        return tuple(free[:count]) if len(free) >= count else None

    def _held_elsewhere(self) -> set[int]:
        held: set[int] = set()
        for path in self._store.state_dir.glob("*.json"):
            if path == self._store.file:
                continue
            try:
                store = Store(self._store.state_dir, path.stem)
                held.update(_held_by(store.load(), store))
            except (ExecutorError, ValueError) as error:
                logger.debug("%s is not counted: %s", path, error)
        return held


def _held_by(records: Records, store: Store) -> Iterator[int]:
    planned = alive(records.planner)
    for worker in records.workers:
        process = worker.process or store.noted(worker)
        if worker.gpus and (planned or (process and descendants(process, records.mark(worker), worker.strays))):
            yield from worker.gpus
