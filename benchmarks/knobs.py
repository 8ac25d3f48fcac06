"""What tuning knobs is worth: ``python -m benchmarks.knobs`` (``--quick`` for two profiles and three seeds).

SlaPolicy with KnobPolicy, begun at a chunk (``max_num_batched_tokens``) of 2048 and of 8192, against SlaPolicy alone at
2048, at 8192, and at the best fixed chunk in hindsight. A seed is a window of one of the recorded traces, brought to
the same mean load; all contenders serve the same requests on the same cluster. Each runs with two quantiles of
SlaPolicy, so that GPU-hours can be read off at equal attainment, and attainment at equal GPU-hours. Differences are
paired over the seeds, with 95 % intervals (Student's t). What learning costs is in the windows.

Then the same configuration where the world is unkind: a profile that is 30 % off either way, noise, load steps,
broken metrics; against the same fleet whose knobs are left alone. Ends with 1 where the lower bound of the difference
in attainment is below -0.5 points.

Last, aggregated services that promise the worst gap between two tokens (2.5 times the ITL target) and not their mean,
with ``KnobPolicy(gap_ms=...)``. The worst gap of a request is that of the longest step of a prompt beside it on its
worker, which is how long the prompt took over the number of its chunks.

``--parts`` chooses of ``worth``, ``harm`` and ``gap``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from benchmarks.quality.cells import STALE, TRACES, Cell, Stage, recorded, shaped, stages, step
from dynamo_planner import KnobPolicy, Policy, SetKnob, Sla, SlaPolicy, together
from dynamo_planner.knobs import catalogue
from dynamo_planner.knobs.catalogue import CHUNK
from dynamo_planner.simulation.backtest import run_policy
from dynamo_planner.simulation.results import Served

PROFILES = {
    "llama31-8b_h100_vllm_tp1": Sla(ttft_ms=500, itl_ms=15),
    "llama31-8b_l40s_trtllm_tp1": Sla(ttft_ms=1500, itl_ms=45),
    "llama31-70b_h100_vllm_tp4": Sla(ttft_ms=1500, itl_ms=40),
    "llama31-70b-fp8_h200_trtllm_tp2": Sla(ttft_ms=1500, itl_ms=40),
    "qwen3-32b-fp8_h100_sglang_tp1": Sla(ttft_ms=1500, itl_ms=40),
    "gpt-oss-120b_h100_vllm_tp2": Sla(ttft_ms=1000, itl_ms=20),
}
CHUNKS = (512, 2048, 8192, 32_768)
STARTS = (2048, 8192)
QUANTILES = (0.3, 0.95)
MEAN, STARTUP_S, TRAIN_S, TEST_S = 3.0, 60.0, 600.0, 1200.0
LIVE = tuple(knob.model_copy(update={"applied": "live"}) for knob in catalogue("vllm").values())
"""The simulated cluster takes a value at once, so the policy is told that a change costs no restart."""

FLOOR = -0.005
GAP_OVER_ITL = 2.5


@dataclass(frozen=True)
class Task:
    """One run: a cell at a chunk, a contender, its quantile, and the seed."""

    profile: str
    aggregated: bool
    seed: int
    chunk: int
    tuned: bool
    quantile: float
    trouble: str = ""
    gap: bool = False

    @property
    def contender(self) -> str:
        return f"knobs from {self.chunk}" if self.tuned else f"chunk {self.chunk}"


@dataclass(frozen=True)
class Result:
    """What became of a run, how often knobs were turned, and the share that kept TTFT and the worst gap."""

    task: Task
    attainment: float
    gpu_hours: float
    turns: int
    gap_attainment: float


def cell_of(task: Task) -> Cell:
    """The cell of a run: the trace and the window follow from the seed."""
    name, (at_s, _) = list(TRACES.items())[task.seed % len(TRACES)]
    sla = PROFILES[task.profile]
    cell = Cell(
        task.trouble or name,
        recorded(name, at_s + 400.0 * (task.seed // len(TRACES))),
        MEAN,
        STARTUP_S,
        (task.profile, sla, task.chunk),
        task.aggregated,
    )
    return TROUBLES[task.trouble](cell)


def _steps(cell: Cell) -> Cell:
    return replace(cell, load=shaped(step))


TROUBLES: Mapping[str, Callable[[Cell], Cell]] = {
    "": lambda cell: cell,
    "profile 30 % too good": lambda cell: replace(cell, profile_error=1.3),
    "profile 30 % too bad": lambda cell: replace(cell, profile_error=1 / 1.3),
    "noise: slow nodes": lambda cell: replace(cell, faults={"slow_share": 0.3}),
    "load steps": _steps,
    "broken metrics": lambda cell: replace(cell, metrics=STALE),
}


def stage_of(task: Task) -> Stage:
    """The part to score; the load is the same at every chunk."""
    cell = cell_of(replace(task, chunk=STARTS[0]))
    stage = stages(cell, TRAIN_S, TEST_S)[1]
    pools = {
        name: pool.model_copy(update={"limits": pool.limits.model_copy(update={"max_num_batched_tokens": task.chunk})})
        for name, pool in stage.cluster.pools.items()
    }
    metrics = stage.cluster.metrics.model_copy(update={"quantiles": (0.9, 0.99)})
    return Stage(stage.trace, stage.cluster.model_copy(update={"pools": pools, "metrics": metrics}), stage.need)


def policy_of(task: Task) -> Policy:
    """The contender of a run."""
    cell = cell_of(task)
    profile = cell.profile()
    replicas = SlaPolicy(sla=cell.sla, profile=profile, quantile=task.quantile)
    if not task.tuned:
        return replicas
    gap_ms = GAP_OVER_ITL * cell.sla.itl_ms if task.gap else None
    return together(KnobPolicy(sla=cell.sla, profile=profile, engine=None, more=LIVE, gap_ms=gap_ms), replicas)


def run(task: Task) -> Result:
    """One run, scored."""
    stage = stage_of(task)
    done = run_policy("", policy_of(task), trace=stage.trace, cluster=stage.cluster, sla=PROFILES[task.profile])
    turned = [
        (decision.at_s - done.start_s, float(action.value))
        for decision in done.decisions
        for action in decision.actions
        if isinstance(action, SetKnob) and action.knob == CHUNK
    ]
    gaps_ms = worst_gaps_ms(done.served, [(0.0, float(task.chunk)), *turned])
    sla = PROFILES[task.profile]
    kept = (done.served.ttft_ms <= sla.ttft_ms) & (gaps_ms <= GAP_OVER_ITL * sla.itl_ms)
    attained = 1.0 if done.score.attainment_possible is None else done.score.attainment_possible
    return Result(task, attained, done.score.gpu_hours, len(turned), float(kept.mean()))


def worst_gaps_ms(served: Served, chunks: Sequence[tuple[float, float]]) -> np.ndarray:
    """The longest gap between two tokens of each request of an aggregated pool: its mean ITL, or the steps of a prompt
    that was computed beside it. ``chunks`` are those from each time on."""
    times, sizes = (np.array(column) for column in zip(*chunks, strict=True))
    first_s = served.arrival_s + served.ttft_ms / 1000
    chunk = sizes[np.maximum(np.searchsorted(times, served.scheduled_s, side="right") - 1, 0)]
    step_ms = 1000 * (first_s - served.scheduled_s) / np.ceil(served.isl / chunk)
    gaps_ms = np.where(np.isfinite(served.itl_ms), served.itl_ms, np.inf)
    for place in np.unique(served.place):
        here = np.flatnonzero((served.place == place) & np.isfinite(served.finished_s))
        here = here[np.argsort(served.scheduled_s[here], kind="stable")]
        ends = np.maximum.accumulate(first_s[here])
        low = np.searchsorted(ends, first_s[here], side="right")
        high = np.searchsorted(served.scheduled_s[here], served.finished_s[here], side="left")
        steps = step_ms[here]
        for request, begin, end in zip(here, low, high, strict=True):
            if end > begin:
                gaps_ms[request] = max(gaps_ms[request], steps[begin:end].max())
    return np.where(served.osl > 1, gaps_ms, 0.0)


# From runs to differences


def gpu_hours_at(attainment: float, curve: Sequence[Result]) -> float:
    """What it takes to attain so much, on the line through the runs; the nearest run beyond its ends."""
    points = sorted((result.attainment, result.gpu_hours) for result in curve)
    return float(np.interp(attainment, [a for a, _ in points], [hours for _, hours in points]))


def attainment_at(hours: float, curve: Sequence[Result]) -> float:
    """What is attained for so many GPU-hours."""
    points = sorted((result.gpu_hours, result.attainment) for result in curve)
    return float(np.interp(hours, [h for h, _ in points], [a for _, a in points]))


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """The mean, and its 95 % interval."""
    values = np.asarray(differences)
    if len(values) < 2:
        return float(values.mean()), -np.inf, np.inf
    half = student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


Curves = Mapping[tuple[str, bool, int], Mapping[str, Sequence[Result]]]


def curves_of(results: Sequence[Result]) -> Curves:
    """The runs of each contender, by cell."""
    curves: dict[tuple[str, bool, int], dict[str, list[Result]]] = {}
    for result in results:
        task = result.task
        curves.setdefault((task.profile, task.aggregated, task.seed), {}).setdefault(task.contender, []).append(result)
    return curves


def best_chunk(of_cell: Mapping[str, Sequence[Result]], attainment: float) -> str:
    """The fixed chunk that takes the fewest GPU-hours for an attainment, of those that reach the most."""
    fixed = [name for name in of_cell if name.startswith("chunk")]
    reach = {name: min(max(result.attainment for result in of_cell[name]), attainment) for name in fixed}
    top = max(reach.values())
    return min((n for n in fixed if reach[n] >= top - 0.002), key=lambda n: gpu_hours_at(attainment, of_cell[n]))


def compared(curves: Curves, start: int) -> list[tuple[str, list[float], list[float]]]:
    """By what it is compared with: how many GPU-hours fewer (as a share) and how much more attainment, by seed."""
    rows = []
    for other in (f"chunk {STARTS[0]}", f"chunk {STARTS[1]}", "best chunk"):
        saved, gained = [], []
        for of_cell in curves.values():
            mine = of_cell[f"knobs from {start}"]
            target = 0.99
            theirs = of_cell[best_chunk(of_cell, target) if other == "best chunk" else other]
            common = min(target, *(max(result.attainment for result in curve) for curve in (mine, theirs)))
            saved.append(1 - gpu_hours_at(common, mine) / gpu_hours_at(common, theirs))
            middle = float(np.median([result.gpu_hours for result in theirs]))
            gained.append(attainment_at(middle, mine) - attainment_at(middle, theirs))
        rows.append((other, saved, gained))
    return rows


def report(results: Sequence[Result]) -> list[str]:
    """The table of the first part."""
    lines = [
        "| profile | mode | begun at | against | GPU-hours saved at equal attainment | attainment gained, points |",
        "|---|---|---|---|---|---|",
    ]
    curves = curves_of(results)
    cells = list(dict.fromkeys((profile, mode) for profile, mode, _ in curves))
    for profile, aggregated in [*cells, ("all", True), ("all", False)]:
        own = {key: c for key, c in curves.items() if profile in {key[0], "all"} and key[1] == aggregated}
        for start in STARTS if own else ():
            for other, saved, gained in compared(own, start):
                share, points = interval([100 * each for each in saved]), interval([100 * each for each in gained])
                mode = "aggregated" if aggregated else "disaggregated"
                lines.append(f"| {profile} | {mode} | {start} | {other} | {_told(share)} % | {_told(points)} |")
    turned = [result.turns for result in results if result.task.tuned]
    lines.append("")
    lines.append(f"knobs were turned {np.mean(turned):.1f} times a run on average, {max(turned)} at most")
    return lines


def _told(values: tuple[float, float, float]) -> str:
    mean, low, high = values
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def report_dangers(results: Sequence[Result]) -> tuple[list[str], bool]:
    """The table of the second part, and whether every lower bound is above the floor."""
    lines = ["| trouble | mode | attainment against knobs left alone, points | turns |", "|---|---|---|---|"]
    fine = True
    for trouble, aggregated in itertools.product([name for name in TROUBLES if name], (True, False)):
        own = [r for r in results if (r.task.trouble, r.task.aggregated) == (trouble, aggregated)]
        pairs: dict[Task, dict[bool, Result]] = {}
        for result in own:
            pairs.setdefault(replace(result.task, tuned=False), {})[result.task.tuned] = result
        differences = [100 * (pair[True].attainment - pair[False].attainment) for pair in pairs.values()]
        if not differences:
            continue
        found = interval(differences)
        fine &= found[1] > 100 * FLOOR
        turns = np.mean([r.turns for r in own if r.task.tuned])
        lines.append(
            f"| {trouble} | {'aggregated' if aggregated else 'disaggregated'} | {_told(found)} | {turns:.1f} |"
        )
    return lines, fine


def report_gaps(results: Sequence[Result]) -> list[str]:
    """The table of the third part."""
    lines = [
        "| profile | contender | TTFT and worst gap kept | GPU-hours | against chunk 2048: points | GPU-hours, % |",
        "|---|---|---|---|---|---|",
    ]
    by_name: dict[tuple[str, str], dict[int, Result]] = {}
    for result in results:
        by_name.setdefault((result.task.profile, result.task.contender), {})[result.task.seed] = result
    for (profile, contender), own in by_name.items():
        base = by_name[profile, f"chunk {STARTS[0]}"]
        kept = np.mean([result.gap_attainment for result in own.values()])
        hours = np.mean([result.gpu_hours for result in own.values()])
        points = interval([100 * (own[seed].gap_attainment - base[seed].gap_attainment) for seed in own])
        share = interval([100 * (own[seed].gpu_hours / base[seed].gpu_hours - 1) for seed in own])
        lines.append(f"| {profile} | {contender} | {kept:.1%} | {hours:.2f} | {_told(points)} | {_told(share)} |")
    return lines


PARTS = ("worth", "harm", "gap")


def tasks(part: str, profiles: Sequence[str], seeds: Sequence[int]) -> list[Task]:
    """The runs of a part."""
    contenders = [(chunk, False) for chunk in CHUNKS] + [(chunk, True) for chunk in STARTS]
    if part == "worth":
        each = itertools.product(profiles, (True, False), seeds, contenders, QUANTILES)
        return [Task(profile, mode, seed, *contender, quantile) for profile, mode, seed, contender, quantile in each]
    if part == "harm":
        troubles = [name for name in TROUBLES if name]
        again = itertools.product(profiles[::3], (True, False), seeds, (False, True), troubles)
        return [Task(profile, mode, seed, STARTS[0], tuned, 0.95, name) for profile, mode, seed, tuned, name in again]
    beside = itertools.product(profiles, seeds, contenders)
    return [Task(profile, True, seed, *contender, 0.95, gap=True) for profile, seed, contender in beside]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two profiles, three seeds")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    began_s = time.monotonic()
    profiles = list(PROFILES)[:2] if options.quick else list(PROFILES)
    seeds = range(3 if options.quick else options.seeds)
    chosen = {part: tasks(part, profiles, seeds) for part in options.parts}
    with ProcessPoolExecutor(options.processes) as processes:
        every = iter(processes.map(run, list(itertools.chain(*chosen.values())), chunksize=4))
        results = {part: [next(every) for _ in own] for part, own in chosen.items()}
    lines, fine = [], True
    if "worth" in results:
        lines += [*report(results["worth"]), ""]
    if "harm" in results:
        dangers, fine = report_dangers(results["harm"])
        lines += [*dangers, ""]
    if "gap" in results:
        lines += report_gaps(results["gap"])
    text = "\n".join(lines)
    print(text)
    count = sum(map(len, results.values()))
    print(f"{count} runs of {TEST_S / 60:.0f} min in {(time.monotonic() - began_s) / 60:.1f} min")
    if options.markdown:
        options.markdown.write_text(text + "\n")
    if options.json:
        told = [asdict(result) for own in results.values() for result in own]
        options.json.write_text(json.dumps(told, indent=1))
    if not fine:
        print(f"attainment may fall by more than {-100 * FLOOR:g} points where knobs are tuned", file=sys.stderr)
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
