"""The picture of the README: one day of a public trace under SlaPolicy, an HPA and a constant.

    python -m benchmarks.day_picture [--hours 24] [--out docs/day.png]

The engines are simulated, with the bundled profile of Llama 3.1 70B on four H100. SlaPolicy is told the targets and
the profile. The HPA is the Kubernetes one with what is common for LLM engines (requests in prefill, KV usage in
decode) and its default behaviour. The constant is chosen in hindsight: the fewest replicas of each pool that keep the
promise on this very day, which nobody can know in the morning.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.shared import SHARED
from dynamo_planner import HpaLaw, Policy, Profile, Sla, SlaPolicy, Stabilization, StaticLaw, StepLimit
from dynamo_planner.core.plot_style import INK, QUIET, plain
from dynamo_planner.evaluation import backtest
from dynamo_planner.evaluation.run import Run
from dynamo_planner.simulator import ClusterSetup
from dynamo_planner.workloads import Trace

TRACE, REQUESTS_PER_S = "servegen_mlarge_day0_x0.03", 30.0
PROFILE, GPUS = "llama31-70b_h100_vllm_tp4", 4
SLA = Sla(ttft_ms=1800, itl_ms=40, attainment=0.99)
STARTUP_S, MAX_REPLICAS, BIN_S = 120.0, 24, 300.0
COLOURS = {"SlaPolicy": "#1f77b4", "HPA": "#e07b39", "constant, in hindsight": "#8a94a6"}


def setup(prefill: int, decode: int) -> ClusterSetup:
    profile = Profile.bundled(PROFILE)
    return ClusterSetup.disaggregated(
        profile, prefill, decode, startup_s=STARTUP_S, max_replicas=MAX_REPLICAS, gpus=GPUS
    )


def attainment(trace: Trace, prefill: int, decode: int) -> float:
    policies = {"constant": StaticLaw(replicas={"prefill": prefill, "decode": decode})}
    report = backtest(policies, trace, setup(prefill, decode), sla=SLA, interval_s=600, processes=1)
    return report["constant"].score.attainment


def cheapest_constant(trace: Trace) -> dict[str, int]:
    """The fewest replicas of each pool, the other having plenty, and then together, that keep the promise."""

    def fewest(pool: str) -> int:
        low, high = 0, MAX_REPLICAS
        while high - low > 1:
            middle = (low + high) // 2
            counts = {"prefill": MAX_REPLICAS, "decode": MAX_REPLICAS, pool: middle}
            low, high = (low, middle) if attainment(trace, **counts) >= SLA.attainment else (middle, high)
        return high

    counts = {pool: fewest(pool) for pool in ("prefill", "decode")}
    while attainment(trace, **counts) < SLA.attainment:
        counts = {pool: count + 1 for pool, count in counts.items()}
    return counts


def gpus_over_time(run: Run, hours: float) -> tuple[np.ndarray, np.ndarray]:
    """GPUs of all pools in bins of time: starting and draining replicas hold theirs."""
    grid = np.arange(0.0, 3600 * hours, BIN_S)
    total = np.zeros(len(grid))
    for pool in {count.pool for count in run.counts}:
        own = [count for count in run.counts if count.pool == pool]
        at_s = np.array([count.at_s for count in own])
        held = np.array([count.ready + count.starting + count.draining for count in own])
        total += GPUS * held[np.maximum(np.searchsorted(at_s, grid, side="right") - 1, 0)]
    return grid / 3600, total


def draw(trace: Trace, runs: Mapping[str, Run], hours: float, out: Path) -> None:
    figure = Figure(figsize=(9.0, 4.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    load, gpus = figure.subplots(2, 1, sharex=True, height_ratios=[1, 2.4])
    counts = np.histogram(trace.arrival_s, np.arange(0.0, 3600 * hours + 60, 60.0))[0] / 60
    load.fill_between(np.arange(len(counts)) / 60, counts, color="#cbd5e1", linewidth=0)
    load.set_ylabel("requests/s")
    for name, run in runs.items():
        score = run.score
        label = f"{name}: {100 * score.attainment:.1f} % in time, {score.gpu_hours:,.0f} GPU-hours"
        own = name == "SlaPolicy"
        colour, width, order = COLOURS[name], 2.0 if own else 1.2, 3 if own else 2
        x, y = gpus_over_time(run, hours)
        gpus.step(x, y, where="post", color=colour, linewidth=width, zorder=order, label=label)
    gpus.set_ylabel("GPUs")
    gpus.set_ylim(0, None)
    gpus.set_xlabel("hour of the day", color=INK)
    gpus.set_xlim(0, hours)
    gpus.legend(loc="upper left", frameon=False, labelcolor=INK, fontsize=9)
    gpus.set_ylim(0, 1.35 * gpus.get_ylim()[1])
    for panel in (load, gpus):
        plain(panel)
    title = "One day of a public trace: 99 % of the requests are to meet TTFT 1.8 s and ITL 40 ms"
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=11)
    load.set_title("ServeGen m-large, Llama 3.1 70B on 4 x H100, simulated", loc="left", fontsize=9, color=QUIET)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="The picture of the README")
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--out", type=Path, default=Path("docs/day.png"))
    options = parser.parse_args()
    whole = Trace.load(SHARED / "traces" / f"{TRACE}.npz")
    trace = whole.at_rate(REQUESTS_PER_S, seed=1).between(0.0, 3600 * options.hours)
    constant = cheapest_constant(trace)
    first = {pool: math.ceil(count / 2) for pool, count in constant.items()}
    policies: dict[str, Policy] = {
        "SlaPolicy": SlaPolicy(sla=SLA, profile=PROFILE),
        "HPA": HpaLaw() | Stabilization() | StepLimit(),
        "constant, in hindsight": StaticLaw(replicas=constant),
    }
    runs = {}
    for name, policy in policies.items():
        interval_s = 15.0 if name == "HPA" else 10.0
        start = constant if name.startswith("constant") else first
        report = backtest({name: policy}, trace, setup(**start), sla=SLA, interval_s=interval_s, processes=1)
        runs[name] = report[name]
        score = runs[name].score
        print(f"{name:24} {100 * score.attainment:6.2f} %  {score.gpu_hours:8.1f} GPU-hours  {score.starts} starts")
    draw(trace, runs, options.hours, options.out)
    print(f"see {options.out}")


if __name__ == "__main__":
    main()
