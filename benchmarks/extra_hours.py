"""Where the GPU-hours of SlaPolicy beyond the best schedule come from, in windows of the blind benchmark.

``python -m benchmarks.extra_hours --onto RESULTS.json --cells '*mooncake*'``, with the results of
``python -m benchmarks.quality --blind --quick --json RESULTS.json``. For each window there are two tables.

**Steps** are of one run. Each is the GPU-hours of a pool if at every tick it had as many replicas as there are up to
this step of the decision, so that the difference of two steps is what the second adds:

=============  ======================================================================================================
``true rate``  the sizing at the rate that comes in the minute after a start would be ready
``expected``   at the expected rate: errors of the forecast
``quantile``   at the ``quantile`` of it
``planned``    at the planned rate, with the caution of the account of misses
``wanted``     with what drains a backlog, saturation and the least that keeps up
``target``     with what is kept before it goes, lost replicas and spares
``billed``     from launch to release: starts and drains
=============  ======================================================================================================

``--exact`` adds ``by simulation``, the smallest count that keeps the even part of the promise in each five minutes, the
other pool ample.

**Counterfactuals** are runs of their own, each with one part exchanged: GPU-hours over the best schedule, attainment.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.blind.contest import matches
from benchmarks.quality.blind.plan import planned
from benchmarks.quality.blind.results import WindowResult
from benchmarks.quality.cells import Cell, Stage
from dynamo_planner import SlaPolicy, StaticLaw
from dynamo_planner.core.decision import Reason
from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.evaluation.run import Run
from dynamo_planner.evaluation.work_floor import unattainable
from dynamo_planner.forecasting.rate_forecaster import RateForecaster
from dynamo_planner.policies.sla.attainment import EvenSplit
from dynamo_planner.policies.sla.plan import PlanInputs, PlanMemory, Planned, SkiRental
from dynamo_planner.policies.sla.workload import RecentWorkload, WorkloadMemory
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.sizing import Arrivals, Lengths, Load
from dynamo_planner.workloads.trace import Trace

LEVEL_S, SEGMENT_S, WARM_UP_S = 60.0, 300.0, 60.0
SAMPLE, LEAST_LENGTHS, MOST_REPLICAS = 64, 64, 64
STEPS = ("true rate", "expected", "quantile", "planned", "wanted", "target", "billed")


class KnownRate(NamedTuple):
    """A forecast without error."""

    mean: float

    def quantile(self, level: float) -> float:
        return self.mean


class TrueRates(RateForecaster, kind="true_rates"):
    """The rates that come."""

    trace: Any

    def update(self, state: Any, at_s: float, rate_per_s: float | None, span_s: float) -> Any:
        return at_s

    def forecast(self, state: Any, at_s: float, horizon_s: float, window_s: float | None = None) -> KnownRate:
        return KnownRate(rate_ahead(self.trace, at_s + horizon_s, window_s or LEVEL_S))


class TrueLengths(RecentWorkload, kind="true_lengths"):
    """The lengths of the ten minutes around now, and the recent burstiness."""

    trace: Any

    def load(
        self, state: WorkloadMemory | None, requests_per_s: float, traffic: Traffic, level_s: float
    ) -> Load | None:
        load = super().load(state, requests_per_s, traffic, level_s)
        if load is None or state is None or state.slots is None:
            return load
        around_s = round(state.slots.end_s / SEGMENT_S) * SEGMENT_S + np.array([-SEGMENT_S, SEGMENT_S])
        near = slice(*np.searchsorted(self.trace.arrival_s, around_s))
        if near.stop - near.start < LEAST_LENGTHS:
            return load
        return replace(load, isl=of_values(self.trace.isl[near]), osl=of_values(self.trace.osl[near]))


class SteadyArrivals(RecentWorkload, kind="steady_arrivals"):
    """The recent lengths, arriving as a Poisson process."""

    def load(
        self, state: WorkloadMemory | None, requests_per_s: float, traffic: Traffic, level_s: float
    ) -> Load | None:
        load = super().load(state, requests_per_s, traffic, level_s)
        return load and replace(load, arrivals=Arrivals(load.arrivals.requests_per_s))


class Traced(SkiRental, kind="traced"):
    """The plan, which writes down its steps."""

    trace: Any
    steps: Any

    def plan(self, state: PlanMemory | None, inputs: PlanInputs) -> Planned:
        planned = super().plan(state, inputs)
        tick, outlook, size = inputs.tick, inputs.outlook, inputs.size
        if size is not None and planned.last is not None:
            demand = outlook.demand(tick.lead_s, self.quantile).times(tick.share)
            true = tick.share * rate_ahead(self.trace, tick.snapshot.at_s + tick.lead_s, outlook.level_s)
            near = planned.last.required
            rates = true, demand.expected, demand.then, planned_rate(planned.reasons)
            counts = [max(size(rate, near).replicas, 1) for rate in rates]
            at_s, name = tick.snapshot.at_s, tick.name
            self.steps.append((at_s, name, *counts, planned.last.required, planned.last.target))
        return planned


def planned_rate(reasons: Sequence[Reason]) -> float:
    """The rate that a decision was sized for."""
    return next(float(reason.values["planned"] or 0) for reason in reasons if reason.code == "DemandForecast")


def rate_ahead(trace: Trace, at_s: float, window_s: float) -> float:
    """The arrival rate of a window that begins at this second of a trace, or of its last one."""
    at_s = min(max(at_s, 0.0), max(trace.duration_s - window_s, 0.0))
    first, last = np.searchsorted(trace.arrival_s, [at_s, at_s + window_s])
    return float(last - first) / window_s


def of_values(values: NDArray[Any]) -> Lengths:
    """Lengths that are distributed like these."""
    sample = np.quantile(values, (np.arange(SAMPLE) + 0.5) / SAMPLE)
    sample = np.maximum(sample * (values.mean() / sample.mean()), 1.0)
    return Lengths(float(values.mean()), float(values.var() / values.mean() ** 2), sample)


@dataclass
class Split:
    """One window: what each step and each part costs."""

    name: str
    cell: Cell
    stage: Stage
    best: float
    attainable: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        self.attainable = ~unattainable(self.stage.trace, self.stage.cluster, self.cell.sla)

    def run(self, **parts: Any) -> Run:
        policy = SlaPolicy(sla=self.cell.sla, profile=self.cell.profile(), **parts)
        return run_policy("", policy, trace=self.stage.trace, cluster=self.stage.cluster, sla=self.cell.sla)

    def steps(self) -> dict[str, dict[str, float]]:
        """GPU-hours of each pool by the steps of its decisions."""
        rows: list[Any] = []
        run = self.run(plan=Traced(trace=self.stage.trace, steps=rows))
        end_s, found = self.stage.trace.duration_s, dict[str, dict[str, float]]()
        for pool, setup in self.stage.cluster.pools.items():
            own = np.array([(row[0] - run.start_s, *row[2:]) for row in rows if row[1] == pool], float)
            own = own[own[:, 0] < end_s]
            spans_s = np.diff(np.append(own[:, 0], end_s))
            hours = (own[:, 1:] * spans_s[:, None]).sum(axis=0) / spans_s.sum() * end_s / 3600 * setup.spec.gpus
            billed = sum(worker.gpu_seconds(end_s) for worker in run.workers if worker.pool == pool) / 3600
            found[pool] = dict(zip(STEPS, [*hours.tolist(), billed], strict=True))
        return found

    def exact(self) -> dict[str, float]:
        """GPU-hours of the smallest count of each pool that keeps its part of the promise in each five minutes."""
        trace, pools = self.stage.trace, self.stage.cluster.pools
        share = 1 - (1 - self.cell.sla.attainment) / len(pools)
        found = {}
        for pool, setup in pools.items():
            hours, near = 0.0, setup.replicas
            for begin in np.arange(0.0, trace.duration_s, SEGMENT_S):
                end = min(begin + SEGMENT_S, trace.duration_s)
                part = trace.between(max(begin - WARM_UP_S, 0.0), end)
                near = self._least(pool, part, min(begin, WARM_UP_S), share, near)
                hours += near * (end - begin) / 3600 * setup.spec.gpus
            found[pool] = hours
        return found

    def _least(self, pool: str, part: Trace, warm_s: float, share: float, near: int) -> int:
        """The smallest count that keeps the share of what comes after the warm-up, searched for from ``near`` on."""
        most = self.stage.cluster.pools[pool].spec.max_replicas or MOST_REPLICAS
        low, high, count = 0, most, min(near, most)
        while high - low > 1:
            if self._keeps(pool, part, warm_s, share, count):
                high = count
            else:
                low = count
            count = int(0.8 * high) if not low else ceil(1.25 * low) if high == most else (low + high) // 2
            count = min(max(count, low + 1), max(high - 1, 1))
        return high

    def _keeps(self, pool: str, part: Trace, warm_s: float, share: float, count: int) -> bool:
        counts = {name: own.spec.max_replicas or MOST_REPLICAS for name, own in self.stage.cluster.pools.items()}
        counts[pool] = count
        pools = {name: own.replace(replicas=counts[name]) for name, own in self.stage.cluster.pools.items()}
        cluster: ClusterSetup = self.stage.cluster.replace(pools=FrozenMap(pools))
        run = run_policy(
            "", StaticLaw(replicas=counts), trace=part, cluster=cluster, sla=self.cell.sla, interval_s=60.0
        )
        own = (run.served.arrival_s >= warm_s) & ~unattainable(part, cluster, self.cell.sla)
        return not own.any() or bool(run.served.meets(self.cell.sla)[own].mean() >= share)

    def counterfactuals(self) -> Mapping[str, Callable[[], Mapping[str, Any]]]:
        """The parts that are exchanged, by what they show."""
        trace = self.stage.trace
        return {
            "defaults": dict,
            "true rates": lambda: {"forecaster": TrueRates(trace=trace)},
            "true lengths": lambda: {"workload": TrueLengths(trace=trace)},
            "Poisson arrivals": lambda: {"workload": SteadyArrivals()},
            "even split": lambda: {"attainment": EvenSplit()},
            "median forecast": lambda: {"plan": SkiRental(quantile=0.5)},
            "nothing kept": lambda: {"plan": SkiRental(restart_cost=0.0)},
        }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extra_hours", description=__doc__)
    parser.add_argument("--onto", type=Path, required=True, help="results of the blind benchmark: the best schedules")
    parser.add_argument("--cells", default="*", help="windows by name, '|' between two patterns")
    parser.add_argument("--parts", default="*", help="counterfactuals by name, '|' between two patterns")
    parser.add_argument("--full", action="store_true", help="windows of the full suite")
    parser.add_argument("--exact", action="store_true", help="search for the smallest counts by simulation")
    given = parser.parse_args(arguments)
    cells = json.loads(given.onto.read_text(encoding="utf-8"))["cells"]
    known = {result.name: result for result in map(WindowResult.of_data, cells)}
    for piece in planned(not given.full):
        result = known.get(piece.name)
        if not matches(piece.name, given.cells) or result is None or result.best is None:
            continue
        split = Split(piece.name, *piece.stage(), result.best.gpu_hours)
        show(split, result, given.parts, exact=given.exact)
    return 0


def show(split: Split, result: WindowResult, parts: str, *, exact: bool) -> None:
    print(f"\n### {split.name}: best schedule {split.best:.2f} GPU-hours\n", flush=True)
    steps = split.steps()
    by_simulation = split.exact() if exact else {}
    columns = ["best", *(["by simulation"] if exact else []), *STEPS]
    print("| pool | " + " | ".join(columns) + " |\n" + "|---" * (len(columns) + 1) + "|")
    for pool, own in steps.items():
        best = scheduled(result, split.stage, pool)
        hours = [best, *([by_simulation[pool]] if exact else []), *own.values()]
        print(f"| {pool} | " + " | ".join(f"{each:.2f}" for each in hours) + " |", flush=True)
    print("\n| run with | GPU-hours over the best | attainment |\n|---|---|---|")
    for name, make in split.counterfactuals().items():
        if matches(name, parts):
            run = split.run(**make())
            attainment = run.served.meets(split.cell.sla)[split.attainable].mean()
            print(f"| {name} | {run.score.gpu_hours / split.best:.3f} | {attainment:.4f} |", flush=True)


def scheduled(result: WindowResult, stage: Stage, pool: str) -> float:
    """The GPU-hours of a pool by the targets of the best schedule, without starts and drains."""
    if result.best is None or pool not in result.best.targets:
        return float("nan")
    steps = [(0.0, stage.cluster.pools[pool].replicas), *result.best.targets[pool]]
    ends = [at_s for at_s, _ in steps[1:]] + [stage.trace.duration_s]
    hours = sum(max(end - max(at_s, 0.0), 0.0) * count for (at_s, count), end in zip(steps, ends, strict=True)) / 3600
    return hours * stage.cluster.pools[pool].spec.gpus


if __name__ == "__main__":
    raise SystemExit(main())
