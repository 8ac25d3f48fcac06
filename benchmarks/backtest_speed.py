"""How long a day of one model takes to backtest: ``OMP_NUM_THREADS=1 python -m benchmarks.backtest_speed``.

Azure's Tuesday at 3 requests/s, a disaggregated A100 service, a decision every 10 s: 8,640 of them. CPU seconds, by
whom: the simulator, ``decide``, and the loop around them (metrics, snapshot, actions). Exits with 1 over the budget.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import numpy as np

from benchmarks.shared import SHARED
from dynamo_planner import Planner, Policy, Profile, Sla, SlaPolicy, StaticLaw
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.setup import ClusterSetup, MetricsSetup
from dynamo_planner.workloads.trace import Trace

PROFILE = "MEASURED_llama2-70b_a100_splitwise_tp4"
TRACE, RATE, TICK_S = "azure2024_conv_tue_x0.2_recon", 3.0, 10.0
SLA = Sla(ttft_ms=7100, itl_ms=95)

DAY_S, MEDIAN_MS, P99_MS = 8.0, 0.6, 2.0
"""The budget of a whole day in CPU seconds, and of a decision."""


def driven(policy: Policy, trace: Trace, profile: Profile) -> tuple[float, float, np.ndarray]:
    """CPU seconds of the simulator, of the loop, and of each decision."""
    setup = ClusterSetup.disaggregated(
        profile,
        3,
        3,
        startup_s=120,
        max_replicas=32,
        max_num_batched_tokens=8192,
        metrics=MetricsSetup(quantiles=(0.9,)),
    )
    cluster = SimulatedCluster(setup, trace)
    took: list[float] = []
    decide = policy.decide

    def clocked(*given: Any) -> Any:
        began_s = time.thread_time()
        decision = decide(*given)
        took.append(time.thread_time() - began_s)
        return decision

    object.__setattr__(policy, "decide", clocked)  # a policy is frozen
    planner = Planner(policy, cluster.source, cluster.executor, interval_s=TICK_S, clock=lambda: cluster.now_s)
    simulator_s = steps_s = 0.0
    while cluster.elapsed_s + TICK_S <= trace.duration_s:
        began_s = time.thread_time()
        cluster.advance(TICK_S)
        advanced_s = time.thread_time()
        planner.step()
        simulator_s += advanced_s - began_s
        steps_s += time.thread_time() - advanced_s
    return simulator_s, steps_s - sum(took), np.array(took)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0)
    hours = parser.parse_args().hours
    profile = Profile.load(SHARED / "profiles" / PROFILE)
    trace = Trace.load(SHARED / "traces" / f"{TRACE}.npz").at_rate(RATE, seed=1).between(0, 3600 * hours)
    driven(StaticLaw(replicas={"prefill": 3, "decode": 3}), trace.between(0, 600), profile)  # compiles
    simulator_s, loop_s, took = driven(SlaPolicy(sla=SLA, profile=profile), trace, profile)
    total_s = simulator_s + loop_s + float(took.sum())
    median, p99 = np.quantile(1000 * took, [0.5, 0.99]).tolist()
    print(
        f"{len(trace)} requests, {len(took)} decisions: {total_s:.1f} s of CPU time, {total_s * 24 / hours:.1f} s a day"
    )
    print(f"simulator {simulator_s:.1f} s, loop {loop_s:.1f} s ({1000 * loop_s / len(took):.2f} ms a decision)")
    print(f"decide {took.sum():.1f} s: median {median:.2f} ms, 99th percentile {p99:.2f} ms")
    return int(total_s * 24 / hours > DAY_S or median > MEDIAN_MS or p99 > P99_MS)


if __name__ == "__main__":
    sys.exit(main())
