"""The workers of one pool of a simulated cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.simulator.engine.request import NONE
from dynamo_planner.simulator.results import ReplicaCounts, WorkerLifecycle
from dynamo_planner.simulator.setup import PoolSetup


@dataclass(eq=False)
class SimulatedWorker:
    """A worker that has its GPUs.

    Args:
        lifecycle: when it was launched, ready and so on.
        requested_s: when it was asked for, in seconds of the trace.
        state: ``starting``, ``ready``, ``draining`` or ``failed``.
        place: its place in the world once it is ready.
    """

    lifecycle: WorkerLifecycle
    requested_s: float
    state: str = "starting"
    place: int = NONE


@dataclass
class SimulatedPool:
    """The workers of a pool.

    Args:
        name: its name.
        setup: what it is made of.
        place: its place in the world.
        target: how many replicas it is to have.
        workers: its workers in the order of their launches.
        pending: launches that wait for GPUs: when each was asked for.
        replicas: what an executor observes, until something changes.
    """

    name: str
    setup: PoolSetup
    place: int
    target: int
    workers: list[SimulatedWorker] = field(default_factory=list)
    pending: list[float] = field(default_factory=list)
    replicas: Replicas | None = None

    def count(self, state: str) -> int:
        """How many workers are in a state: starting, ready, draining or failed."""
        return sum(worker.state == state for worker in self.workers)

    def in_state(self, state: str) -> list[SimulatedWorker]:
        """The workers in a state, oldest first."""
        return [worker for worker in self.workers if worker.state == state]

    def observe(self, origin_s: float) -> Replicas:
        """What an executor observes of the pool, with times counted from ``origin_s``."""
        if self.replicas is None:
            since = sorted([worker.requested_s for worker in self.in_state("starting")] + self.pending)
            self.replicas = Replicas(
                ready=self.count("ready"),
                starting=len(since),
                starting_since_s=tuple(origin_s + since_s for since_s in since),
                failed=self.count("failed"),
                draining=self.count("draining"),
                target=self.target,
            )
        return self.replicas

    def counts(self, at_s: float) -> ReplicaCounts:
        """The replicas from a time on."""
        return ReplicaCounts(
            at_s=at_s,
            pool=self.name,
            ready=self.count("ready"),
            starting=self.count("starting") + len(self.pending),
            draining=self.count("draining"),
            failed=self.count("failed"),
            target=self.target,
        )
