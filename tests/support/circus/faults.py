"""A local service under random troubles: three at random times, and after the last everything is as the policy wants.

The planner's loop, its executor and its workers are real; the loop runs in this process, so that its clock can be
stepped, its disk be full and its metrics be away. A planner is killed by leaving its executor as it is and starting
another: it has no thread that would notice.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from dynamo_planner import Observation, Planner, Snapshot, Traffic
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus import CircusExecutor
from dynamo_planner.executors.circus.store import Store
from dynamo_planner.sources import SourceError
from tests.support.circus.client import Client
from tests.support.circus.place import Place

GPUS = list(range(8))
STEP_S = 0.2
TROUBLED_S = 5.0
"""Troubles begin within this time."""

WHOLE_WITHIN_S = 75.0
"""Seconds from the end of the last trouble until the pools are as the policy wants: a clock that is set back by less
than a minute stands still for as long; a silent worker is ended after three times ``unhealthy_after_s``, which is 2."""


@dataclass
class Service:
    """One run: what is wanted, what is wrong, and the planner of now."""

    place: Place
    chance: random.Random
    wanted: dict[str, int] = field(default_factory=lambda: {"decode": 2, "prefill": 1})
    stepped_s: float = 0.0
    metrics: bool = True
    disk: bool = True
    killed: bool = False
    told: list[str] = field(default_factory=list)
    mends: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()
        self.client = Client(self.endpoints)
        self.client.start()

    def start(self) -> None:
        """A planner, the first one or the next after a kill."""
        ill = str(self.place.tmp / "ill-{name}")
        own: dict[str, Any] = {"unhealthy_after_s": 2.0, "command": (*self.place.command(drain_s=0.2), f"ill={ill}")}
        pools = {"decode": self.place.pool(gpus=2, **own), "prefill": self.place.pool(gpus=1, **own)}
        self.executor: CircusExecutor = self.place.executor(pools=pools, gpus=GPUS, clock=self.clock).start()
        self.planner = Planner(self.policy, self, self.executor, clock=self.clock)

    def endpoints(self) -> dict[str, dict[str, str]]:
        """Those of the executor of now."""
        return self.executor.endpoints()

    def clock(self) -> float:
        return time.time() + self.stepped_s

    def policy(self, snapshot: Snapshot) -> dict[str, int]:
        return self.wanted

    def observe(self, at_s: float) -> Observation:
        if not self.metrics:
            raise SourceError("the metrics are away")
        return Observation(traffic=Traffic(requests_per_s=1.0))

    def step(self) -> None:
        """Mend what has lasted long enough, one step of the loop, and what holds at any time."""
        for due_s, mend in [each for each in self.mends if each[0] <= time.monotonic()]:
            mend()
            self.mends.remove((due_s, mend))
        if self.killed:
            with suppress(ExecutorError):  # the disk may be full; a service manager tries again
                self.start()
                self.killed = False
            return
        self.planner.step()
        gpus = [gpu for info in self.executor.workers() for gpu in info.gpus]
        assert len(gpus) == len(set(gpus)), f"a GPU twice: {self.executor.workers()}"

    def is_whole(self) -> bool:
        """Whether the pools are as the policy wants, with no other process, and nothing is reported."""
        if self.killed:
            return False
        replicas = self.executor.observe()
        whole = all(replicas[name] == self.place.replicas(ready=count) for name, count in self.wanted.items())
        pids = sorted(info.pid or 0 for info in self.executor.workers())
        return whole and pids == self.place.worker_pids() and not self.executor.troubles

    def later(self, mend: Callable[[], None]) -> None:
        """Mend this trouble after a random time."""
        self.mends.append((time.monotonic() + self.chance.uniform(0.5, 4.0), mend))


def _worker_killed(service: Service) -> None:
    infos = [info for info in service.executor.workers() if info.pid]
    if infos:
        info = service.chance.choice(infos)
        service.client.hit.append((info.name, time.monotonic()))
        with suppress(ProcessLookupError):
            os.kill(info.pid or 0, signal.SIGKILL)


def _arbiter_killed(service: Service) -> None:
    with suppress(ValueError, ProcessLookupError):
        os.kill(service.place.arbiter_pid(), signal.SIGKILL)


def _planner_killed(service: Service) -> None:
    service.executor.detach()
    service.killed = True


def _ill(service: Service, how: str) -> None:
    infos = service.executor.workers()
    if infos:
        name = service.chance.choice(infos).name
        file = service.place.tmp / f"ill-{name}"
        file.write_text(how)
        service.client.hit.append((name, time.monotonic()))
        service.later(lambda: file.unlink(missing_ok=True))


def _clock_stepped(service: Service) -> None:
    service.stepped_s += service.chance.choice([3600.0, -3600.0, 45.0, -45.0])


def _metrics_away(service: Service) -> None:
    service.metrics = False
    service.later(lambda: setattr(service, "metrics", True))


def _disk_full(service: Service) -> None:
    service.disk = False
    service.later(lambda: setattr(service, "disk", True))


def _load_moves(service: Service) -> None:
    service.wanted = {"decode": service.chance.randint(1, 3), "prefill": service.chance.randint(1, 2)}


TROUBLES: dict[str, Callable[[Service], None]] = {
    "a worker is killed": _worker_killed,
    "the arbiter is killed": _arbiter_killed,
    "the planner is killed": _planner_killed,
    "an engine is dead": lambda service: _ill(service, "503"),
    "an engine is silent": lambda service: _ill(service, "silent"),
    "the clock is stepped": _clock_stepped,
    "the metrics are away": _metrics_away,
    "the disk is full": _disk_full,
    "the load moves": _load_moves,
}


def campaign(place: Place, seed: int) -> tuple[list[str], float]:
    """One run: its troubles with their times, and the seconds until all was whole again after the last of them.

    Raises :class:`AssertionError` where it does not come to that, and after the end nothing is left.
    """
    chance = random.Random(seed)
    plan = sorted((chance.uniform(0.0, TROUBLED_S), name) for name in chance.sample(sorted(TROUBLES), 3))
    services: list[Service] = []
    write = Store.write

    def written(store: Store, records: Any) -> None:
        if services and not services[0].disk:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(store, records)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "write", written)
        service = Service(place, chance)
        services.append(service)
        began_s = time.monotonic()
        todo = list(plan)
        while todo or service.mends or service.killed:
            while todo and todo[0][0] <= time.monotonic() - began_s:
                TROUBLES[todo.pop(0)[1]](service)
            service.step()
            time.sleep(STEP_S)
        ended_s = time.monotonic()
        while not service.is_whole():
            assert time.monotonic() - ended_s < WHOLE_WITHIN_S, f"{plan}: {service.executor.workers()}"
            service.step()
            time.sleep(STEP_S)
        took_s = time.monotonic() - ended_s
        service.client.stop()
        assert service.client.sent > 5, f"{service.client.sent} requests: {plan}"
        assert service.client.unexcused() == [], f"requests were lost that could have been kept: {plan}"
        service.executor.close()
    assert place.processes() == {}, f"left: {place.processes()}: {plan}"
    assert not place.file.exists()
    return [f"{name} at {at_s:.1f} s" for at_s, name in plan], took_s
