"""Closed loops: policies on a simulated cluster, with their decisions and the final score; and generated traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from dynamo_planner import GpuBudget, LoadPolicy, Policy, Profile, Sla, SlaPolicy, Stabilization
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.policies.sla import LearnedCapacity
from dynamo_planner.simulator.setup import ClusterSetup, Faults, MetricsSetup
from dynamo_planner.workloads.generators import LogNormalLengths, burst_and_lull, drifting, following, poisson
from dynamo_planner.workloads.rate_curves import constant, diurnal, flash_crowd, ramp
from dynamo_planner.workloads.trace import Trace
from tests.golden.plain import digest, plain
from tests.golden.service import told

SLA = Sla(ttft_ms=500, itl_ms=25)
PROFILE = Profile.bundled("llama31-8b_h100_vllm_tp1")
DURATION_S = 1800.0

SETUPS = {
    "aggregated": ClusterSetup.aggregated(
        PROFILE, replicas=1, startup_s=60, max_replicas=12, metrics=MetricsSetup(quantiles=(0.5, 0.99))
    ),
    "disaggregated": ClusterSetup.disaggregated(
        PROFILE,
        prefill=1,
        decode=1,
        startup_s=60,
        max_replicas=12,
        kv_transfer_s=0.01,
        faults=Faults(startup_cv=0.2, crash_mtbf_s=2400),
        metrics=MetricsSetup(missing_share=0.05, delay_s=2),
    ),
}
POLICIES: dict[str, Policy] = {
    "sla": SlaPolicy(sla=SLA, profile=PROFILE, capacity=LearnedCapacity(offset_ms=10)),
    "load": LoadPolicy(
        adjustment_interval_s=60,
        prefill_queue_up=0.5,
        prefill_queue_down=0.1,
        decode_kv_up=0.08,
        decode_kv_down=0.03,
    )
    | Stabilization(down_window_s=120)
    | GpuBudget(max_gpus=10),
}


def _trace(requests_per_s: float) -> Trace:
    rate = flash_crowd(requests_per_s, at_s=500, factor=4, stay_s=400)
    return following(
        rate, DURATION_S, seed=11, overdispersion=0.05, osl=LogNormalLengths(median=60, mean=80, maximum=400)
    )


def _loop(policy: str, setup: str, requests_per_s: float) -> Iterator[Any]:
    run = run_policy(
        policy,
        POLICIES[policy],
        trace=_trace(requests_per_s),
        cluster=SETUPS[setup],
        sla=SLA,
        interval_s=20.0,
        seed=3,
    )
    yield {"score": plain(run.score.model_dump(mode="json"))}
    yield {"workers": len(run.workers), "counts": digest([list(vars(counts).values()) for counts in run.counts])}
    for decision in run.decisions:
        line = told(decision)
        reasons = line.pop("reasons", [])
        del line["state"]
        yield {"at_s": decision.at_s, **line, "codes": [reason.split()[0] for reason in reasons]}


def _traces() -> Iterator[Any]:
    traces = {
        "poisson": poisson(8, 300, seed=1),
        "constant": following(constant(5), 120, seed=2),
        "diurnal": following(diurnal(6, period_s=600), 600, seed=3, overdispersion=0.2),
        "ramp": following(ramp(1, 9, from_s=60, over_s=60), 240, seed=4),
        "burst and lull": burst_and_lull(3, 9, seed=5, length_scale=0.5),
        "drifting": drifting(poisson(8, 300, seed=6), from_s=100, over_s=100, isl_factor=2, osl_factor=0.5),
    }
    for name, trace in traces.items():
        columns = [np.asarray(column).tolist() for column in (trace.arrival_s, trace.isl, trace.osl)]
        yield {"trace": name, "requests": len(trace), "duration_s": trace.duration_s, "columns": digest(columns)}


SCENARIOS: dict[str, Callable[[], Iterator[Any]]] = {
    **{
        f"closed loop {policy} {setup}": partial(_loop, policy, setup, requests_per_s)
        for policy in POLICIES
        for setup, requests_per_s in (("aggregated", 6.0), ("disaggregated", 8.0))
    },
    "traces": _traces,
}
