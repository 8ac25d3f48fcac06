"""Backtests: policies on a trace of requests and a simulated cluster, closed loop, side by side.

The loop is :class:`~dynamo_planner.runtime.planner.Planner`, the one that runs in production, on simulated time.

>>> from dynamo_planner import LoadPolicy, Profile, StaticLaw
>>> from dynamo_planner.workloads.generators import poisson
>>> cluster = ClusterSetup.aggregated(Profile.bundled("llama31-8b_h100_vllm_tp1"), replicas=1, startup_s=30)
>>> policies = {"load": LoadPolicy(adjustment_interval_s=30), "two": StaticLaw(replicas={"workers": 2})}
>>> trace = poisson(requests_per_s=10, duration_s=120, seed=1)
>>> report = backtest(policies, trace, cluster, sla=Sla(ttft_ms=500, itl_ms=25), processes=1)
>>> {name: round(run.score.gpu_hours * 60) for name, run in report.runs.items()}  # GPU-minutes
{'load': 2, 'two': 4}
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from functools import partial
from typing import Any

from dynamo_planner.core.decision import Decision
from dynamo_planner.core.policy import PlainFunction, Policy, as_policy
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.evaluation.progress import Progress, shown
from dynamo_planner.evaluation.report import Report
from dynamo_planner.evaluation.run import Run
from dynamo_planner.evaluation.score import score
from dynamo_planner.evaluation.work_floor import unattainable
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.trace import Trace

DRAIN_S = 300.0
"""How long after the trace requests may take to finish; one that is not finished then has missed."""

POLL_S = 0.2


def backtest(
    policies: Mapping[str, Policy | PlainFunction],
    trace: Trace,
    cluster: ClusterSetup,
    *,
    sla: Sla,
    interval_s: float = 10.0,
    seed: int = 0,
    processes: int | None = None,
    progress: Progress | bool = True,
) -> Report:
    """Run each policy on the same requests and the same cluster, deciding every ``interval_s``, and score them.

    They run side by side in as many ``processes`` as there are cores; with ``processes=1``, or where a policy cannot be
    pickled, as a lambda cannot, one after the other in this one. The same ``seed`` gives the same report.

    Where the trace has a ``start``, the policies see its times, so that calendars mean what they say, and the report
    shows them in its time zone. Otherwise time begins at 0.

    GPUs are billed from the launch of a worker to its release, or to the end of the trace: a trace is taken for a part
    of traffic that goes on. Requests have 300 s after it to finish.

    Args:
        policies: the policies by name.
        trace: the requests.
        cluster: the cluster that serves them.
        sla: the targets that runs are scored by.
        interval_s: seconds between two decisions; 10 by default.
        seed: decides all that is random in the cluster; 0 by default.
        processes: how many processes to use; the number of cores by default.
        progress: bars on a terminal or in a notebook, by default; ``False`` for none, or a function of your own that
            is called with the name of a policy and the share of the trace that it has been through.

    Raises ``ValueError`` where there is no policy, or ``interval_s`` is not a positive number.
    """
    if not policies:
        raise ValueError("policies: there are none; give one at least, by name")
    if not interval_s > 0:
        raise ValueError(f"interval_s must be a positive number of seconds, got {interval_s}")
    by_name = {name: as_policy(policy) for name, policy in policies.items()}
    task = partial(run_policy, trace=trace, cluster=cluster, sla=sla, interval_s=interval_s, seed=seed)
    count = min(processes or os.cpu_count() or 1, len(by_name))
    with shown(progress) as update:
        if count > 1 and _can_be_pickled(by_name):
            runs = _side_by_side(task, by_name, count, update)
        else:
            runs = {name: task(name, policy, progress=update) for name, policy in by_name.items()}
    return Report(trace=trace.name, sla=sla, runs=runs)


def run_policy(
    name: str,
    policy: Policy,
    *,
    trace: Trace,
    cluster: ClusterSetup,
    sla: Sla,
    interval_s: float = 10.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Run:
    """One policy on a trace; as :func:`backtest`, in this process."""
    began_s = 0.0 if trace.start is None else trace.start.timestamp()
    simulated = SimulatedCluster(cluster, trace, seed=seed, origin_s=began_s)
    planner = Planner(
        policy, simulated.source, simulated.executor, interval_s=interval_s, clock=lambda: simulated.now_s
    )
    decisions: list[Decision] = []
    billed_s: float | None = None
    while not simulated.over and simulated.elapsed_s < trace.duration_s + DRAIN_S:
        next_s = simulated.elapsed_s + interval_s
        if billed_s is None and next_s >= trace.duration_s:
            simulated.advance_to(trace.duration_s)
            billed_s = simulated.gpu_seconds()
        simulated.advance_to(next_s)
        decision = planner.step().decision
        if not decisions or decision.actions or _reason_codes(decision) != _reason_codes(decisions[-1]):
            decisions.append(decision.replace(state=None))
        if progress is not None:
            progress(name, min(simulated.elapsed_s / max(trace.duration_s, interval_s), 1.0))
    served = simulated.served()
    return Run(
        name=name,
        served=served,
        counts=simulated.timeline,
        workers=simulated.workers,
        decisions=decisions,
        start_s=simulated.origin_s,
        end_s=trace.duration_s,
        score=score(
            served,
            sla,
            gpu_s=billed_s or 0.0,
            starts=sum(0 < worker.launched_s < trace.duration_s for worker in simulated.workers),
            duration_s=trace.duration_s,
            unattainable=unattainable(trace, cluster, sla),
        ),
        sla=sla,
        start=trace.start,
    )


def _reason_codes(decision: Decision) -> tuple[tuple[str | None, str], ...]:
    return tuple((reason.pool, reason.code) for reason in decision.reasons)


def _can_be_pickled(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return False
    return True


_shares: Any = None
"""In a process of a backtest: how far each policy is, shared with the process that started it."""


def _share(shares: Any) -> None:
    global _shares  # noqa: PLW0603  # how a process pool hands shared memory over
    _shares = shares


def _in_process(task: Callable[..., Run], number: int, name: str, policy: Policy) -> Run:
    def progress(_: str, share: float) -> None:
        _shares[number] = share

    return task(name, policy, progress=progress)


def _side_by_side(
    task: Callable[..., Run], policies: Mapping[str, Policy], processes: int, progress: Progress
) -> dict[str, Run]:
    context = multiprocessing.get_context()
    shares = context.Array("d", len(policies), lock=False)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_share, initargs=(shares,)) as pool:
        futures: dict[str, Future[Run]] = {
            name: pool.submit(_in_process, task, number, name, policy)
            for number, (name, policy) in enumerate(policies.items())
        }
        left = set(futures.values())
        while left:
            left = wait(left, timeout=POLL_S).not_done
            for number, name in enumerate(futures):
                progress(name, shares[number])
        return {name: future.result() for name, future in futures.items()}
