"""What it costs to have no profile: ``python -m benchmarks.no_profile [--shared | --blind] [--only NAME] [--quick]``.

``SlaPolicy(profile=None)`` against the same policy with the right profile, on the same requests and the same simulated
cluster, for each bundled profile (or, with ``--shared``, for those of the shared folder), disaggregated and aggregated.
Four hours of a load that goes up and down and bursts from second to second; the first hour, in which the one
without a profile learns, is not scored. The targets follow the rule of :mod:`benchmarks.quality.blind.targets`. With
``--blind`` the loads are the quick windows of the blind benchmark that last longer than an hour.

Prints, of the hours after the first, GPU-hours without a profile over those with it, the share of requests in time, and
the share of ten-minute windows in which the promise was held.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks.quality.blind.plan import planned
from benchmarks.quality.blind.targets import AGGREGATED_CHUNK, PREFILL_CHUNK, by_rule
from benchmarks.quality.blind.windows import Window
from benchmarks.quality.cells import Cell, Stage, whole
from benchmarks.shared import SHARED
from dynamo_planner import Profile, SlaPolicy
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.evaluation.run import Run
from dynamo_planner.profiles.files import bundled_profiles
from dynamo_planner.workloads.generators import following
from dynamo_planner.workloads.rate_curves import diurnal
from dynamo_planner.workloads.trace import Trace

HOUR_S, HOURS, QUICK_HOURS = 3600.0, 4.0, 2.5
PERIOD_S = 2.5 * HOUR_S
WINDOW_S = 600.0
MEAN_REPLICAS, STARTUP_S = 8.0, 60.0
LONG_PROMPT = 8192
"""The longest 1 % of the prompts are about as long as this, for which the TTFT targets are."""


@dataclass(frozen=True)
class Case(Cell):
    """A generated load on a cluster of one engine."""

    measured: Profile | None = None

    def profile(self) -> Profile:
        return self.measured or super().profile()


class Outcome(NamedTuple):
    """A policy after the first hour: what it cost, the share of requests in time, and of windows with the promise."""

    gpu_hours: float
    in_time: float
    held: float


def _load(from_s: float, to_s: float, rate: float, seed: int) -> Trace:
    course = diurnal(rate, peak_to_mean=1.6, period_s=PERIOD_S)
    return following(course, to_s, seed, overdispersion=0.05).between(from_s, to_s)


def cases(profiles: dict[str, Profile]) -> Iterator[Case]:
    """Both ways of serving for each profile, as far as it knows them."""
    for name, profile in profiles.items():
        targets = by_rule(profile)
        for aggregated in (False, True):
            if aggregated and profile.mixed is None:
                continue
            sla = targets.sla(LONG_PROMPT, aggregated=aggregated)
            chunk = AGGREGATED_CHUNK if aggregated else PREFILL_CHUNK
            yield Case(
                name, _load, MEAN_REPLICAS, STARTUP_S, (name, sla, chunk), aggregated=aggregated, measured=profile
            )


def mode(case: Cell) -> str:
    """How the fleet serves."""
    return "aggregated" if case.aggregated else "disaggregated"


def outcome(run: Run, cell: Cell) -> Outcome:
    """The numbers after the first hour."""
    billed_s = 0.0
    for worker in run.workers:
        ends_s = run.end_s if np.isnan(worker.released_s) else min(worker.released_s, run.end_s)
        billed_s += worker.gpus * max(ends_s - max(worker.launched_s, HOUR_S), 0.0)
    later = run.served.arrival_s >= HOUR_S
    met = run.served.meets(cell.sla)[later]
    window = ((run.served.arrival_s[later] - HOUR_S) // WINDOW_S).astype(int)
    shares = np.bincount(window, met) / np.maximum(np.bincount(window), 1)
    return Outcome(billed_s / HOUR_S, float(met.mean()), float((shares >= cell.sla.attainment).mean()))


def both(case: Case, hours: float) -> tuple[Outcome, Outcome]:
    """The policy with the profile and without it."""
    return compared(case, whole(case, hours * HOUR_S), chunk_tokens=case.model[2])


def blind(piece: Window) -> tuple[Outcome, Outcome]:
    """The same on a window of the blind benchmark."""
    return compared(*piece.stage())


def compared(cell: Cell, stage: Stage, **settings: Any) -> tuple[Outcome, Outcome]:
    """The policy with these settings, with the profile and without it."""
    found = []
    for profile in (cell.profile(), None):
        policy = SlaPolicy(sla=cell.sla, profile=profile, **settings)
        run = run_policy("sla", policy, trace=stage.trace, cluster=stage.cluster, sla=cell.sla)
        found.append(outcome(run, cell))
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", action="store_true", help="the profiles of the shared folder")
    parser.add_argument("--blind", action="store_true", help="windows of the blind benchmark")
    parser.add_argument("--only", default="", help="loads with this in their name")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_HOURS:g} hours")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    folders = sorted(path.parent for path in (SHARED / "profiles").glob("*/meta.json")) if options.shared else []
    profiles = {folder.name: Profile.load(folder) for folder in folders} or {
        name: Profile.bundled(name) for name in bundled_profiles()
    }
    hours = QUICK_HOURS if options.quick else HOURS
    jobs: dict[str, Callable[[], tuple[Outcome, Outcome]]] = (
        {
            piece.name: partial(blind, piece)
            for piece in planned(quick=True)
            if isinstance(piece, Window) and piece.seconds > HOUR_S
        }
        if options.blind
        else {f"{case.name} {mode(case)}": partial(both, case, hours) for case in cases(profiles)}
    )
    print("| load | GPU-hours, without / with | in time, with | without | windows held, with | without |")
    print("|---|---|---|---|---|---|")
    ratios = []
    chosen = {name: job for name, job in jobs.items() if options.only in name}
    with ProcessPoolExecutor(options.processes) as pool:
        for name, (known, learned) in zip(chosen, pool.map(_call, chosen.values()), strict=True):
            ratios.append(learned.gpu_hours / known.gpu_hours)
            shares = f"{known.in_time:.2%} | {learned.in_time:.2%} | {known.held:.0%} | {learned.held:.0%}"
            print(f"| {name} | {ratios[-1]:.3f} | {shares} |", flush=True)
    print(f"median {np.median(ratios):.3f}, largest {max(ratios):.3f}")


def _call(job: Callable[[], tuple[Outcome, Outcome]]) -> tuple[Outcome, Outcome]:
    return job()


if __name__ == "__main__":
    main()
