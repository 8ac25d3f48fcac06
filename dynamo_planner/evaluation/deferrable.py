"""Backtests of interactive and deferrable requests on one pool, closed loop, with a simulated gateway.

>>> from dynamo_planner import LoadPolicy, Profile
>>> from dynamo_planner.workloads.generators import poisson
>>> cluster = ClusterSetup.aggregated(Profile.bundled("llama31-8b_h100_vllm_tp1"), replicas=1, startup_s=30)
>>> trace = poisson(requests_per_s=2, duration_s=60, seed=1)
>>> jobs = {"batch": [Job(0.0, 60.0, isl=[500] * 9, osl=[50] * 9)]}
>>> run = deferrable_backtest(LoadPolicy(), trace, jobs, cluster)  # a policy that releases nothing
>>> len(run.interactive), run.late, round(run.gpu_hours * 3600)
(120, {'batch': 9}, 60)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynamo_planner.core.policy import Policy
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.gateway import Job, SimulatedGateway
from dynamo_planner.simulator.results import ReplicaCounts, Served
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.trace import Trace

DRAIN_S = 300.0
"""How long after the trace requests may take to finish."""


@dataclass(frozen=True, repr=False)
class DeferrableRun:
    """A policy on interactive and deferrable requests.

    Args:
        interactive: How the interactive requests were served.
        deferrable: How those of each class were that were released.
        late: Requests of each class that were not done when they were due.
        gpu_hours: GPU-hours billed up to the end of the trace.
        counts: The replicas of each pool whenever they changed.
    """

    interactive: Served
    deferrable: Mapping[str, Served]
    late: Mapping[str, int]
    gpu_hours: float
    counts: Sequence[ReplicaCounts]


def deferrable_backtest(
    policy: Policy,
    trace: Trace,
    jobs: Mapping[str, Sequence[Job]],
    cluster: ClusterSetup,
    *,
    interval_s: float = 10.0,
    seed: int = 0,
) -> DeferrableRun:
    """Run a policy on the interactive requests of a trace with deferrable jobs beside them.

    Args:
        policy: Decides, and says how much is released (:attr:`~dynamo_planner.Decision.release_rates`).
        trace: The interactive requests.
        jobs: The jobs of each deferrable class.
        cluster: Serves both.
        interval_s: Seconds between two decisions. Default 10.
        seed: Decides all that is random in the cluster. Default 0.
    """
    simulated = SimulatedCluster(cluster, trace, seed=seed)
    gateway = SimulatedGateway(simulated, jobs)
    planner = Planner(policy, gateway, simulated.executor, interval_s=interval_s, clock=lambda: simulated.now_s)
    while simulated.elapsed_s < trace.duration_s:
        simulated.advance(interval_s)
        gateway.release(planner.step().decision.release_rates, interval_s)
    billed_s = simulated.gpu_seconds()
    simulated.finish(DRAIN_S)
    sent = {name: gateway.sent(name) for name in jobs}
    return DeferrableRun(
        interactive=gateway.interactive(),
        deferrable=sent,
        late={name: _late(own, sent[name]) for name, own in jobs.items()},
        gpu_hours=billed_s / 3600,
        counts=simulated.timeline,
    )


def _late(jobs: Sequence[Job], sent: Served) -> int:
    """The requests that were not done when they were due. They are sent by deadline: the n-th done is the n-th due."""
    due_s = np.repeat([job.due_s for job in jobs], [len(job.isl) for job in jobs])
    done_s = np.full(len(due_s), np.inf)
    finished = np.sort(sent.finished_s[np.isfinite(sent.finished_s)])
    done_s[: len(finished)] = finished
    return int((done_s > np.sort(due_s)).sum())
