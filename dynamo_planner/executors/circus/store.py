"""The state file of a namespace: validated when read, written atomically, by one planner at a time."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.names import check_namespace
from dynamo_planner.executors.circus.pool import MARK
from dynamo_planner.executors.circus.processes import alive
from dynamo_planner.executors.circus.records import VERSION, ArbiterRecord, Process, Records, WorkerRecord

with needs_extra("circus"):
    from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)


class Store:
    """The files of one namespace in the state directory: ``NAMESPACE.json``, and ``NAMESPACE/`` with the lock, the
    notes of started processes and the logs. Everything is private to the user.
    """

    def __init__(self, state_dir: Path | str, namespace: str) -> None:
        self.namespace = check_namespace(namespace)
        self.state_dir = Path(state_dir).expanduser().absolute()
        self.file = self.state_dir / f"{namespace}.json"
        self.directory = self.state_dir / namespace
        self._new_file = self.state_dir / f"{namespace}.json.new"
        self._lock = FileLock(self.directory / "lock", mode=0o600, thread_local=False)

    def open(self) -> None:
        """Make the directories and take the namespace. Raises :class:`ExecutorError` where another planner has it, or
        where the directory cannot be written or could be written by others.
        """
        try:
            for directory in (self.state_dir, self.directory):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _check_private(directory)
            self._lock.acquire(blocking=False)
            probe = self.directory / "probe"
            probe.write_bytes(b"")
            probe.unlink()
        except Timeout:
            raise ExecutorError(self._who_has_it()) from None
        except OSError as error:
            self._lock.release()
            raise ExecutorError(
                f"state_dir: {self.state_dir} cannot be written ({error.strerror}): make it writable for you, or name "
                "another one by state_dir or DYN_LOCAL_STATE_DIR"
            ) from error

    def close(self) -> None:
        """Give the namespace back."""
        self._lock.release()

    def _who_has_it(self) -> str:
        try:
            planner = self.load().planner
        except ExecutorError:
            planner = None
        pid = f"pid {planner.pid}" if alive(planner) and planner else "pid unknown"
        return (
            f"namespace {self.namespace!r} has a planner already ({pid}, state file {self.file}): "
            "stop that one first, or choose another namespace"
        )

    def load(self) -> Records:
        """The records of the state file; empty ones where there is none. Raises :class:`ExecutorError` where it cannot
        be trusted: a fresh start would leave its workers, and their GPUs, without a planner.
        """
        try:
            _check_private(self.file)
            content = json.loads(self.file.read_bytes())
            version = content["version"]
        except FileNotFoundError:
            return Records(namespace=self.namespace)
        except OSError as error:
            raise self._distrusted(f"cannot be read ({error.strerror})") from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._distrusted(f"is not a state file: it was cut off or edited ({error})") from error
        if version != VERSION:
            raise ExecutorError(
                f"state file {self.file} has version {version!r}, and this planner reads version {VERSION}: "
                "stop its workers with the version of dynamo-planner that wrote it, or use that one"
            )
        try:
            records = Records.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise self._distrusted(f"is not a state file: {where}: {first['msg']}") from error
        if records.namespace != self.namespace:
            raise self._distrusted(f"belongs to the namespace {records.namespace!r}")
        return records

    def _distrusted(self, why: str) -> ExecutorError:
        return ExecutorError(
            f"state file {self.file} {why}: mend it, or end the processes that have {MARK}={self.namespace}/... in "
            f"their environment and then delete it, as `dynamo-planner doctor {self.namespace}` does"
        )

    def write(self, records: Records) -> None:
        """Replace the state file as a whole, durably. Raises ``OSError`` with the file unchanged."""
        try:
            with os.fdopen(os.open(self._new_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(records.model_dump_json(indent=1))
                file.flush()
                os.fsync(file.fileno())
            self._new_file.replace(self.file)
        except OSError:
            self._new_file.unlink(missing_ok=True)
            raise

    def delete(self) -> None:
        """Remove the state file and the notes of started processes, and nothing else; the logs stay."""
        self.file.unlink(missing_ok=True)
        self._new_file.unlink(missing_ok=True)
        self.keep_notes(())

    def log(self, name: str) -> Path:
        """The log file of a worker."""
        return self.directory / f"{name}.log"

    def noted(self, worker: WorkerRecord) -> Process | None:
        """The process of a worker's start, by its own note; ``None`` where the start did not come so far."""
        try:
            return Process.model_validate_json(self._note(worker).read_bytes())
        except (OSError, ValidationError):
            return None

    def forget(self, worker: WorkerRecord) -> None:
        """Remove the note of a start that is over."""
        with suppress(OSError):
            self._note(worker).unlink()

    def keep_notes(self, workers: Iterable[WorkerRecord]) -> None:
        """Remove the notes of all starts but the present ones of these workers."""
        kept = {self._note(worker) for worker in workers}
        for note in self.directory.glob("*.pid*"):
            if note not in kept:
                note.unlink(missing_ok=True)

    def _note(self, worker: WorkerRecord) -> Path:
        return self.directory / f"{worker.token}.pid"


class NotBegunError(ExecutorError):
    """An action was not begun, and nothing was changed."""


class Ledger:
    """The records in memory and in the state file, kept alike.

    Intents go through :meth:`commit` before they are begun, observations through :meth:`note`. ``records`` is replaced
    as a whole, so that it can be read from another thread at any time.
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
        self.begin(self.records.replace(**changes))

    def begin(self, records: Records) -> None:
        """Write these records as an intent. Raises :class:`NotBegunError` where they cannot be written."""
        try:
            self.store.write(records)
        except OSError as error:
            raise NotBegunError(
                f"nothing was begun: state file {self.store.file} cannot be written ({error.strerror})"
            ) from error
        self.records = self._written = records

    def note(self, workers: Iterable[WorkerRecord]) -> None:
        """Record observations. They count from now on, even if the disk takes them only later."""
        self.records = self.records.replace(workers=tuple(workers))
        if self.records == self._written:
            return
        try:
            self.store.write(self.records)
        except OSError as error:
            logger.warning("state file %s lags behind: %s", self.store.file, error.strerror)
        else:
            self._written = self.records

    def replace(self, *changed: WorkerRecord) -> tuple[WorkerRecord, ...]:
        """All workers, with these in place of those of the same name."""
        named = {worker.name: worker for worker in changed}
        return tuple(named.get(worker.name, worker) for worker in self.records.workers)

    def remember(self, arbiter: ArbiterRecord) -> None:
        """Record which arbiter the workers have or are about to have."""
        if arbiter != self.records.arbiter:
            self.commit(arbiter=arbiter)


def _check_private(path: Path) -> None:
    """Refuse a path that another user could have written: its contents say which processes to end."""
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise ExecutorError(
            f"{path} belongs to uid {status.st_uid}, not to you (uid {os.geteuid()}): choose another state_dir"
        )
    if status.st_mode & 0o022:
        raise ExecutorError(f"{path} can be written by others: chmod go-w {path}")
