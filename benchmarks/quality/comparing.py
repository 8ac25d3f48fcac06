"""One cell: every policy tuned on one part and scored on the other, beside the oracle; and all cells as one table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np

from benchmarks.quality.cells import Cell, Stage, stages
from benchmarks.quality.contenders import Configurations, contenders, spread
from dynamo_planner.core.policy import Policy
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.evaluation.oracle import oracle
from dynamo_planner.evaluation.score import Score

RESAMPLES = 2000
SHORTFALL_PRICE = 10.0
"""What each share of requests below the target adds to a policy's cost, as a share of it: 1 % too few costs 10 %."""


@dataclass(frozen=True)
class Effort:
    """How much is run: seconds to tune on and to score, configurations a policy, schedules that the oracle tries."""

    train_s: float
    test_s: float
    configurations: int
    schedules: int
    ablations: bool


@dataclass(frozen=True)
class Outcome:
    """A policy in a cell: its configuration, what it attained when tuned and when scored, and its cost in GPU-hours."""

    configuration: str
    tuned: float
    attainment: float
    worst_5_min: float
    gpu_hours: float
    starts: int


@dataclass(frozen=True)
class CellResult:
    """A cell: the yardstick, and what became of each policy. ``found_by`` says who found the cheapest schedule."""

    name: str
    target: float
    requests: int
    bound: float | None
    feasible: float | None
    found_by: str
    outcomes: Mapping[str, Outcome]
    broken_bound: Sequence[str]
    took_s: float

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_data(cls, data: Mapping[str, Any]) -> CellResult:
        outcomes = {name: Outcome(**outcome) for name, outcome in data["outcomes"].items()}
        return cls(**{**data, "outcomes": outcomes})


def compare(cell: Cell, effort: Effort, policies: str = "*", onto: CellResult | None = None) -> CellResult:
    """Tune every policy on the first part of a cell, score it on the second, and look for the optimum there.

    ``policies`` is a pattern that chooses some by name. With ``onto``, the result of an earlier run of the same cell,
    the others and the optimum are taken from that.
    """
    began = time.process_time()
    train, test = stages(cell, effort.train_s, effort.test_s)
    outcomes = dict(onto.outcomes) if onto else {}
    for name, choices in contenders(cell, train, effort.ablations).items():
        if not fnmatch(name, policies):
            continue
        configuration, policy, tuned = _tuned(cell, train, spread(choices, effort.configurations))
        score = _scored(cell, test, policy)
        outcomes[name] = Outcome(
            configuration, tuned, _attained(score), score.worst_5_min, score.gpu_hours, score.starts
        )
    if onto:
        bound, feasible, found_by = onto.bound, onto.feasible, onto.found_by
    else:
        best = oracle(test.trace, test.cluster, cell.sla, budget=effort.schedules)
        bound, feasible, found_by = best.bound_gpu_hours, best.feasible_gpu_hours, "search"
    good = {name: o.gpu_hours for name, o in outcomes.items() if o.attainment >= cell.sla.attainment}
    cheapest = min(good, key=lambda name: good[name], default=None)
    if cheapest is not None and (feasible is None or good[cheapest] < feasible):
        feasible, found_by = good[cheapest], cheapest
    broken = [name for name, hours in good.items() if bound is None or hours < bound * (1 - 1e-9)]
    return CellResult(
        name=cell.name,
        target=cell.sla.attainment,
        requests=len(test.trace),
        bound=bound,
        feasible=feasible,
        found_by=found_by,
        outcomes=outcomes,
        broken_bound=broken,
        took_s=time.process_time() - began,
    )


def pareto(cell: Cell, effort: Effort) -> dict[str, dict[float, Score]]:
    """Every configuration of every policy on the part to score, numbered from the boldest to the most careful."""
    train, test = stages(cell, effort.train_s, effort.test_s)
    return {
        name: {
            float(k): _scored(cell, test, policy)
            for k, (_, policy) in enumerate(spread(choices, effort.configurations))
        }
        for name, choices in contenders(cell, train, effort.ablations).items()
    }


def _attained(score: Score) -> float:
    return 1.0 if score.attainment_possible is None else score.attainment_possible


def _scored(cell: Cell, stage: Stage, policy: Policy) -> Score:
    return run_policy("", policy, trace=stage.trace, cluster=stage.cluster, sla=cell.sla).score


def _tuned(cell: Cell, stage: Stage, choices: Configurations) -> tuple[str, Policy, float]:
    """The cheapest configuration that attains the target, or else the one that attains the most."""
    scores = [(_attained(score), score.gpu_hours) for _, policy in choices for score in [_scored(cell, stage, policy)]]
    good = [k for k, (attained, _) in enumerate(scores) if attained >= cell.sla.attainment]
    chosen = min(good, key=lambda k: scores[k][1]) if good else max(range(len(scores)), key=lambda k: scores[k])
    return (*choices[chosen], scores[chosen][0])


@dataclass(frozen=True)
class Row:
    """A policy over all cells that have a feasible schedule; intervals are 95 %, by bootstrap over the cells.

    ``cost`` is the geometric mean of GPU-hours over the feasible schedule's, times 1 + 10 x the share by which it
    missed the target; ``ratio`` is without that, in the cells where it attained the target.
    """

    policy: str
    cells: int
    attained: int
    attainment: float
    worst: float
    ratio: float | None
    to_bound: float | None
    cost: float
    low: float
    high: float
    starts: float


def rows(results: Sequence[CellResult]) -> list[Row]:
    """A row for each policy, the cheapest first."""
    names = list(dict.fromkeys(name for result in results for name in result.outcomes))
    return sorted((_row(name, results) for name in names), key=lambda row: row.cost)


def _row(name: str, results: Sequence[CellResult]) -> Row:
    seen = [(r, r.outcomes[name]) for r in results if name in r.outcomes and r.feasible]
    logs = np.array(
        [
            np.log(o.gpu_hours / (r.feasible or np.nan)) + np.log1p(SHORTFALL_PRICE * max(r.target - o.attainment, 0.0))
            for r, o in seen
        ]
    )
    good = [(r, o) for r, o in seen if o.attainment >= r.target]
    random = np.random.default_rng(0)
    means = random.choice(logs, (RESAMPLES, len(logs))).mean(axis=1) if len(logs) else np.array([np.nan])
    low, high = np.exp(np.quantile(means, [0.025, 0.975]))
    return Row(
        policy=name,
        cells=len(seen),
        attained=len(good),
        attainment=float(np.mean([o.attainment for _, o in seen])),
        worst=float(min(o.attainment for _, o in seen)),
        ratio=_geometric([o.gpu_hours / (r.feasible or np.nan) for r, o in good]),
        to_bound=_geometric([o.gpu_hours / r.bound for r, o in good if r.bound]),
        cost=float(np.exp(logs.mean())),
        low=float(low),
        high=float(high),
        starts=float(np.mean([o.starts for _, o in seen])),
    )


def _geometric(values: Sequence[float]) -> float | None:
    return float(np.exp(np.mean(np.log(values)))) if values else None
