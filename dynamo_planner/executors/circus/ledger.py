"""The records in memory and in the state file, kept alike."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.records import ArbiterRecord, Records, Worker
from dynamo_planner.executors.circus.store import Store

logger = logging.getLogger(__name__)


class NotBegunError(ExecutorError):
    """An action was not begun, and nothing was changed."""


class Ledger:
    """What is meant goes through :meth:`commit` before it is begun; what was seen goes through :meth:`note`.

    ``records`` is replaced as a whole, so that it can be read from another thread at any time.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.records = Records(namespace=store.namespace)
        self._written: Records | None = None

    def open(self) -> None:
        """Read what the last planner left. Raises :class:`ExecutorError` where it cannot be trusted."""
        self.records = self._written = self.store.load()

    def commit(self, **changes: Any) -> None:
        """Write an intent. Raises :class:`NotBegunError` where it cannot be written."""
        records = self.records.replace(**changes)
        try:
            self.store.write(records)
        except OSError as error:
            raise NotBegunError(
                f"nothing was begun: state file {self.store.file} cannot be written ({error.strerror})"
            ) from error
        self.records = self._written = records

    def note(self, workers: Iterable[Worker]) -> None:
        """Take down what was seen or done. It counts from now on, even if the disk takes it only later."""
        self.records = self.records.replace(workers=tuple(workers))
        if self.records == self._written:
            return
        try:
            self.store.write(self.records)
        except OSError as error:
            logger.warning("state file %s lags behind: %s", self.store.file, error.strerror)
        else:
            self._written = self.records

    def replace(self, *changed: Worker) -> tuple[Worker, ...]:
        """All workers, with these in place of those of the same name."""
        named = {worker.name: worker for worker in changed}
        return tuple(named.get(worker.name, worker) for worker in self.records.workers)

    def remember(self, arbiter: ArbiterRecord) -> None:
        """Write which arbiter the workers have or are about to have."""
        if arbiter != self.records.arbiter:
            self.commit(arbiter=arbiter)
