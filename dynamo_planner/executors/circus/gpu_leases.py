"""Who holds which GPU: each is given to one worker at a time, across all namespaces of a state directory."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.processes import alive, descendants
from dynamo_planner.executors.circus.records import Records, Worker
from dynamo_planner.executors.circus.store import Store

with needs_extra("circus"):
    from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)


class Grants:
    """Gives out ``gpus``. A GPU is held while a record of this namespace has it, and so until nothing is left of the
    worker that had it; and while a living planner or worker of another namespace has it.
    """

    def __init__(self, gpus: Sequence[int], store: Store) -> None:
        self.gpus = tuple(gpus)
        self._store = store
        self._lock = FileLock(store.state_dir / "gpus.lock", mode=0o600, thread_local=False)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other namespaces from choosing, from before one looks what is free to after one has written it down."""
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

    def free(self, workers: Iterable[Worker]) -> list[int]:
        """The GPUs that nobody holds, where these are the workers of this namespace."""
        held = {gpu for worker in workers for gpu in worker.gpus} | self._held_elsewhere()
        return [gpu for gpu in self.gpus if gpu not in held]

    def again(self, worker: Worker, count: int, workers: Iterable[Worker]) -> tuple[int, ...] | None:
        """The GPUs for another start of a worker: the ones that it had where it still can; ``None`` if there are not
        enough.
        """
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
        if worker.gpus and (planned or (process and descendants(process, records.mark(worker)))):
            yield from worker.gpus
