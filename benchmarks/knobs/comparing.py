"""From runs to paired differences and their tables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.stats import t as student

from benchmarks.knobs.runs import STARTS, TROUBLES, Result, Task

FLOOR = -0.005


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
        share_kept = {seed: result.gap_attainment or 0.0 for seed, result in own.items()}
        kept = np.mean(list(share_kept.values()))
        hours = np.mean([result.gpu_hours for result in own.values()])
        points = interval([100 * (share_kept[seed] - (base[seed].gap_attainment or 0.0)) for seed in own])
        share = interval([100 * (own[seed].gpu_hours / base[seed].gpu_hours - 1) for seed in own])
        lines.append(f"| {profile} | {contender} | {kept:.1%} | {hours:.2f} | {_told(points)} | {_told(share)} |")
    return lines
