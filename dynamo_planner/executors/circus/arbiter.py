"""The arbiter that starts and reaps workers: a running one, or one that this planner starts on unix sockets."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus import launch
from dynamo_planner.executors.circus.client import ArbiterClient, ArbiterError, ArbiterSilentError
from dynamo_planner.executors.circus.processes import alive, find_by_arguments, identify, send
from dynamo_planner.executors.circus.records import ArbiterRecord, Process, WorkerRecord
from dynamo_planner.executors.circus.store import Store

logger = logging.getLogger(__name__)

STARTS_WITHIN_S = 15.0
_CIRCUSD_INHERITS = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH")
_SOCKET_PATH_MAX = 100  # a unix socket's path has 107 bytes at most
_LOOPBACK = re.compile(r"ipc:///.+|tcp://(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+")

_PROGRAM = """\
import sys
from circus import circusd, sighandler
sighandler.SysHandler.handle_hup = lambda handler: None
del sys.argv[0]
circusd.main()
"""
"""circusd without SIGHUP, which ``pkill -HUP`` and log rotation send: it would restart all workers at once."""

_CONFIG = """\
[circus]
endpoint = {endpoint}
pubsub_endpoint = ipc://{directory}/events
check_delay = 1
statsd = False
loglevel = WARNING
logoutput = {log}
"""


def check_endpoint(endpoint: str) -> str:
    """The endpoint itself; raises :class:`ValueError` where it is not one of this machine."""
    if not _LOOPBACK.fullmatch(endpoint):
        raise ValueError(f"endpoint {endpoint!r} must be ipc:///path/of/a/socket or tcp://127.0.0.1:port")
    return endpoint


class Arbiter:
    """One arbiter. ``remember`` is called with its record before it starts, so that it is never lost."""

    def __init__(self, endpoint: str | None, store: Store, remember: Callable[[ArbiterRecord], None]) -> None:
        self._given = endpoint
        self._store = store
        self._remember = remember
        self._record: ArbiterRecord | None = None
        self._process: Process | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self.client = ArbiterClient(endpoint or "")

    def open(self, last: ArbiterRecord | None) -> None:
        """Connect to the given arbiter, or to the one that was started for this namespace before, or start one.

        Raises :class:`ExecutorError` where it cannot be reached.
        """
        if self._given is not None:
            self._connect(ArbiterRecord(endpoint=self._given))
            self.client.call("list")
            self._dismiss(last)
            self._remember(ArbiterRecord(endpoint=self._given))
        elif last is not None and last.directory is not None:
            self._take_over(last, last.directory)
        else:
            self._start()

    def _connect(self, record: ArbiterRecord) -> None:
        path = record.endpoint.removeprefix("ipc://")
        if record.directory is None and path != record.endpoint and not Path(path).is_socket():
            raise ExecutorError(
                f"endpoint: no arbiter listens at {record.endpoint}: start circusd, or name no endpoint"
            )
        self.client.close()
        self.client = ArbiterClient(record.endpoint)
        self._record = record

    def _take_over(self, record: ArbiterRecord, directory: str) -> None:
        self._process = _circusd(directory)
        if self._process is not None:
            self._connect(record)
            if self._answers():
                return
            logger.warning("the arbiter with pid %d does not answer and is replaced", self._process.pid)
        self._dismiss(record)
        self._start()

    def _dismiss(self, last: ArbiterRecord | None) -> None:
        """End an arbiter that was started for this namespace; by force, as its workers are to live on."""
        if last is not None and last.directory is not None:
            process = _circusd(last.directory)
            if process is not None:
                send(process, signal.SIGKILL)
            shutil.rmtree(last.directory, ignore_errors=True)

    def _start(self) -> None:
        directory = Path(tempfile.gettempdir(), f"dynamo-planner-{secrets.token_hex(6)}")
        record = ArbiterRecord(endpoint=f"ipc://{directory}/arbiter", directory=str(directory))
        if len(os.fsencode(directory / "arbiter")) > _SOCKET_PATH_MAX:
            raise ExecutorError(
                f"TMPDIR: a unix socket's path cannot be as long as {directory}/arbiter: set a shorter one"
            )
        self._remember(record)
        self._record, self._process, self._child = (
            record,
            None,
            None,
        )  # from here on there may be one, whatever interrupts this
        try:
            directory.mkdir(mode=0o700)
        except OSError as error:
            raise ExecutorError(f"TMPDIR: {directory} cannot be made ({error.strerror}): name another one") from error
        log = self._store.log("circusd")
        config = directory / "circus.ini"
        config.write_text(_CONFIG.format(endpoint=record.endpoint, directory=directory, log=log))
        kept = {name: os.environ[name] for name in _CIRCUSD_INHERITS if name in os.environ}
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
            self._child = subprocess.Popen(  # noqa: S603 - this interpreter and a file written here
                [sys.executable, "-P", "-c", _PROGRAM, "circus.circusd", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=kept,
                cwd=directory,
                start_new_session=True,
            )
        self._process = identify(self._child.pid)
        self._connect(record)
        if not self._answers():
            raise ExecutorError(f"circusd did not come up within {STARTS_WITHIN_S:g} s: see {log}")

    def _answers(self) -> bool:
        """Whether it answers in time; the wait ends when its process does, as after a command to quit."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < deadline and not self.gone():
            with suppress(ArbiterSilentError):
                self.client.call("list", timeout_s=0.5)
                return True
        return False

    def gone(self) -> bool:
        """Whether an arbiter that this planner started has ended."""
        if self._record is None or self._record.directory is None:
            return False
        return self._child.poll() is not None if self._child is not None else not alive(self._process)

    def ready(self) -> ArbiterClient:
        """The connection to a running arbiter; one that this planner started and that ended is restarted."""
        if self.gone() and self._record is not None and self._record.directory is not None:
            logger.warning("the arbiter of namespace %s has ended and is started anew", self._store.namespace)
            shutil.rmtree(self._record.directory, ignore_errors=True)
            self._start()
        return self.client

    def names(self) -> set[str]:
        """The names of all watchers, in lower case."""
        return set(self.ready().call("list").get("watchers", ()))

    def add(self, worker: WorkerRecord, environment: dict[str, str]) -> Process | None:
        """Start a worker; returns its process, or ``None`` where the arbiter could not start it.

        Circus does not restart it, since its retries have no backoff: the supervisor does.
        """
        answer = self.ready().call(
            "add",
            name=worker.name,
            cmd=f'"{sys.executable}"',
            args=[
                "-I",
                "-S",
                launch.__file__,
                str(self._store.file),
                str(self._store.directory),
                worker.name,
                worker.token,
            ],
            options={
                "env": {launch.ENVIRONMENT: json.dumps(environment)},
                "copy_env": False,
                "working_dir": str(self._store.directory),
                "respawn": False,
                "max_retry": 1,
                "graceful_timeout": worker.graceful_timeout_s,
            },
            start=True,
            waiting=True,
        )
        started = answer.get("started", ())
        return identify(started[0]) if started else None

    def remove(self, name: str) -> None:
        """Remove a watcher whose process has ended; one that does not exist is fine."""
        if self.gone():
            return
        try:
            self.client.call("rm", name=name, nostop=True, waiting=True, timeout_s=2.0)
        except ArbiterSilentError:
            raise
        except ArbiterError as error:
            if "not found" not in str(error):
                raise

    def stale_watchers(self, workers: set[str]) -> list[str]:
        """Watchers that were added for this state file and belong to none of these workers."""
        prefix, kept = f"{self._store.namespace}_".lower(), {name.lower() for name in workers}
        return [name for name in self.names() if name.startswith(prefix) and name not in kept and self._is_ours(name)]

    def _is_ours(self, name: str) -> bool:
        options: dict[str, Any] = self.client.call("options", name=name).get("options", {})
        return str(self._store.file) in (options.get("args") or ())

    def quit(self) -> None:
        """End the arbiter if this planner started it, and remove its directory."""
        if self._record is not None and self._record.directory is not None:
            self._process = self._process or _circusd(self._record.directory)
            if self.client.endpoint == self._record.endpoint:
                with suppress(ArbiterError):
                    self.client.call("quit", waiting=True, timeout_s=2.0)
            elif self._process is not None:
                send(self._process, signal.SIGTERM)
            self._end()
            shutil.rmtree(self._record.directory, ignore_errors=True)
        self.close()

    def _end(self) -> None:
        for signum in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + 5.0
            while not self.gone() and time.monotonic() < deadline:
                time.sleep(0.02)
            if not self.gone() and self._child is not None:
                self._child.send_signal(signum)
            elif not self.gone() and self._process is not None:
                send(self._process, signum)
        if self._child is not None:
            self._child.wait()

    def close(self) -> None:
        """Drop the connection."""
        self.client.close()


def _circusd(directory: str) -> Process | None:
    return find_by_arguments("circus.circusd", f"{directory}/circus.ini")
