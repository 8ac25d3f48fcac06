"""One window: the policies with their defaults, peers tuned on the window itself, and the best schedule."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.blind import peers
from benchmarks.quality.blind.results import Best, Outcome, WindowResult
from benchmarks.quality.blind.scenarios import Scenario
from benchmarks.quality.blind.windows import Window
from benchmarks.quality.cells import MOST_REPLICAS, Cell, Stage
from benchmarks.quality.contenders import Configurations, spread
from dynamo_planner import Policy, StaticLaw
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.evaluation.oracle import Targets, oracle
from dynamo_planner.evaluation.run import Run
from dynamo_planner.evaluation.work_floor import unattainable

HOUR_S, FIVE_MIN_S, BIN_S = 3600.0, 300.0, 60.0
LEAST_CONSTANT, MOST_CONSTANT = 1.0, MOST_REPLICAS
"""Constants are looked for between these multiples of the mean need."""

BEATEN = 0.02
"""A best schedule that a policy beats by more than this is searched for again."""

CONSTANTS = 10
"""The most constants that are tried."""


@dataclass(frozen=True)
class Effort:
    """How much is run: configurations of a peer in hindsight, and schedules that the search simulates."""

    configurations: int
    schedules: int


@dataclass
class Contest:
    """The policies of one window, and the cheapest targets that kept the promise."""

    cell: Cell
    stage: Stage
    target: float
    attainable: NDArray[np.bool_]
    cheapest: Best | None = None

    def run(self, name: str, configuration: str, policy: Policy) -> Outcome:
        """Run a policy, and keep its targets where they are the cheapest so far that keep the promise."""
        run = run_policy("", policy, trace=self.stage.trace, cluster=self.stage.cluster, sla=self.cell.sla)
        met = run.served.meets(self.cell.sla)
        met, arrival_s = met[self.attainable], run.served.arrival_s[self.attainable]
        outcome = Outcome(
            configuration=configuration,
            attainment=float(met.mean()) if len(met) else 1.0,
            gpu_hours=run.score.gpu_hours,
            worst_hour=worst(arrival_s, met, HOUR_S),
            worst_5_min=worst(arrival_s, met, FIVE_MIN_S),
            starts=run.score.starts,
        )
        cheaper = self.cheapest is None or outcome.gpu_hours < self.cheapest.gpu_hours
        if cheaper and outcome.attainment >= self.target:
            self.cheapest = Best(outcome.gpu_hours, outcome.attainment, name, _changes(run))
        return outcome

    def tuned(self, name: str, choices: Iterable[tuple[str, Policy]]) -> Outcome:
        """The best of some configurations."""
        return self._best([self.run(name, *choice) for choice in choices])

    def constant(self) -> Outcome:
        """The cheapest constant: each pool by itself with the others ample, then together."""
        need, each = self.stage.need, (CONSTANTS - 2) // len(self.stage.need)
        ample = {name: pool.spec.max_replicas or 1 for name, pool in self.stage.cluster.pools.items()}
        least: dict[str, int] = {}
        runs: list[Outcome] = []
        for name in need:
            low, high = int(np.ceil(LEAST_CONSTANT * need[name])), int(np.ceil(MOST_CONSTANT * need[name]))
            for _ in range(each):
                if low == high:
                    break
                middle = int(np.sqrt(low * high))
                runs.append(self._constant({**ample, name: middle}))
                low, high = (low, middle) if runs[-1].attainment >= self.target else (middle + 1, high)
            least[name] = high
        runs.append(self._constant(least))
        while runs[-1].attainment < self.target and len(runs) < CONSTANTS:
            least = {name: count + 1 for name, count in least.items()}
            runs.append(self._constant(least))
        return self._best(runs)

    def _best(self, outcomes: Sequence[Outcome]) -> Outcome:
        """The cheapest that keeps the promise, or else the cheapest with the price of what it misses."""
        return min(outcomes, key=lambda each: (each.attainment < self.target, each.priced(self.target)))

    def _constant(self, replicas: Mapping[str, int]) -> Outcome:
        text = ", ".join(f"{name} {count}" for name, count in replicas.items())
        return self.run(peers.CONSTANT, text, StaticLaw(replicas=replicas))


def worst(arrival_s: NDArray[np.float64], met: NDArray[np.bool_], width_s: float) -> float:
    """The least share met of the requests in a stretch of so many seconds, moved on by the minute."""
    if not len(met):
        return 1.0
    bins = (arrival_s // BIN_S).astype(np.int64)
    width = min(int(width_s // BIN_S), int(bins[-1]) + 1)
    came, good = (
        np.convolve(np.bincount(bins, weights=weights), np.ones(width), "valid") for weights in (np.ones(len(met)), met)
    )
    return float((good[came > 0.5] / came[came > 0.5]).min(initial=1.0))


def compete(
    piece: Window | Scenario,
    effort: Effort,
    policies: str = "*",
    earlier: WindowResult | None = None,
    *,
    resume: bool = False,
    search: bool = False,
) -> WindowResult:
    """Run the policies whose names match the patterns on a window, and look for its best schedule.

    From an earlier result come the best schedule and all other policies; with ``resume`` also those that match. A
    better schedule is looked for, from the best that is known on, with ``search`` or where a policy was cheaper than
    the best schedule by more than 2 %.
    """
    began = time.process_time()
    cell, stage = piece.stage()
    if earlier is not None and earlier.requests != len(stage.trace):
        earlier = None
    attainable = ~unattainable(stage.trace, stage.cluster, cell.sla)
    contest = Contest(cell, stage, cell.sla.attainment, attainable)
    outcomes = dict(earlier.outcomes) if earlier else {}
    for name, job in _jobs(contest, effort).items():
        if matches(name, policies) and not (resume and name in outcomes):
            outcomes[name] = job()
    best = _best(contest, earlier.best if earlier else None, effort, anew=search or earlier is None)
    return WindowResult(
        name=piece.name,
        group=piece.group,
        target=contest.target,
        requests=len(stage.trace),
        best=best,
        outcomes=outcomes,
        cpu_s=time.process_time() - began + (earlier.cpu_s if earlier and resume else 0.0),
    )


def matches(name: str, patterns: str) -> bool:
    """Whether a name is of one of the patterns, which stand between ``|``."""
    return any(fnmatch(name, pattern) for pattern in patterns.split("|"))


def _jobs(contest: Contest, effort: Effort) -> dict[str, Callable[[], Outcome]]:
    """What is to be run, by the name of the policy."""
    most = effort.configurations

    def default(name: str, make: Callable[[], Policy]) -> Outcome:
        return contest.run(name, "defaults", make())

    def tuned(name: str, make: Callable[[], Configurations]) -> Outcome:
        return contest.tuned(name, spread(make(), most))

    ours = peers.by_default(contest.cell)
    theirs = peers.in_hindsight(contest.cell, contest.stage)
    return {
        **{name: partial(default, name, make) for name, make in ours.items()},
        peers.CONSTANT: contest.constant,
        **{name: partial(tuned, name, make) for name, make in theirs.items()},
    }


def _best(contest: Contest, known: Best | None, effort: Effort, *, anew: bool) -> Best | None:
    """The cheapest of what is known, what policies did, and what a search finds that starts from there."""
    best = min((each for each in (contest.cheapest, known) if each), key=lambda each: each.gpu_hours, default=None)
    beaten = best is not None and (known is None or best.gpu_hours < (1 - BEATEN) * known.gpu_hours)
    if not (anew or beaten):
        return best
    stage, sla = contest.stage, contest.cell.sla
    starts = [best.targets] if best else []
    found = oracle(stage.trace, stage.cluster, sla, budget=effort.schedules, starts=starts)
    if found.schedule is None or found.feasible_gpu_hours is None or found.attainment is None:
        return best
    if best and best.gpu_hours <= found.feasible_gpu_hours:
        return best
    return Best(found.feasible_gpu_hours, found.attainment, "search", dict(found.schedule.plan))


def _changes(run: Run) -> Targets:
    """The targets that a run had, whenever they changed."""
    changes: dict[str, list[tuple[float, int]]] = {}
    for count in run.counts:
        past = changes.setdefault(count.pool, [])
        if not past or past[-1][1] != count.target:
            past.append((count.at_s, count.target))
    return changes
