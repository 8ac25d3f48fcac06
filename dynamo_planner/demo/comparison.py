"""Other policies on the same requests, in the simulator, beside what scaled the real processes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np

from dynamo_planner.core.first_decision import decide
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.values import Frozen
from dynamo_planner.demo.load import TraceRequest
from dynamo_planner.demo.stage import DemoStage, load_policy, sla_policy
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.evaluation.run import Run
from dynamo_planner.policies.schedule import StaticLaw
from dynamo_planner.workloads.trace import Trace

INTERVAL_S = 1.0


class Outcome(Frozen):
    """What became of the requests under one policy.

    Args:
        policy: Its name.
        attainment: The share of requests that met both targets.
        worker_s: Worker-seconds while requests came, starting and draining workers included.
        simulated: Whether it was simulated; else it was measured on real processes.
    """

    policy: str
    attainment: float
    worker_s: float
    simulated: bool = True


class Simulation:
    """The stage of a demo in the simulator. Raises ``ValueError`` where the speed of its engines is unknown.

    Args:
        stage: What the demo plays on.
        length_s: Seconds over which its requests come.
    """

    def __init__(self, stage: DemoStage, length_s: float) -> None:
        if stage.cluster is None:
            raise ValueError("these engines cannot be simulated: nothing is known of their speed")
        due_s, isl, osl = (np.array(column) for column in zip(*map(_row, stage.requests), strict=True))
        self._stage, self._cluster = stage, stage.cluster
        self._trace = Trace(due_s, isl, osl, None, "demo", length_s)

    def run(self, name: str, policy: Policy, replicas: Mapping[str, int] | None = None) -> Run:
        """One policy, from one worker in each pool, or from this many."""
        pools = self._cluster.pools
        started = {pool: setup.replace(replicas=(replicas or {}).get(pool, 1)) for pool, setup in pools.items()}
        cluster = self._cluster.replace(pools=started)
        return run_policy(name, policy, trace=self._trace, cluster=cluster, sla=self._stage.sla, interval_s=INTERVAL_S)

    def constant_of_the_mean(self) -> Mapping[str, int]:
        """The workers that SlaPolicy would have for the mean of the load."""
        isl, osl = float(self._trace.isl.mean()), float(self._trace.osl.mean())
        mean_per_s = len(self._trace) / self._trace.duration_s
        pools = self._cluster.pools
        present = dict.fromkeys((setup.spec.role for setup in pools.values()), 1)
        targets = decide(
            sla_policy(INTERVAL_S, self._stage), requests_per_s=mean_per_s, isl=isl, osl=osl, **present
        ).targets
        return {pool: targets.get(pool, 1) for pool in pools}

    def constant_of_the_peak(self) -> Mapping[str, int]:
        """The fewest workers, as many in each pool as were tried, with which the promised share is in time all along.

        It is found with hindsight: one pool after the other gives up workers for as long as the promise is kept.
        """
        most = {pool: setup.spec.max_replicas or 1 for pool, setup in self._cluster.pools.items()}
        for pool, limit in most.copy().items():
            count = limit
            while count > 1 and self._keeps({**most, pool: count - 1}):
                count -= 1
            most[pool] = count
        return most

    def outcomes(self) -> tuple[Outcome, ...]:
        """SlaPolicy, LoadPolicy, the constant of the mean and that of the peak."""
        adaptive = (
            self.run(name, policy(3.0, self._stage)) for name, policy in (("sla", sla_policy), ("load", load_policy))
        )
        constants = (
            self._constant(f"{_counts(replicas)} all along ({why})", replicas)
            for why, replicas in (
                ("for the mean", self.constant_of_the_mean()),
                ("for the peak", self.constant_of_the_peak()),
            )
        )
        return tuple(
            Outcome(policy=run.name, attainment=run.score.attainment, worker_s=3600 * run.score.gpu_hours)
            for run in chain(adaptive, constants)
        )

    def _constant(self, name: str, replicas: Mapping[str, int]) -> Run:
        return self.run(name, StaticLaw(replicas=replicas), replicas)

    def _keeps(self, replicas: Mapping[str, int]) -> bool:
        return self._constant("constant", replicas).score.attainment >= self._stage.sla.attainment


def _row(request: TraceRequest) -> tuple[float, int, int]:
    return request.due_s, request.isl, request.osl


def _counts(replicas: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {pool}" for pool, count in replicas.items())
