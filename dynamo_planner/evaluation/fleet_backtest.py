"""Backtests of several models on shared GPUs: a fleet on a trace and a simulated cluster for each model, closed loop.

The loop is :class:`~dynamo_planner.runtime.FleetPlanner`, the one that runs in production, on simulated time. Each
model has a cluster of its own, and what they hold together is what the fleet's budgets allow.

>>> from dynamo_planner import LoadPolicy, Profile, Sla
>>> from dynamo_planner.fleet import Budget, Fleet, Member
>>> from dynamo_planner.simulator.cluster import ClusterSetup
>>> from dynamo_planner.workloads.generators import poisson
>>> cluster = ClusterSetup.aggregated(Profile.bundled("llama31-8b_h100_vllm_tp1"), replicas=1, startup_s=30)
>>> trace, sla = poisson(requests_per_s=10, duration_s=120, seed=1), Sla(ttft_ms=500, itl_ms=25)
>>> services = {name: Service(trace, cluster, sla) for name in ("chat", "batch")}
>>> members = {name: Member(policy=LoadPolicy(adjustment_interval_s=30)) for name in services}
>>> run = fleet_backtest(Fleet(models=members, budgets={"gpu": Budget(total=2)}), services)
>>> run.held(60.0), round(run.gpu_hours * 60), run.attainment > 0.9
({'chat': 1.0, 'batch': 1.0}, 4, True)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dynamo_planner.core.decision import Decision
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.run import Run
from dynamo_planner.evaluation.score import score
from dynamo_planner.evaluation.work_floor import unattainable
from dynamo_planner.fleet import Fleet
from dynamo_planner.runtime.fleet_planner import FleetPlanner
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.trace import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAIN_S = 300.0
"""How long after the traces requests may take to finish; one that is not finished then has missed."""


class Service(NamedTuple):
    """One model of a backtest: its requests, the cluster that serves them, and the targets that it is scored by."""

    trace: Trace
    cluster: ClusterSetup
    sla: Sla


@dataclass(frozen=True, repr=False)
class FleetRun:
    """A fleet on the traces of its models.

    Args:
        runs: The run of each model.
        gpus: GPUs of a replica, by model and pool.
    """

    runs: Mapping[str, Run]
    gpus: Mapping[str, Mapping[str, int]]

    @property
    def gpu_hours(self) -> float:
        """GPU-hours billed, of all models."""
        return sum(run.score.gpu_hours for run in self.runs.values())

    @property
    def attainment(self) -> float:
        """The share of all requests, of whichever model, that met both targets of theirs."""
        scores = [run.score for run in self.runs.values()]
        return sum(own.attainment * own.requests for own in scores) / max(sum(own.requests for own in scores), 1)

    def held(self, at_s: float) -> dict[str, float]:
        """GPUs that each model holds at a second of the traces, with those of starting and draining replicas."""
        return {name: self._held(name, at_s) for name in self.runs}

    def _held(self, name: str, at_s: float) -> float:
        counts = {own.pool: own for own in self.runs[name].counts if own.at_s <= at_s}  # the last one of each pool
        return float(
            sum(self.gpus[name][pool] * (own.ready + own.starting + own.draining) for pool, own in counts.items())
        )

    def plot(self, ax: Any = None) -> Figure:
        """Who had which GPUs when (extra ``plot``). ``ax`` are axes to draw on; a new figure by default."""
        from dynamo_planner.core.notebook_figure import axes_or_new, figure_of  # noqa: PLC0415  # needs the extra

        axes = axes_or_new(ax, figsize=(9, 3.5))
        end_s = max(run.end_s for run in self.runs.values())
        at_s = np.linspace(0, end_s, 600)
        held = [[self._held(name, float(second)) for second in at_s] for name in self.runs]
        axes.stackplot(at_s / 3600, held, labels=list(self.runs), step="post")
        axes.set(xlabel="hour", ylabel="GPUs", xlim=(0, end_s / 3600))
        axes.legend(loc="upper left", fontsize="small")
        return figure_of(axes)

    def __repr__(self) -> str:
        return f"FleetRun({len(self.runs)} models: {self.attainment:.2%} in time, {self.gpu_hours:.1f} GPU-hours)"


def fleet_backtest(
    fleet: Fleet, services: Mapping[str, Service], *, interval_s: float = 10.0, seed: int = 0
) -> FleetRun:
    """Run a fleet on the requests of its models, deciding every ``interval_s``, and score each model.

    Args:
        fleet: Decides; its budgets are what the models share.
        services: The requests and the cluster of each model.
        interval_s: Seconds between two decisions. Default 10.
        seed: Decides all that is random in the clusters. Default 0.
    """
    clusters = {
        name: SimulatedCluster(own.cluster, own.trace, seed=seed + n) for n, (name, own) in enumerate(services.items())
    }
    elapsed = {"s": 0.0}
    planners = {
        name: Planner(fleet.models[name].policy, own.source, own.executor, clock=lambda: elapsed["s"], name=name)
        for name, own in clusters.items()
    }
    loop = FleetPlanner(fleet, planners, interval_s=interval_s, clock=lambda: elapsed["s"])
    end_s = max(own.trace.duration_s for own in services.values())
    billed_s: dict[str, float] = {}
    decisions: dict[str, list[Decision]] = {name: [] for name in services}
    while elapsed["s"] < end_s + DRAIN_S and not all(own.over for own in clusters.values()):
        elapsed["s"] += interval_s
        for name, cluster in clusters.items():
            if name not in billed_s and elapsed["s"] >= end_s:
                cluster.advance_to(end_s)
                billed_s[name] = cluster.gpu_seconds()
            cluster.advance_to(elapsed["s"])
        for name, step in loop.step().items():
            if step.decision.actions:
                decisions[name].append(step.decision.replace(state=None))
    runs = {}
    for name, cluster in clusters.items():
        own, served = services[name], cluster.served()
        runs[name] = Run(
            name=name,
            served=served,
            counts=cluster.timeline,
            workers=cluster.workers,
            decisions=decisions[name],
            start_s=0.0,
            end_s=end_s,
            score=score(
                served,
                own.sla,
                gpu_s=billed_s.get(name, cluster.gpu_seconds()),
                starts=sum(0 < worker.launched_s < end_s for worker in cluster.workers),
                duration_s=end_s,
                unattainable=unattainable(own.trace, own.cluster, own.sla),
            ),
            sla=own.sla,
        )
    gpus = {name: {pool: one.spec.gpus for pool, one in own.cluster.pools.items()} for name, own in services.items()}
    return FleetRun(runs, gpus)
