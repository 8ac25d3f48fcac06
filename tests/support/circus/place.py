"""A state directory, an arbiter and a namespace for each test, and an end of everything that it started."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dynamo_planner import PoolSpec, Replicas
from dynamo_planner.executors.circus import CircusExecutor, CircusPool

T = TypeVar("T")

WORKER = Path(__file__).with_name("tiny_worker.py")


@dataclass
class Place:
    """Where one test runs its planners."""

    namespace: str
    state_dir: Path
    tmp: Path
    executors: list[CircusExecutor] = field(default_factory=list)

    @staticmethod
    def until(done: Callable[[], T], within_s: float = 15.0) -> T:
        """Ask again and again until the answer is true, and return it."""
        deadline = time.monotonic() + within_s
        while not (answer := done()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s"
            time.sleep(0.03)
        return answer

    @staticmethod
    def command(**behaviour: Any) -> tuple[str, ...]:
        """The command of a tiny worker that behaves so."""
        extra = tuple(f"{name}={value}" for name, value in behaviour.items())
        return (sys.executable, "-I", "-S", str(WORKER), "port={port}", *extra)

    def pool(self, *, replicas: int = 1, gpus: int = 0, **given: Any) -> CircusPool:
        """A pool of tiny workers; what is no field of a pool is how they behave."""
        fields = {name: given.pop(name) for name in list(given) if name in CircusPool.model_fields}
        spec = PoolSpec(role="decode", gpus=gpus, min_replicas=replicas)
        command = self.command(**given)
        defaults = {"spec": spec, "command": command, "graceful_timeout_s": 20.0, "restart_backoff_s": 0.3}
        return CircusPool(**{**defaults, **fields})

    def settled(self, executor: CircusExecutor, **targets: int) -> None:
        """Wait until these pools have these many ready workers, and nothing else."""

        def reached() -> bool:
            replicas = executor.observe()
            return all(replicas[name] == self.replicas(ready=count) for name, count in targets.items())

        self.until(reached)

    @staticmethod
    def replicas(**given: Any) -> Replicas:
        """Replicas of which it is known since when they start."""
        return Replicas(**{"starting_since_s": (), **given})

    @property
    def file(self) -> Path:
        return self.state_dir / f"{self.namespace}.json"

    def executor(self, suffix: str = "", /, *, pools: dict[str, CircusPool], **given: Any) -> CircusExecutor:
        """An executor of this place, not yet started; of a namespace beside it where there is a suffix."""
        executor = CircusExecutor(self.namespace + suffix, pools, **{"state_dir": self.state_dir, **given})
        self.executors.append(executor)
        return executor

    def processes(self) -> dict[int, str]:
        """Everything that runs because of this test, by pid: workers by their mark, circusd by its configuration."""
        found = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                environment = (entry / "environ").read_bytes() if entry.name.isdecimal() else b""
                command = (entry / "cmdline").read_bytes() if environment else b""
                if f"={self.namespace}".encode() in environment or str(self.tmp).encode() in command:
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z" and int(entry.name) != os.getpid():
                        found[int(entry.name)] = command.replace(b"\0", b" ").decode()
        return found

    @staticmethod
    def environ(pid: int) -> list[str]:
        """The environment of a process."""
        return Path(f"/proc/{pid}/environ").read_bytes().decode().rstrip("\0").split("\0")

    def worker_pids(self) -> list[int]:
        """The pids of tiny workers, their children not among them."""
        return sorted(pid for pid, command in self.processes().items() if str(WORKER) in command)

    def arbiter_pid(self) -> int:
        """The pid of circusd."""
        (pid,) = [pid for pid, command in self.processes().items() if "circus.circusd" in command]
        return pid


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A place of the test's own; whatever still runs of it at the end is killed."""
    tmp = Path(tempfile.mkdtemp(prefix="dp"))  # not tmp_path: a unix socket's path must be short
    monkeypatch.setattr(tempfile, "tempdir", str(tmp))
    state_dir = tmp_path / "state"
    here = Place(f"t{secrets.token_hex(4)}", state_dir, tmp)
    yield here
    for executor in here.executors:
        executor.detach()
    for _ in range(3):
        for pid in here.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    shutil.rmtree(tmp, ignore_errors=True)
