"""Acting on local processes under a Circus arbiter."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from dynamo_planner.core.decision import Action, Decision, Outcome, Reason, ScaleTo, SetKnob
from dynamo_planner.core.snapshot import PoolSpec, Replicas
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.arbiter import Arbiter, check_endpoint
from dynamo_planner.executors.circus.clock import SteadyClock, boottime
from dynamo_planner.executors.circus.gpu_leases import GpuLeases
from dynamo_planner.executors.circus.gpus import check_gpus, detect_gpus
from dynamo_planner.executors.circus.names import check_components, check_namespace
from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.processes import alive, identify
from dynamo_planner.executors.circus.records import WorkerInfo
from dynamo_planner.executors.circus.rolling_restart import RollingRestart
from dynamo_planner.executors.circus.state_dir import default_state_dir
from dynamo_planner.executors.circus.store import Ledger, Store
from dynamo_planner.executors.circus.supervisor import Supervisor
from dynamo_planner.executors.circus.troubles import UNKILLABLE_AFTER_S, troubles

logger = logging.getLogger(__name__)

_UNWRITTEN = ("StateFileFailed", "LogFailed")
"""Codes of the planner's reasons for files that it could not write."""


class CircusExecutor:
    """Keeps pools of local worker processes at their targets: one Circus watcher per worker, GPUs of its own each.

    As a context manager it ends all workers at the end. After a kill of any process, this one included, the next
    :meth:`start` of the same namespace adopts the workers that live and replaces the others.

    It has no thread. :meth:`observe` and :meth:`apply` reconcile: they find workers that became ready or ended, kill
    those that drain too long, and restart those that crashed. All of that is as prompt as they are called.

    Args:
        namespace: Name of this set of pools; one planner at a time has it.
        pools: The pools, by name.
        endpoint: Endpoint of a running arbiter. On TCP, Circus lets every user of the machine read the workers'
            environment and run commands. ``None`` (the default) starts circusd on unix sockets in a private directory,
            and again if it ends.
        state_dir: Directory of the records (``NAMESPACE.json``) and of the logs. ``None`` is ``DYN_LOCAL_STATE_DIR``,
            else ``~/.dynamo/state``.
        gpus: Numbers of the GPUs to assign. ``None`` is all that ``nvidia-ml-py`` finds, or none.
        clock: Gives Unix seconds. Timeouts and backoffs do not go by it, since it may be set.
        steady: Gives seconds by a clock that only runs, for those.
    """

    def __init__(
        self,
        namespace: str,
        pools: Mapping[str, CircusPool],
        *,
        endpoint: str | None = None,
        state_dir: Path | str | None = None,
        gpus: Sequence[int] | None = None,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = boottime,
    ) -> None:
        """Raises :class:`ValueError` for a namespace, component, endpoint or number of GPUs that cannot be."""
        self._pools = FrozenMap(pools)
        self._specs = FrozenMap({name: pool.spec for name, pool in pools.items()})
        self._endpoint = check_endpoint(endpoint) if endpoint is not None else None
        self._gpus = None if gpus is None else tuple(gpus)
        self._clock = SteadyClock(clock, steady)
        self._store = Store(state_dir or default_state_dir(), check_namespace(namespace))
        self._ledger = Ledger(self._store)
        self._arbiter = Arbiter(self._endpoint, self._store, self._ledger.remember)
        self._fleet: Supervisor | None = None
        self._lock = threading.RLock()
        self._starts_minimums = True
        check_components(pool.component or name for name, pool in pools.items())
        if self._gpus is not None:
            check_gpus(self._gpus, pools)

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        """What a replica of each pool is."""
        return self._specs

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, KnobValue]]:
        """The knobs of each pool. Raises :class:`ExecutorError` before the start."""
        return self._rolling_restart(self._started()).knobs

    def leave_minimums(self) -> None:
        """Let :meth:`start` start no minimums: that is left to decisions."""
        self._starts_minimums = False

    def _rolling_restart(self, supervisor: Supervisor) -> RollingRestart:
        return RollingRestart(self._pools, self._ledger, supervisor, self._clock)

    def start(self) -> Self:
        """Adopt what the last planner of this namespace left, and start the minimum of each pool.

        Raises :class:`ExecutorError`, with nothing left behind that was not there, where the state directory cannot
        be written, the state file not be trusted, the arbiter not be reached, a command or enough GPUs are not there,
        or another planner has this namespace.
        """
        with self._lock:
            if self._fleet is not None:
                return self
            if identify(os.getpid()) is None:
                raise ExecutorError("/proc does not show this process: the Circus executor needs Linux")
            self._store.open()
            supervisor: Supervisor | None = None
            try:
                self._ledger.open()
                found = bool(self._ledger.records.workers)
                supervisor = self._assembled()
                supervisor.check_commands()
                self._ledger.begin(self._clock.adopt(self._ledger.records).replace(planner=identify(os.getpid())))
                RollingRestart.adopt_knobs(self._pools, self._ledger)
                self._arbiter.open(self._ledger.records.arbiter)
                supervisor.recover()
                if self._starts_minimums:
                    supervisor.reach_minimums()
            except BaseException:
                if supervisor is not None and not found:
                    self._undo(supervisor)
                self._release()
                raise
            self._fleet = supervisor
            return self

    def _assembled(self) -> Supervisor:
        gpus = self._gpus if self._gpus is not None else detect_gpus()
        try:
            check_gpus(gpus, self._pools)
        except ValueError as error:
            raise ExecutorError(str(error)) from error
        return Supervisor(self._pools, self._ledger, self._arbiter, GpuLeases(gpus, self._store), self._clock)

    def _undo(self, supervisor: Supervisor) -> None:
        """End the workers and the arbiter of a start that failed."""
        try:
            self._end_all(supervisor, graceful_timeout_s=0.0)
            self._arbiter.quit()
            self._store.delete()
        except (ExecutorError, OSError) as error:
            logger.warning("%s is left for the next start: %s", self._store.file, error)

    def _release(self) -> None:
        self._arbiter.close()
        self._store.close()
        self._fleet = None

    def close(self) -> None:
        """Drain all workers and wait for them, end the arbiter if this planner started it, and remove the state file.

        Raises :class:`ExecutorError`, and leaves the state file, where workers outlive SIGKILL.
        """
        with self._lock:
            if self._fleet is None:
                return
            try:
                self._end_all(self._fleet)
                self._arbiter.quit()
                self._store.delete()
            finally:
                self._release()

    def detach(self) -> None:
        """Release the namespace and leave all workers running, for the next :meth:`start` to adopt."""
        with self._lock:
            if self._fleet is not None:
                self._release()

    def _end_all(self, supervisor: Supervisor, graceful_timeout_s: float | None = None) -> None:
        supervisor.drain_all(graceful_timeout_s)
        while supervisor.workers:
            supervisor.reconcile()
            latest = max((worker.kill_at_s or 0.0 for worker in supervisor.workers), default=0.0)
            if supervisor.workers and self._clock() > latest + UNKILLABLE_AFTER_S:
                left = [f"{own.name} ({own.process.pid})" for own in supervisor.workers if own.process]
                raise ExecutorError(f"these workers outlive SIGKILL, find what holds them: {', '.join(left)}")
            time.sleep(0.05)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _started(self) -> Supervisor:
        if self._fleet is None:
            raise ExecutorError("the Circus executor is not started: call start() or use it in a with statement")
        return self._fleet

    def observe(self) -> Mapping[str, Replicas | None]:
        """The replicas of each pool, after reconciling. Raises :class:`ExecutorError` before the start."""
        with self._lock:
            supervisor = self._started()
            supervisor.reconcile()
            self._rolling_restart(supervisor).reconcile()
            return {name: self._ledger.records.replicas(name, self._clock.to_unix) for name in self._pools}

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        """Begin each action and report its outcome; waits for no drain, and for no worker to be ready.

        A scale-up is ``failed`` where not all of its workers could be started or one ended at once; those that started
        stay. Raises :class:`ExecutorError` before the start only.
        """
        with self._lock:
            supervisor = self._started()
            supervisor.reconcile()
            began = [self._begin(supervisor, action) for action in actions]
            supervisor.reconcile()
            started = [name for _, names in began for name in names]
            died = supervisor.died_at_once(started) if started else {}
            return tuple(
                _revised(outcome, {name: died[name] for name in names if name in died}) for outcome, names in began
            )

    def _begin(self, supervisor: Supervisor, action: Action) -> tuple[Outcome, list[str]]:
        if isinstance(action, SetKnob):
            return self._rolling_restart(supervisor).set_knob(action), []
        if action.pool not in self._pools:
            message = f"there is no pool {action.pool!r}; there are {', '.join(self._pools)}"
            return Outcome(action=action, status="refused", message=message), []
        target = len(self._ledger.records.wanted(action.pool))
        if target == action.replicas:
            return Outcome(action=action, status="unchanged", message=f"{action.pool} has {target} replicas"), []
        most = self._specs[action.pool].max_replicas
        if most is not None and action.replicas > most:
            message = f"{action.pool} may have {most} replicas at most (max_replicas), and not {action.replicas}"
            return Outcome(action=action, status="refused", message=message), []
        if action.expected is not None and action.expected != target:
            message = f"{action.pool} has a target of {target} and not of {action.expected}, which this was decided for"
            return Outcome(action=action, status="refused", message=message), []
        try:
            return self._scaled(supervisor, action, target)
        except ExecutorError as error:
            return Outcome(action=action, status="failed", message=str(error)), []

    def _scaled(self, supervisor: Supervisor, action: ScaleTo, target: int) -> tuple[Outcome, list[str]]:
        message = f"{action.pool}: {target} -> {action.replicas} replicas"
        if action.replicas < target:
            supervisor.scale_down(action.pool, target - action.replicas)
            return Outcome(action=action, status="applied", message=message), []
        names, shortage = supervisor.scale_up(action.pool, action.replicas - target)
        if shortage:
            message = f"{action.pool}: {target} -> {target + len(names)} replicas and not {action.replicas}: {shortage}"
        return Outcome(action=action, status="failed" if shortage else "applied", message=message), names

    def consider(self, requests: Mapping[str, Mapping[str, float]]) -> None:
        """Take the requests of each worker, by pool and name, so that a scale-down ends the least busy ones."""
        with self._lock:
            if self._fleet is not None:
                self._fleet.requests = {name: count for pool in requests.values() for name, count in pool.items()}

    @property
    def troubles(self) -> tuple[Reason, ...]:
        """What keeps workers from starting, serving or ending, as of the last reconciliation."""
        return troubles(self._ledger.records, self._clock)

    def tell(self, decision: Decision, outcomes: tuple[Outcome, ...]) -> None:
        """Record which files of the planner could not be written, for ``dynamo-planner status`` to show."""
        unwritten = tuple(reason.message for reason in decision.reasons if reason.code in _UNWRITTEN)
        with self._lock, suppress(ExecutorError):  # the same disk may be full; the planner's log and page say so too
            if self._fleet is not None and unwritten != self._ledger.records.unwritten:
                self._ledger.commit(unwritten=unwritten)

    def endpoints(self) -> dict[str, dict[str, str]]:
        """The base URLs of the ready workers, by pool and name. Safe to call from other threads."""
        urls: dict[str, dict[str, str]] = {name: {} for name in self._pools}
        for worker in self._ledger.records.workers:
            if worker.serves and worker.port is not None and worker.pool in urls and alive(worker.process):
                urls[worker.pool][worker.name] = f"http://127.0.0.1:{worker.port}"
        return urls

    def workers(self) -> tuple[WorkerInfo, ...]:
        """Every worker, as of the last reconciliation, draining ones included. Safe to call from other threads."""
        return tuple(
            WorkerInfo.of(worker, self._store.log(worker.name), self._clock.to_unix)
            for worker in self._ledger.records.workers
        )


def _revised(outcome: Outcome, died: Mapping[str, str]) -> Outcome:
    """The outcome of a scale-up after its workers were watched for a moment."""
    if not died:
        return outcome
    ends = "\n".join(f"{name} {message}" for name, message in died.items())
    message = f"{outcome.message}; {ends}" if outcome.status == "failed" else ends
    return outcome.replace(status="failed", message=message)
