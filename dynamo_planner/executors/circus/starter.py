"""Starting workers: the record of a start, and the command to the arbiter."""

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
from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.ports import free_port
from dynamo_planner.executors.circus.records import WorkerRecord
from dynamo_planner.executors.circus.store import Ledger

_REMOVE_AGAIN_S = 5.0  # not in every tick, which would wait for a silent arbiter each time

logger = logging.getLogger(__name__)


class Starter:
    """Starts workers of these pools, and removes their watchers afterwards."""

    def __init__(self, pools: Mapping[str, CircusPool], ledger: Ledger, arbiter: Arbiter) -> None:
        self._pools = pools
        self._ledger = ledger
        self._store = ledger.store
        self._arbiter = arbiter
        self._stale: set[str] = set()
        self._remove_after = 0.0

    def why_not_runnable(self, pool: str, name: str) -> str | None:
        """Why no worker of a pool can start, or ``None``."""
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

    def new_record(
        self, name: str, pool: str, gpus: tuple[int, ...], others: Iterable[WorkerRecord], now_s: float
    ) -> WorkerRecord:
        """The record of a new worker, to be written before it starts; ``others`` are written with it."""
        about = self._pools[pool]
        worker = WorkerRecord(
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
        return self.restart_record(worker, others, now_s)

    def restart_record(self, worker: WorkerRecord, others: Iterable[WorkerRecord], now_s: float) -> WorkerRecord:
        """The record of another start of a worker, with a port and a token of its own."""
        pool = self._pools[worker.pool]
        taken = {other.port for other in (*self._ledger.records.workers, *others) if other.port}
        port = free_port(taken) if pool.needs_port else None
        knobs = self._ledger.records.knobs[worker.pool].target
        command = pool.arguments(self._values(worker.name, worker.pool, port, worker.gpus, knobs))
        return lifecycle.restarted(worker, secrets.token_hex(8), port, command, knobs, now_s)

    def start(self, worker: WorkerRecord) -> WorkerRecord:
        """Start a worker whose record is written. Raises :class:`ArbiterError` where the arbiter did not."""
        if worker.name in self._stale:
            self._arbiter.remove(worker.name)
            self._stale.discard(worker.name)
        pool = self._pools[worker.pool]
        logs.rotate(self._store.log(worker.name), over=0, keep=pool.log_max_bytes)
        values = self._values(worker.name, worker.pool, worker.port, worker.gpus, worker.knobs)
        variable, _, mark = self._ledger.records.mark(worker).partition("=")
        try:
            environment = {**pool.environment(values, os.environ), variable: mark}
            process = self._arbiter.add(worker, environment) or self._store.noted(worker)  # it may have ended already
        except ArbiterSilentError:
            process = self._store.noted(worker)
            if process is None:
                raise
        if process is None:
            raise ArbiterError(f"the arbiter could not start {worker.name}: see {self._store.log('circusd')}")
        logger.info("%s is started with pid %d", worker.name, process.pid)
        return worker.replace(process=process)

    def mark_stale(self, name: str) -> None:
        """Mark the watcher of a worker that ended, to be removed."""
        self._stale.add(name)

    def remove_stale(self) -> None:
        """Remove stale watchers from the arbiter; where it does not answer, later."""
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
        """Find watchers that an earlier planner of this namespace added and that have no record."""
        in_use = {worker.name for worker in self._ledger.records.workers}
        self._stale.update(self._arbiter.stale_watchers(in_use))
