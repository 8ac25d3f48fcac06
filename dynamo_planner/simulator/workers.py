"""The workers of a simulated cluster: launching, starting, draining, crashing, and what they are billed for.

A pool is kept at its target, as a Kubernetes Deployment is: what crashes is launched again. Scaling down takes those
that wait for GPUs first, then those that start, then the ready ones, always the newest first; a ready worker drains,
that is, it finishes what it has and takes nothing new. Where workers are to be replaced, one after the other is, with a
successor that starts first, or without a free GPU after it. Times are seconds of the trace.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np

from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.simulator.backends import ObjectBackend
from dynamo_planner.simulator.pool import SimulatedPool, SimulatedWorker
from dynamo_planner.simulator.results import ReplicaCounts, WorkerLifecycle
from dynamo_planner.simulator.setup import ClusterSetup


class SimulatedFleet:
    """All workers of a cluster: launches, starts, drains and crashes, each at its time (:meth:`next_s`)."""

    def __init__(self, setup: ClusterSetup, backend: ObjectBackend, seed: int) -> None:
        self._setup = setup
        self._faults = setup.faults
        self._backend = backend
        self._seed = seed
        self.lifecycles: list[WorkerLifecycle] = []
        self.timeline: list[ReplicaCounts] = []
        self._events: list[tuple[float, int, str, SimulatedWorker | None]] = []
        self._scheduled = 0
        self._at_place: dict[int, SimulatedWorker] = {}
        self.pools = {
            name: SimulatedPool(name, pool, backend.places[name], pool.replicas) for name, pool in setup.pools.items()
        }
        for pool in self.pools.values():
            for _ in range(pool.target):
                self._ready(pool, self._new(pool, 0.0, 0.0), 0.0)
            self._changed(pool, 0.0)
        for number, outage in enumerate(setup.faults.outages):
            self._schedule(outage.at_s, f"outage {number}", None)

    def next_s(self) -> float:
        """The time of the next event, for which :meth:`act` is to be called."""
        return self._events[0][0] if self._events else math.inf

    def act(self) -> None:
        """Let the next event happen."""
        at_s, _, what, worker = heapq.heappop(self._events)
        if worker is None:
            self._strike(int(what.split()[1]), at_s)
            return
        pool = self.pools[worker.lifecycle.pool]
        if worker not in pool.workers:
            return
        if what == "ready":
            self._ready(pool, worker, at_s)
        elif what == "fail":
            self._end(pool, worker, at_s, "failed", keep=True)
            worker.state = "failed"
            self._schedule(at_s + self._faults.retry_s, "retry", worker)
        elif what == "retry":
            pool.workers.remove(worker)
            self._launch(pool, at_s, worker.requested_s)
        elif what == "crash" and worker.state in {"ready", "draining"}:
            self._crash(pool, worker, at_s)
        self._changed(pool, at_s)

    def released(self, place: int, at_s: float) -> None:
        """Release the draining worker in this place, which is empty."""
        worker = self._at_place.pop(place)
        pool = self.pools[worker.lifecycle.pool]
        self._backend.remove(place)
        self._end(pool, worker, at_s, "drained")
        self._changed(pool, at_s)

    def scale(self, name: str, target: int, at_s: float) -> None:
        """Give a pool another target."""
        pool = self.pools[name]
        pool.target = target
        self._reconcile(pool, at_s)
        self._changed(pool, at_s)

    def replace(self, name: str, at_s: float) -> None:
        """Begin to replace the ready workers of a pool that have other limits than it, one after the other."""
        self._changed(self.pools[name], at_s)

    def replicas(self, name: str, origin_s: float) -> Replicas:
        """What an executor observes of a pool, with times counted from ``origin_s``."""
        return self.pools[name].observe(origin_s)

    def gpus_held(self) -> int:
        """The GPUs that workers hold now."""
        return sum(
            worker.lifecycle.gpus for pool in self.pools.values() for worker in pool.workers if worker.state != "failed"
        )

    def gpu_seconds(self, until_s: float, pools: Sequence[str]) -> float:
        """The GPU seconds that the workers of these pools are billed up to a time."""
        return sum(life.gpu_seconds(until_s) for life in self.lifecycles if life.pool in pools)

    # From asking for a worker to having it.

    def _reconcile(self, pool: SimulatedPool, at_s: float) -> None:
        there = len(pool.workers) - pool.count("draining") + len(pool.pending)
        for _ in range(pool.target - there):
            self._launch(pool, at_s, at_s)
        for _ in range(there - pool.target):
            self._remove_one(pool, at_s)

    def _launch(self, pool: SimulatedPool, at_s: float, requested_s: float) -> None:
        if not self._has_gpus(pool):
            pool.pending.append(requested_s)
            return
        worker = self._new(pool, at_s, requested_s)
        random = self._random(worker, 0)
        takes_s = self._startup_s(pool, random)
        if random.random() < self._faults.stuck_share:
            return
        if random.random() < self._faults.launch_failure_share:
            self._schedule(at_s + takes_s * random.random(), "fail", worker)
        else:
            self._schedule(at_s + takes_s, "ready", worker)

    def _replace_next(self, pool: SimulatedPool, at_s: float) -> None:
        """Replace the next outdated worker, once the one before is done."""
        old = self._outdated(pool)
        if not old or len(pool.workers) > pool.count("ready") or pool.pending:
            return
        if pool.count("ready") > pool.target:
            self._drain(pool, old[0], at_s)
        elif self._has_gpus(pool):
            self._launch(pool, at_s, at_s)
        elif pool.count("ready") > 1:
            self._drain(pool, old[0], at_s)
            self._reconcile(pool, at_s)

    def _outdated(self, pool: SimulatedPool) -> list[SimulatedWorker]:
        """The ready workers with other limits than the pool has now, oldest first."""
        return [worker for worker in pool.in_state("ready") if not self._backend.is_current(worker.place)]

    def _has_gpus(self, pool: SimulatedPool) -> bool:
        limit = self._setup.max_gpus
        return limit is None or self.gpus_held() + pool.setup.spec.gpus <= limit

    def _new(self, pool: SimulatedPool, at_s: float, requested_s: float) -> SimulatedWorker:
        worker = SimulatedWorker(
            WorkerLifecycle(pool.name, len(self.lifecycles), pool.setup.spec.gpus, at_s), requested_s
        )
        self.lifecycles.append(worker.lifecycle)
        pool.workers.append(worker)
        return worker

    def _startup_s(self, pool: SimulatedPool, random: np.random.Generator) -> float:
        mean_s, variation = pool.setup.spec.startup_s, self._faults.startup_cv
        if not variation:
            return mean_s
        variance = math.log1p(variation**2)
        return mean_s * float(random.lognormal(-variance / 2, math.sqrt(variance)))

    def _ready(self, pool: SimulatedPool, worker: SimulatedWorker, at_s: float) -> None:
        random = self._random(worker, 1)
        slow = random.random() < self._faults.slow_share
        worker.place = self._backend.add(pool.place, worker.lifecycle.number, self._faults.slowness if slow else 1.0)
        worker.state = "ready"
        worker.lifecycle.ready_s = at_s
        self._at_place[worker.place] = worker
        self._backend.join(worker.place)
        if self._faults.crash_mtbf_s is not None:
            self._schedule(at_s + float(random.exponential(self._faults.crash_mtbf_s)), "crash", worker)

    def _random(self, worker: SimulatedWorker, purpose: int) -> np.random.Generator:
        """A generator of the worker's own, so that what happens to it does not depend on the others."""
        return np.random.default_rng([self._seed, worker.lifecycle.number, purpose])

    # From having a worker to not having it.

    def _remove_one(self, pool: SimulatedPool, at_s: float) -> None:
        if pool.pending:
            pool.pending.pop()
            return
        for state in ("failed", "starting"):
            if workers := pool.in_state(state):
                self._end(pool, workers[-1], at_s, "cancelled")
                return
        self._drain(pool, (self._outdated(pool) or pool.in_state("ready"))[-1], at_s)

    def _drain(self, pool: SimulatedPool, worker: SimulatedWorker, at_s: float) -> None:
        self._backend.leave(worker.place)
        worker.state = "draining"
        worker.lifecycle.draining_s = at_s
        engine = self._backend.engine(worker.place)
        engine.draining = True
        if not engine.running and not engine.waiting:
            self.released(worker.place, at_s)

    def _crash(self, pool: SimulatedPool, worker: SimulatedWorker, at_s: float) -> None:
        if worker.state == "ready":
            self._backend.leave(worker.place)
        self._backend.withdraw(worker.place)
        del self._at_place[worker.place]
        self._backend.remove(worker.place)
        self._end(pool, worker, at_s, "crashed")
        self._reconcile(pool, at_s)

    def _strike(self, number: int, at_s: float) -> None:
        """An outage: a share of the workers of each pool crashes."""
        share = self._faults.outages[number].share
        random = np.random.default_rng([self._seed, number])
        for pool in self.pools.values():
            there = [worker for worker in pool.workers if worker.state in {"ready", "draining"}]
            lost = random.permutation(len(there))[: round(share * len(there))]
            for worker in [there[k] for k in sorted(lost.tolist())]:
                if worker in pool.workers:
                    self._crash(pool, worker, at_s)
            self._changed(pool, at_s)

    def _end(self, pool: SimulatedPool, worker: SimulatedWorker, at_s: float, end: str, *, keep: bool = False) -> None:
        if math.isnan(worker.lifecycle.released_s):
            worker.lifecycle.released_s, worker.lifecycle.end = at_s, end
        if not keep:
            pool.workers.remove(worker)
        self._launch_pending(at_s)

    def _launch_pending(self, at_s: float) -> None:
        """Give free GPUs to the launches that have waited longest."""
        while waiting := [pool for pool in self.pools.values() if pool.pending]:
            pool = min(waiting, key=lambda pool: pool.pending[0])
            if not self._has_gpus(pool):
                return
            self._launch(pool, at_s, pool.pending.pop(0))
            self._changed(pool, at_s)

    def _schedule(self, at_s: float, what: str, worker: SimulatedWorker | None) -> None:
        self._scheduled += 1
        heapq.heappush(self._events, (at_s, self._scheduled, what, worker))

    def _changed(self, pool: SimulatedPool, at_s: float) -> None:
        self._replace_next(pool, at_s)
        pool.replicas = None
        self.timeline.append(pool.counts(at_s))
