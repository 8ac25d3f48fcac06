"""Whether LoadPolicy settles under a constant load: ``python -m benchmarks.settling [--sample N] [--json FILE]``.

For each profile of the shared folder, aggregated where it has mixed steps and disaggregated, with Poisson and with
bursty arrivals, and from one replica, from the fleet that is needed and from twice that: three hours of a constant
load on the simulated cluster, with LoadPolicy at its defaults, with and without the targets (``sla``). Printed are, of
the last two hours, the moves (changes of a target), GPU-hours over those of the least constant fleet that attains, and
the share of requests in time. The least constant fleet is searched on the last hour of the same requests.

The table in ``docs/quality.md`` is of ``--sample 20``. ``--json`` appends each cell, and leaves out those that are in
the file, so that a run that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.no_profile import LONG_PROMPT, STARTUP_S, Case, mode
from benchmarks.quality.blind.targets import AGGREGATED_CHUNK, PREFILL_CHUNK, by_rule
from benchmarks.quality.cells import Stage, whole
from benchmarks.shared import SHARED
from dynamo_planner import LoadPolicy, Profile, StaticLaw
from dynamo_planner.core.decision import ScaleTo
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.evaluation.run import Run
from dynamo_planner.workloads.generators import following
from dynamo_planner.workloads.rate_curves import constant
from dynamo_planner.workloads.trace import Trace

HOUR_S = 3600.0
HOURS, SCORED_FROM_S = 3, HOUR_S
MEAN_REPLICAS = 3.0
"""The mean need over all pools, if every request took its least time."""

ARRIVALS = {"Poisson": 0.0, "bursty": 0.3}
"""The variance of the rate from second to second, over its mean squared."""

STARTS = {"one": 0.0, "enough": 1.0, "twice": 2.0}
"""The replicas at the start, over the least constant fleet; one at least."""

MOST_MOVES, MOST_COST = 2, 1.5


@dataclass(frozen=True)
class Settled:
    """The last two hours of one run.

    Args:
        moves: Changes of a target.
        cost: GPU-hours over those of the least constant fleet that attains; ``None`` where none does.
        in_time: The share of requests in time.
    """

    moves: int
    cost: float | None
    in_time: float


def cases() -> Iterator[tuple[Case, str]]:
    """Every way of serving of each profile with each kind of arrivals."""
    for folder in sorted(path.parent for path in (SHARED / "profiles").glob("*/meta.json")):
        profile = Profile.load(folder)
        for aggregated, arrivals in product((True, False) if profile.mixed is not None else (False,), ARRIVALS):
            sla = by_rule(profile).sla(LONG_PROMPT, aggregated=aggregated)
            model = (folder.name, sla, AGGREGATED_CHUNK if aggregated else PREFILL_CHUNK)
            load = _Load(ARRIVALS[arrivals])
            yield Case(folder.name, load, MEAN_REPLICAS, STARTUP_S, model, aggregated=aggregated), arrivals


@dataclass(frozen=True)
class _Load:
    overdispersion: float

    def __call__(self, from_s: float, to_s: float, rate: float, seed: int) -> Trace:
        trace = following(constant(rate), to_s, seed, overdispersion=self.overdispersion)
        return trace.between(from_s, to_s)


def _run(case: Case, stage: Stage, policy: Any, replicas: Mapping[str, int]) -> Run:
    pools = {name: pool.replace(replicas=replicas[name]) for name, pool in stage.cluster.pools.items()}
    cluster = stage.cluster.replace(pools=pools)
    return run_policy("settling", policy, trace=stage.trace, cluster=cluster, sla=case.sla)


def least_fleet(case: Case) -> tuple[Stage, dict[str, int] | None]:
    """The stage of a case, and the cheapest constant replicas that are in time in its last hour; ``None`` where none
    are.

    The least count of each pool is searched beside a plentiful other one, and then the cheapest sum from there on.
    """
    stage = whole(case, HOURS * HOUR_S)
    last = replace(stage, trace=stage.trace.between((HOURS - 1) * HOUR_S, HOURS * HOUR_S))
    most = {name: pool.spec.max_replicas or 1 for name, pool in stage.cluster.pools.items()}

    @cache
    def attains(counts: tuple[int, ...]) -> bool:
        replicas = dict(zip(most, counts, strict=True))
        score = _run(case, last, StaticLaw(replicas=replicas), replicas).score
        return score.attainment >= case.sla.attainment

    if not attains(tuple(most.values())):
        return stage, None
    least = []
    for number, name in enumerate(most):
        low, high = 0, most[name]
        while high - low > 1:
            middle = (low + high) // 2
            counts = [*most.values()]
            counts[number] = middle
            low, high = (low, middle) if attains(tuple(counts)) else (middle, high)
        least.append(high)
    more = sorted(product(range(4), repeat=len(least)), key=sum)
    found = next((added for added in more if attains(tuple(np.add(least, added).tolist()))), None)
    return stage, None if found is None else dict(zip(most, np.add(least, found).tolist(), strict=True))


def settled(case: Case, stage: Stage, least: Mapping[str, int] | None, start: str, *, with_sla: bool) -> Settled:
    """One cell of the table, with the least constant fleet of its case."""
    known = least or dict.fromkeys(stage.cluster.pools, 4)
    replicas = {name: max(round(STARTS[start] * count), 1) for name, count in known.items()}
    policy = LoadPolicy(sla=case.sla if with_sla else None)
    run = _run(case, stage, policy, replicas)
    moves = sum(
        isinstance(action, ScaleTo)
        for decision in run.decisions
        if SCORED_FROM_S <= decision.at_s - run.start_s < run.end_s
        for action in decision.actions
    )
    scored_s = run.end_s - SCORED_FROM_S
    billed_s = 0.0
    for worker in run.workers:
        ends_s = run.end_s if np.isnan(worker.released_s) else min(worker.released_s, run.end_s)
        billed_s += worker.gpus * max(ends_s - max(worker.launched_s, SCORED_FROM_S), 0.0)
    gpus = {name: pool.spec.gpus for name, pool in stage.cluster.pools.items()}
    least_s = scored_s * sum(gpus[name] * count for name, count in (least or {}).items())
    met = run.served.meets(case.sla)[run.served.arrival_s >= SCORED_FROM_S]
    return Settled(moves, billed_s / least_s if least_s else None, float(met.mean()))


def chosen(sample: int | None, seed: int) -> list[tuple[Case, str]]:
    """The cases, or a sample of them."""
    every = list(cases())
    return every if sample is None else random.Random(seed).sample(every, min(sample, len(every)))


def _printed(rows: list[dict[str, Any]]) -> None:
    print("| profile | mode | arrivals | from | LoadPolicy | moves | GPU-hours / least | in time |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        cost = "none attains" if row["cost"] is None else f"{row['cost']:.2f}"
        print(f"| {' | '.join(row['cell'].split(', '))} | {row['moves']} | {cost} | {row['in_time']:.2%} |")
    for given in ("with sla", "without"):
        own = [row for row in rows if row["cell"].endswith(given)]
        if own:
            still = np.mean([row["moves"] <= MOST_MOVES for row in own])
            costs = [row["cost"] for row in own if row["cost"] is not None]
            cheap = np.mean([cost <= MOST_COST for cost in costs]) if costs else np.nan
            print(
                f"\n{given}: {len(own)} cells, {still:.0%} with {MOST_MOVES} moves at most, {cheap:.0%} of those that"
            )
            print(f"a constant fleet attains in at {MOST_COST} times it at most; in time {_median(own):.2%} (median)")


def _median(rows: list[dict[str, Any]]) -> float:
    return float(np.median([row["in_time"] for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="that many cases (six cells each), drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="cells with this in their name")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    known = options.json.read_text().splitlines() if options.json and options.json.exists() else []
    rows = {row["cell"]: row for row in map(json.loads, known)}
    names = []
    for case, arrivals in chosen(options.sample, options.seed):
        fleet: tuple[Stage, dict[str, int] | None] | None = None
        for start, with_sla in product(STARTS, (True, False)):
            name = ", ".join((case.name, mode(case), arrivals, start, "with sla" if with_sla else "without"))
            if options.only not in name:
                continue
            names.append(name)
            if name not in rows:
                fleet = fleet or least_fleet(case)
                rows[name] = {"cell": name, **vars(settled(case, *fleet, start, with_sla=with_sla))}
                if options.json:
                    with options.json.open("a") as file:
                        file.write(json.dumps(rows[name]) + "\n")
    _printed([rows[name] for name in names])


if __name__ == "__main__":
    main()
