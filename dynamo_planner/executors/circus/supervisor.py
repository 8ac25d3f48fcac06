"""Supervision of worker processes: starting, watching, draining and ending them, to match the records.

Each step is recorded before it is taken, and every step can be taken twice. So recovery after a crash is no case of its
own: the next planner reads the records and goes on where the last one stopped.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus import lifecycle, logs
from dynamo_planner.executors.circus.arbiter import Arbiter
from dynamo_planner.executors.circus.first_moments import watch_first_moments
from dynamo_planner.executors.circus.gpu_leases import GpuLeases
from dynamo_planner.executors.circus.health import READY_EVERY_S, HealthCheck, HealthChecks
from dynamo_planner.executors.circus.names import free_name
from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.processes import alive, descendants, send, strays
from dynamo_planner.executors.circus.records import Process, WorkerRecord
from dynamo_planner.executors.circus.starter import Starter
from dynamo_planner.executors.circus.store import Ledger, NotBegunError

logger = logging.getLogger(__name__)

_ARBITER_LOG_MAX_BYTES = 1_000_000


class Supervisor:
    """The workers of one namespace; ``requests`` are those that each has, by its name, as far as they are known."""

    def __init__(
        self,
        pools: Mapping[str, CircusPool],
        ledger: Ledger,
        arbiter: Arbiter,
        leases: GpuLeases,
        clock: Callable[[], float],
    ) -> None:
        self._pools = pools
        self._ledger = ledger
        self._store = ledger.store
        self._arbiter = arbiter
        self._leases = leases
        self._starter = Starter(pools, ledger, arbiter)
        self._health = HealthChecks()
        self._clock = clock
        self.requests: Mapping[str, float] = {}

    @property
    def workers(self) -> tuple[WorkerRecord, ...]:
        """All workers with a record."""
        return self._ledger.records.workers

    def recover(self) -> None:
        """Go on where the last planner stopped; workers of pools that no longer exist are drained.

        Raises :class:`ExecutorError` where the records cannot be written, or the arbiter cannot be read.
        """
        staying = (worker for worker in self.workers if worker.phase != "draining" or worker.comes_back)
        self._drain([worker for worker in staying if worker.pool not in self._pools])
        self._store.keep_notes(self.workers)
        self._ledger.note([worker.replace(unanswered_since_s=None) for worker in self.workers])  # no one looked since
        self._starter.find_stale()
        self.reconcile()

    def reconcile(self) -> None:
        """Observe the workers and take the next step of each; called in every tick.

        Waits for no drain; for a second at most on workers that do not answer whether they are ready, and for two on
        an arbiter that is silent when a watcher is to be removed.
        """
        now_s = self._clock()
        self._ledger.note(self._observed(now_s))
        self._ledger.note(self._ended(now_s))
        self._restart_due(now_s)
        self._starter.remove_stale()
        self._rotate_logs()

    def _rotate_logs(self) -> None:
        limits = {
            worker.name: self._pools[worker.pool].log_max_bytes for worker in self.workers if worker.pool in self._pools
        }
        for name, max_bytes in {**limits, "circusd": _ARBITER_LOG_MAX_BYTES}.items():
            try:
                logs.rotate(self._store.log(name), over=max_bytes, keep=max_bytes)
            except OSError as error:
                logger.warning("%s is not rotated: %s", self._store.log(name), error.strerror)

    def _observed(self, now_s: float) -> Iterator[WorkerRecord]:
        """All workers, updated by their processes and by their health checks."""
        answers = self._health.answers(
            {
                worker.name: HealthCheck(worker.port, path, READY_EVERY_S if worker.phase == "ready" else 0.0)
                for worker in self.workers
                if worker.phase in {"starting", "ready"} and worker.port and (path := self._pools[worker.pool].health)
            }
        )
        left = strays({worker.process: worker.strays for worker in self.workers if worker.process})
        for known in self.workers:
            worker = known.replace(strays=left[known.process]) if known.process else known
            if worker.phase in {"draining", "failed"}:
                yield worker
                continue
            process = worker.process or self._store.noted(worker)
            runs = alive(process)
            log = "" if runs and worker.serves else logs.tail(self._store.log(worker.name))
            observed = lifecycle.WorkerObservation(process, runs, answers.get(worker.name), log)
            after = lifecycle.advance(worker, observed, self._pools[worker.pool], now_s)
            if after.phase == "failed":
                logger.warning("%s failed: %s", after.name, after.message)
            elif after.phase != worker.phase:
                logger.info("%s is %s", after.name, after.phase)
            elif after.unhealthy and not worker.unhealthy:
                logger.warning("%s %s: it gets no requests", after.name, after.message)
            elif worker.unhealthy and not after.unhealthy:
                logger.info("%s answers its health check again", after.name)
            yield after

    def _ended(self, now_s: float) -> Iterator[WorkerRecord]:
        """Signal the workers that are to end; all workers but those of which no process remains.

        The withdrawal of a start is recorded before this searches for the process that it may still have led to.
        """
        for worker in self.workers:
            if worker.phase not in {"draining", "failed"}:
                yield worker
                continue
            by_force = worker.phase == "failed" or now_s >= (worker.kill_at_s or 0.0)
            process = worker.process or self._store.noted(worker)
            left = self._remaining(worker, process, with_children=by_force)
            for one in left:
                if by_force:
                    send(one, signal.SIGKILL)
                elif one.pid not in worker.asked:
                    send(one, signal.SIGTERM)
            if left:
                asked = tuple(dict.fromkeys((*worker.asked, *(one.pid for one in left))))
                yield worker.replace(process=process, asked=asked)
                continue
            self._store.forget(worker)
            self._starter.mark_stale(worker.name)
            if worker.phase == "failed":
                yield worker.replace(process=None, asked=(), strays=())
            elif worker.comes_back:
                yield lifecycle.back(worker, now_s)
            else:
                logger.info("%s is gone", worker.name)

    def _remaining(self, worker: WorkerRecord, process: Process | None, *, with_children: bool) -> tuple[Process, ...]:
        """The remaining processes of a worker: only itself while it may end its children in its own way."""
        if process is None:
            return ()
        if alive(process) and not with_children:
            return (process,)
        return descendants(process, self._ledger.records.mark(worker), worker.strays)

    def _restart_due(self, now_s: float) -> None:
        due = [worker for worker in self.workers if lifecycle.due(worker, now_s)]
        if not due:
            return
        again: list[WorkerRecord] = []
        try:
            with self._leases.held():
                for worker in due:
                    others = self._ledger.replace(*again)
                    gpus = self._leases.renew(worker, self._pools[worker.pool].spec.gpus, others)
                    if gpus is None:
                        self._not_started([worker], "no GPU is free for it", now_s)
                    else:
                        again.append(self._starter.restart_record(worker.replace(gpus=gpus), again, now_s))
                self._ledger.commit(workers=self._ledger.replace(*again))
        except ExecutorError as error:
            logger.warning("%d workers are not restarted: %s", len(due), error)
            return
        unstarted, why = self._start(again)
        self._not_started(unstarted, why, now_s)

    def _not_started(self, workers: Sequence[WorkerRecord], why: str, now_s: float) -> None:
        for worker in workers:
            logger.warning("%s is not restarted: %s", worker.name, why)
            failed = lifecycle.unstarted(worker, why, self._pools[worker.pool], now_s)
            self._ledger.note(self._ledger.replace(failed))

    def _start(self, workers: Sequence[WorkerRecord]) -> tuple[Sequence[WorkerRecord], str]:
        """Start workers whose records are written; returns those that were not started, and why.

        After a first failure no other is tried: each would wait for an arbiter that does not answer.
        """
        for position, worker in enumerate(workers):
            try:
                self._ledger.note(self._ledger.replace(self._starter.start(worker)))
            except ExecutorError as error:
                return workers[position:], str(error)
        return (), ""

    def scale_up(self, pool: str, count: int) -> tuple[list[str], str]:
        """Start ``count`` workers; returns their names, and why there are fewer where there are.

        Raises :class:`ExecutorError` where none was begun.
        """
        return self.scale_up_as(pool, self.new_names(pool, count))

    def scale_up_as(self, pool: str, names: list[str]) -> tuple[list[str], str]:
        """Start workers of these names; otherwise as :meth:`scale_up`."""
        now_s = self._clock()
        problem = self.why_not_runnable(pool)
        if problem is not None:
            raise NotBegunError(problem)
        new, shortage = self._recorded(pool, names, now_s)
        unstarted, why = self._start(new)
        withdrawn = [lifecycle.draining(worker, now_s, graceful_timeout_s=0.0) for worker in unstarted]
        self._ledger.note(self._ledger.replace(*withdrawn))
        if len(unstarted) == len(new):
            raise NotBegunError(why)
        return [worker.name for worker in new[: len(new) - len(unstarted)]], why or shortage

    def why_not_runnable(self, pool: str) -> str | None:
        """Why no worker of a pool can start, or ``None``: a program or a directory that does not exist."""
        return self._starter.why_not_runnable(pool, f"{self._store.namespace}_{self._pools[pool].component or pool}")

    def new_names(self, pool: str, count: int) -> list[str]:
        """Free names for workers. Raises :class:`ExecutorError` where the arbiter does not answer."""
        component = self._pools[pool].component or pool
        taken = self._arbiter.names() | {worker.name for worker in self.workers}
        names: list[str] = []
        for _ in range(count):
            names.append(free_name(self._store.namespace, component, taken | set(names)))
        return names

    def _recorded(self, pool: str, names: list[str], now_s: float) -> tuple[list[WorkerRecord], str]:
        """New workers, recorded at once, as many as there are GPUs for; and why there are fewer where there are."""
        each, shortage = self._pools[pool].spec.gpus, ""
        with self._leases.held():
            free = self._leases.free(self.workers) if each else []
            if each and len(free) < each * len(names):
                shortage = (
                    f"no GPU is free for {len(names) - len(free) // each} of {len(names)} new replicas: "
                    f"each needs {each}, and {len(free)} of {len(self._leases.gpus)} are free"
                )
                names = names[: len(free) // each]
            if not names:
                raise NotBegunError(shortage)
            new: list[WorkerRecord] = []
            for position, name in enumerate(names):
                gpus = tuple(free[position * each : (position + 1) * each])
                new.append(self._starter.new_record(name, pool, gpus, new, now_s))
            self._ledger.commit(workers=(*self.workers, *new))
        return new, shortage

    def has_free_gpus(self, pool: str) -> bool:
        """Whether one more worker of a pool has free GPUs. Raises :class:`ExecutorError` if the leases are locked."""
        each = self._pools[pool].spec.gpus
        if not each:
            return True
        with self._leases.held():
            return len(self._leases.free(self.workers)) >= each

    def scale_down(self, pool: str, count: int) -> None:
        """Begin to drain ``count`` workers. Raises :class:`NotBegunError` where that cannot be recorded."""
        self._drain(lifecycle.drain_first(self._ledger.records.wanted(pool), count, self.requests))

    def check_commands(self) -> None:
        """Raise :class:`ExecutorError` where no worker of a pool could start."""
        for name in self._pools:
            if (problem := self.why_not_runnable(name)) is not None:
                raise ExecutorError(f"pools.{name}.{problem}")

    def reach_minimums(self) -> None:
        """Start what is missing to the minimum of each pool. Raises :class:`ExecutorError` where it cannot."""
        for name, pool in self._pools.items():
            missing = pool.spec.min_replicas - len(self._ledger.records.wanted(name))
            if missing > 0:
                _, shortage = self.scale_up(name, missing)
                if shortage:
                    raise ExecutorError(f"pools.{name}: {shortage}")

    def drain_all(self, graceful_timeout_s: float | None = None) -> None:
        """Begin to drain every worker. Raises :class:`NotBegunError` where that cannot be recorded."""
        staying = [worker for worker in self.workers if worker.phase != "draining" or worker.comes_back]
        self._drain(staying, graceful_timeout_s)

    def _drain(self, workers: Collection[WorkerRecord], graceful_timeout_s: float | None = None) -> None:
        now_s = self._clock()
        if workers:
            leaving = (lifecycle.draining(worker, now_s, graceful_timeout_s) for worker in workers)
            self._ledger.commit(workers=self._ledger.replace(*leaving))

    def died_at_once(self, names: Collection[str]) -> dict[str, str]:
        """Watch new workers for a moment; returns those that ended, and how."""
        watch_first_moments([worker for worker in self.workers if worker.name in names], self._store)
        if any(worker.name in names and not alive(worker.process) for worker in self.workers):
            self.reconcile()
        return {
            worker.name: worker.message for worker in self.workers if worker.name in names and worker.phase == "failed"
        }
