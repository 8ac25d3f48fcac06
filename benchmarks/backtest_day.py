"""How long a backtest of a day with four policies takes: ``python -m benchmarks.backtest_day`` (extra ``fast``).

A made day of 200,000 requests with a rush hour, served by one bundled profile, in both modes; SlaPolicy, LoadPolicy,
KEDA's law and a constant, side by side in one process a core, a decision every 10 s. Seconds of the clock, with the
start of the processes, compiling and the report, and CPU seconds, which a busy machine changes less. Exits with 1 where
the clock is over the budget.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from typing import Any

from dynamo_planner import ClusterSetup, KedaSloLaw, LoadPolicy, Policy, Profile, Sla, SlaPolicy, StaticLaw, backtest
from dynamo_planner.workloads import LogNormalLengths, diurnal, following

DAY_S, REQUESTS, BUDGET_S = 86_400.0, 200_000, 60.0
SLA = Sla(ttft_ms=4000, itl_ms=40)
ISL, OSL = LogNormalLengths(median=5000, mean=8000), LogNormalLengths(median=400, mean=600)
"""Long prompts, so that a few replicas are needed and their number changes."""


def policies(profile: Profile, start: dict[str, int]) -> dict[str, Policy]:
    return {
        "sla": SlaPolicy(sla=SLA, profile=profile),
        "load": LoadPolicy(),
        "keda": KedaSloLaw(sla=SLA),
        "constant": StaticLaw(replicas=start),
    }


def cpu_s() -> float:
    """CPU seconds of this process and of those that ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    processes = parser.parse_args().processes
    profile = Profile.bundled("llama31-70b_h100_vllm_tp4")
    trace = following(diurnal(REQUESTS / DAY_S), DAY_S, seed=1, isl=ISL, osl=OSL)
    options: dict[str, Any] = {"startup_s": 60, "max_replicas": 64}
    slowest_s = 0.0
    for start in ({"prefill": 1, "decode": 1}, {"workers": 2}):
        build = ClusterSetup.aggregated if "workers" in start else ClusterSetup.disaggregated
        cluster = build(profile, *start.values(), **options)
        began_s, began_cpu_s = time.perf_counter(), cpu_s()
        report = backtest(policies(profile, start), trace, cluster, sla=SLA, processes=processes)
        print(report.table())
        took_s = time.perf_counter() - began_s
        slowest_s = max(slowest_s, took_s)
        print(
            f"{len(trace)} requests, four policies, {processes} processes: {took_s:.1f} s (budget {BUDGET_S:g} s), "
            f"{cpu_s() - began_cpu_s:.1f} s of CPU time\n"
        )
    return int(slowest_s > BUDGET_S)


if __name__ == "__main__":
    sys.exit(main())
