"""Simulated requests per second, beside Dynamo's Rust simulator: ``python -m benchmarks.speed [--hours 6]``.

Both serve the same trace with the same fleets, step times and routing, one after the other on one core, and keep TTFT
and ITL of each request. What is counted is CPU seconds, without imports, compiling and reading files. Then a week of a
million requests with a policy that decides every 5 s.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers.simulator import MockerTiming, simulate
from benchmarks.shared import SHARED
from dynamo_planner import LoadPolicy, Planner, Policy, Profile, Sla, SlaPolicy
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.trace import Trace

PROFILE = "MEASURED_llama2-70b_a100_splitwise_tp4"
TRACE, RATE, SECONDS = "azure2023_conv", 30.0, 1750.0
LIMITS = {"max_num_seqs": 256, "max_num_batched_tokens": 2048}
FLEETS = {"disaggregated": {"prefill": 10, "decode": 10}, "aggregated": {"workers": 25}}
WEEK = "servegen_mlarge_wk1_x0.008"
TICK_S = 5.0
MAX_REPLICAS = 64


def setup_of(profile: Profile, fleet: dict[str, int], routing: str = "round_robin") -> ClusterSetup:
    options: dict[str, Any] = {
        "kv_tokens": int(profile.decode.max_kv_tokens),
        "gpus": profile.decode_points.gpus,
        "startup_s": 60.0,
        "max_replicas": MAX_REPLICAS,
        "routing": routing,
        **LIMITS,
    }
    timing = MockerTiming(profile)
    if "workers" in fleet:
        return ClusterSetup.aggregated(timing, fleet["workers"], **options)
    return ClusterSetup.disaggregated(timing, fleet["prefill"], fleet["decode"], **options)


def cpu_s(work: Callable[[], object]) -> float:
    began_s = time.process_time()
    work()
    return time.process_time() - began_s


def drive(cluster: SimulatedCluster, policy: Policy) -> int:
    """The production loop on simulated time to the end of the trace; returns the number of decisions."""
    planner = Planner(policy, cluster.source, cluster.executor, interval_s=TICK_S, clock=lambda: cluster.now_s)
    decisions = 0
    while cluster.elapsed_s < cluster.trace.duration_s:
        cluster.advance(TICK_S)
        planner.step()
        decisions += 1
    return decisions


def beside_dynamo(profile: Profile, trace: Trace, kind: str) -> None:
    fleet = FLEETS[kind]
    setup = setup_of(profile, fleet)
    SimulatedCluster(setup, trace.between(0, 60)).finish()  # compiles, or reads what was compiled
    cluster = SimulatedCluster(setup, trace)
    ours_s = cpu_s(lambda: (cluster.finish(), cluster.served()))
    busy = {name: cluster.busy_seconds(name) / cluster.elapsed_s / pool.replicas for name, pool in setup.pools.items()}
    governed = SimulatedCluster(setup, trace)
    governed_s = cpu_s(lambda: (drive(governed, LoadPolicy(adjustment_interval_s=60)), governed.served()))
    (theirs,) = simulate(trace, profile, [fleet], LIMITS)
    rate, governed_rate, their_rate = (len(trace) / seconds for seconds in (ours_s, governed_s, theirs.took_s))
    print(f"{kind}, {len(trace)} requests, {fleet}, busy: " + ", ".join(f"{n} {b:.0%}" for n, b in busy.items()))
    print(f"  Dynamo's simulator     {their_rate:10,.0f} requests/s")
    print(f"  ours                   {rate:10,.0f} requests/s   {rate / their_rate:6.1f} x")
    print(f"  ours with LoadPolicy   {governed_rate:10,.0f} requests/s   {governed_rate / their_rate:6.1f} x")


def a_week(profile: Profile, hours: float) -> None:
    trace = Trace.load(SHARED / "traces" / f"{WEEK}.npz").between(0, hours * 3600)
    setup = setup_of(profile, {"prefill": 2, "decode": 2}, "least_loaded")
    sla = Sla(ttft_ms=2000, itl_ms=100)
    policies: tuple[Policy, ...] = (LoadPolicy(adjustment_interval_s=60), SlaPolicy(sla=sla, profile=profile))
    for policy in policies:
        cluster = SimulatedCluster(setup, trace)
        began_s = time.perf_counter()
        decisions = 0

        def work(cluster: SimulatedCluster = cluster, policy: Policy = policy) -> None:
            nonlocal decisions
            decisions = drive(cluster, policy)

        took_s = cpu_s(work)
        wall_s = time.perf_counter() - began_s
        print(
            f"{hours:g} hours, {len(trace)} requests, {decisions} decisions of {policy.kind}: {took_s:.1f} s of CPU, "
            f"{wall_s:.1f} s in all, {took_s / decisions * 1e6:.0f} us a decision, "
            f"{cluster.gpu_seconds() / 3600:.0f} GPU-hours"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=168.0, help="how much of the week")
    parser.add_argument("--alone", action="store_true", help="without Dynamo's simulator")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    profile = Profile.load(SHARED / "profiles" / PROFILE)
    trace = Trace.load(SHARED / "traces" / f"{TRACE}.npz").between(0, SECONDS).at_rate(RATE, seed=1)
    if not arguments.alone:
        for kind in FLEETS:
            beside_dynamo(profile, trace, kind)
    a_week(profile, arguments.hours)
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
