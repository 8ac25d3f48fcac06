"""Rolling restart for new knob values: workers are replaced one after the other, without a loss of capacity.

A knob is a number in the command or the environment of a worker, so a worker that was started with other values than
the target of its pool is outdated. One at a time is replaced: a successor starts beside it, and once that is ready the
oldest outdated one drains. Without a GPU for a successor the old one drains first and is then restarted, if others
serve meanwhile. Each step is recorded before it is taken, so the next planner goes on where the last one stopped.

If a successor does not become ready, the values are rolled back, and not tried again for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from dynamo_planner.core.decision import Outcome, SetKnob
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.engines import KnobError, check_knobs
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus import lifecycle
from dynamo_planner.executors.circus.pool import CircusPool
from dynamo_planner.executors.circus.records import FailedRollout, PoolKnobs, WorkerRecord
from dynamo_planner.executors.circus.store import Ledger
from dynamo_planner.executors.circus.supervisor import Supervisor

logger = logging.getLogger(__name__)

MIN_REPLICAS_TO_DRAIN_FIRST = 2
"""The number of replicas from which on one may be drained before its successor starts."""


class RollingRestart:
    """The knobs of the pools, and the replacement of their workers when one is set."""

    def __init__(
        self, pools: Mapping[str, CircusPool], ledger: Ledger, supervisor: Supervisor, clock: Callable[[], float]
    ) -> None:
        self._pools = pools
        self._ledger = ledger
        self._fleet = supervisor
        self._clock = clock

    @staticmethod
    def adopt_knobs(pools: Mapping[str, CircusPool], ledger: Ledger) -> None:
        """Adopt the knobs that were set before, unless the configuration changed since; then its values count.

        Raises :class:`NotBegunError` where that cannot be recorded.
        """
        knobs = {}
        for name, pool in pools.items():
            known = ledger.records.knobs.get(name)
            as_given = known is not None and known.given == pool.knobs
            knobs[name] = known if known and as_given else PoolKnobs(given=pool.knobs, target=pool.knobs)
        if knobs != dict(ledger.records.knobs):
            ledger.commit(knobs=FrozenMap(knobs))

    @property
    def knobs(self) -> Mapping[str | None, Mapping[str, KnobValue]]:
        """The knobs of each pool."""
        return {name: self._ledger.records.knobs[name].target for name in self._pools}

    def set_knob(self, action: SetKnob) -> Outcome:
        """Begin to replace the workers of a pool, and report the outcome."""
        refusal = self._why_not(action)
        if refusal is not None:
            return Outcome(action=action, status="refused", message=refusal)
        pool = action.pool or ""
        known = self._ledger.records.knobs[pool]
        present = known.target[action.knob]
        if present == action.value:
            return Outcome(action=action, status="unchanged", message=f"{action.knob} is {present}")
        target = FrozenMap({**known.target, action.knob: action.value})
        try:
            self._change(
                pool, target=target, before=known.before or known.target, since_s=known.since_s or self._clock()
            )
        except ExecutorError as error:
            return Outcome(action=action, status="failed", message=str(error))
        count = len(self._ledger.records.wanted(pool))
        message = f"{pool}: {action.knob} {present} -> {action.value}, {count} workers are replaced one after the other"
        return Outcome(action=action, status="applied", message=message)

    def _why_not(self, action: SetKnob) -> str | None:
        pool = self._pools.get(action.pool or "")
        if pool is None:
            return f"there is no pool {action.pool!r} with knobs; there are {', '.join(self._pools)}"
        if action.knob not in pool.knobs:
            there = ", ".join(pool.knobs) or "none"
            return f"{action.pool} has no knob {action.knob!r} in its configuration (knobs); there are {there}"
        known = self._ledger.records.knobs[action.pool or ""]
        present = known.target[action.knob]
        if action.expected is not None and action.expected != present:
            return f"{action.knob} of {action.pool} is {present}, not {action.expected}, which this was decided for"
        target = FrozenMap({**known.target, action.knob: action.value})
        try:
            check_knobs(pool.catalogue, target)
            alone = len(self._ledger.records.wanted(action.pool or "")) < MIN_REPLICAS_TO_DRAIN_FIRST
            if target != known.target and alone and not self._fleet.has_free_gpus(action.pool or ""):
                return f"{action.pool} has one replica, and no GPU is free for a second that takes its place"
        except (KnobError, ExecutorError) as error:
            return str(error)
        failed = known.failed
        if failed is not None and failed.knobs == target and self._clock() < failed.until_s:
            return f"{failed.message}; it is not tried again for {failed.until_s - self._clock():.0f} s"
        return None

    def reconcile(self) -> None:
        """Take the next step of every pool whose workers are being replaced; called in every tick."""
        for name in self._pools:
            try:
                self._step(name, self._ledger.records.knobs[name])
            except ExecutorError as error:
                logger.warning("the workers of %s are replaced later: %s", name, error)

    def _step(self, pool: str, known: PoolKnobs) -> None:
        workers = [worker for worker in self._ledger.records.workers if worker.pool == pool]
        if known.successor is not None:
            self._with_successor(pool, known, {worker.name: worker for worker in workers}.get(known.successor))
            return
        wanted = self._ledger.records.wanted(pool)
        new = [worker for worker in wanted if worker.knobs == known.target]
        old = [worker for worker in wanted if worker.knobs != known.target and worker.serves]
        if known.before is not None and (failed := [worker for worker in new if worker.phase == "failed"]):
            self._roll_back(pool, known, failed[0])
        elif len(new) == len(wanted):
            if known.before is not None:
                logger.info("all workers of %s have %s", pool, dict(known.target))
                self._change(pool, before=None, since_s=None)
        elif old and not any(worker.phase in {"starting", "draining"} for worker in workers):
            serving = sum(worker.serves for worker in wanted)
            self._replace(pool, known, old[0], spare=serving >= MIN_REPLICAS_TO_DRAIN_FIRST)

    def _replace(self, pool: str, known: PoolKnobs, worker: WorkerRecord, *, spare: bool) -> None:
        if self._fleet.has_free_gpus(pool):
            (name,) = self._fleet.new_names(pool, 1)
            self._change(pool, successor=name)
            self._fleet.scale_up_as(pool, [name])
        elif spare:
            leaving = lifecycle.draining(worker, self._clock(), comes_back=True)
            self._ledger.commit(workers=self._ledger.replace(leaving))
        else:
            logger.warning("%s waits for a GPU for another worker, to set %s", pool, dict(known.target))

    def _with_successor(self, pool: str, known: PoolKnobs, successor: WorkerRecord | None) -> None:
        if successor is None or successor.phase == "draining":
            self._change(pool, successor=None)
        elif successor.phase == "failed":
            self._roll_back(pool, known, successor)
        elif successor.phase == "ready":
            old = [worker for worker in self._ledger.records.wanted(pool) if worker.knobs != known.target]
            leaving = lifecycle.draining(old[0] if old else successor, self._clock())
            self._change(pool, successor=None, workers=self._ledger.replace(leaving))

    def _roll_back(self, pool: str, known: PoolKnobs, failed: WorkerRecord) -> None:
        """Roll all workers back to the values before; without any, that worker is restarted as any other is."""
        if known.before is None:
            self._change(pool, successor=None)
            return
        changed = {name: value for name, value in known.target.items() if known.before.get(name) != value}
        message = f"a worker with {changed} did not become ready: {failed.message}"
        logger.warning("%s goes back to %s: %s", pool, dict(known.before), message)
        rollout = FailedRollout(
            knobs=known.target, until_s=self._clock() + self._pools[pool].restart_backoff_max_s, message=message
        )
        workers = self._ledger.records.workers
        if failed.name == known.successor:
            workers = self._ledger.replace(lifecycle.draining(failed, self._clock()))
        self._change(
            pool, target=known.before, before=None, since_s=None, successor=None, failed=rollout, workers=workers
        )

    def _change(self, pool: str, workers: tuple[WorkerRecord, ...] | None = None, **changes: Any) -> None:
        """Record the knobs of a pool, and workers with them, at once."""
        knobs = self._ledger.records.knobs
        changed = FrozenMap({**knobs, pool: knobs[pool].replace(**changes)})
        self._ledger.commit(knobs=changed, **({} if workers is None else {"workers": workers}))
