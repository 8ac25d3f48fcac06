"""Starting workers: what is written down of a start, and handing it to the arbiter."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterable, Mapping

from dynamo_planner.core.values import KnobValue
from dynamo_planner.executors.circus import lifecycle, logs
from dynamo_planner.executors.circus.arbiter import Arbiter
from dynamo_planner.executors.circus.client import ArbiterError, ArbiterSilentError
from dynamo_planner.executors.circus.ledger import Ledger
from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.ports import free_port
from dynamo_planner.executors.circus.records import Worker

_REMOVE_AGAIN_S = 5.0  # not at every housekeeping, which would wait for a silent arbiter each time

logger = logging.getLogger(__name__)


class Starter:
    """Starts workers of these pools, and has their watchers forgotten afterwards."""

    def __init__(self, pools: Mapping[str, CircusPool], ledger: Ledger, arbiter: Arbiter) -> None:
        self._pools = pools
        self._ledger = ledger
        self._store = ledger.store
        self._arbiter = arbiter
        self._stale: set[str] = set()
        self._remove_after = 0.0

    def why_not_runnable(self, pool: str, name: str) -> str | None:
        """Why no worker of a pool can be started, or ``None``."""
        values = self._values(name, pool, None, (), self._pools[pool].knobs)
        return self._pools[pool].why_not_runnable(values, os.environ)

    def _values(
        self, name: str, pool: str, port: int | None, gpus: tuple[int, ...], knobs: Mapping[str, KnobValue]
    ) -> dict[str, str]:
        return {
            **{knob: str(value) for knob, value in knobs.items()},
            "port": str(port),
            "name": name,
            "namespace": self._store.namespace,
            "pool": pool,
            "gpus": ",".join(map(str, gpus)),
        }

    def new(self, name: str, pool: str, gpus: tuple[int, ...], others: Iterable[Worker], now_s: float) -> Worker:
        """The record of a new worker, to be written before it is started, as those of ``others`` are."""
        about = self._pools[pool]
        worker = Worker(
            name=name,
            pool=pool,
            token="",
            phase="starting",
            since_s=now_s,
            command=(),
            working_dir=str(about.directory()),
            gpus=gpus,
            graceful_timeout_s=about.graceful_timeout_s,
        )
        return self.again(worker, others, now_s)

    def again(self, worker: Worker, others: Iterable[Worker], now_s: float) -> Worker:
        """The record of another start of a worker, with a port and a token of its own."""
        pool = self._pools[worker.pool]
        taken = {other.port for other in (*self._ledger.records.workers, *others) if other.port}
        port = free_port(taken) if pool.needs_port else None
        knobs = self._ledger.records.knobs[worker.pool].target
        command = pool.arguments(self._values(worker.name, worker.pool, port, worker.gpus, knobs))
        return lifecycle.restarted(worker, secrets.token_hex(8), port, command, knobs, now_s)

    def start(self, worker: Worker) -> Worker:
        """Have a worker started whose record is written. Raises :class:`ArbiterError` where it was not."""
        if worker.name in self._stale:
            self._arbiter.remove(worker.name)
            self._stale.discard(worker.name)
        pool = self._pools[worker.pool]
        logs.rotate(self._store.log(worker.name), over=0, keep=pool.log_max_bytes)
        values = self._values(worker.name, worker.pool, worker.port, worker.gpus, worker.knobs)
        variable, _, mark = self._ledger.records.mark(worker).partition("=")
        try:
            process = self._arbiter.add(worker, {**pool.environment(values, os.environ), variable: mark})
        except ArbiterSilentError:
            process = self._store.noted(worker)
            if process is None:
                raise
        if process is None:
            raise ArbiterError(f"the arbiter could not start {worker.name}: see {self._store.log('circusd')}")
        logger.info("%s is started with pid %d", worker.name, process.pid)
        return worker.replace(process=process)

    def is_gone(self, name: str) -> None:
        """Take down that a watcher is of no use any more."""
        self._stale.add(name)

    def remove_stale(self) -> None:
        """Have the arbiter forget watchers of no use; where it does not answer, another time."""
        if time.monotonic() < self._remove_after:
            return
        in_use = {worker.name for worker in self._ledger.records.workers}
        for name in sorted(self._stale - in_use):
            try:
                self._arbiter.remove(name)
            except ArbiterError as error:
                logger.info("watcher %s is removed later: %s", name, error)
                self._remove_after = time.monotonic() + _REMOVE_AGAIN_S
                return
            self._stale.discard(name)

    def find_stale(self) -> None:
        """Find what an earlier planner of this namespace added to the arbiter and no record knows any more."""
        in_use = {worker.name for worker in self._ledger.records.workers}
        self._stale.update(self._arbiter.leftovers(in_use))
