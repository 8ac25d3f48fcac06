"""Decision quality: ``python -m benchmarks.quality`` (quick), ``--full`` for all of it.

Every policy is tuned on the first part of each cell, with the same number of configurations each, and scored on the
rest, beside a lower bound on GPU-hours and the best schedule found in hindsight. Exits with 1 where a policy that
attained the target cost less than the bound, which would be an error of the bound.

With ``--blind`` it is another benchmark: every policy with its defaults (``--blind --help``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

from benchmarks.quality import cells as all_cells  # noqa: E402  # after the number of threads is set
from benchmarks.quality.blind import cli as blind  # noqa: E402
from benchmarks.quality.cells import Cell, trace_cells  # noqa: E402
from benchmarks.quality.comparing import CellResult, Effort, compare, pareto, rows  # noqa: E402
from benchmarks.quality.shown import against, cells, table  # noqa: E402
from dynamo_planner.evaluation.report_plot import plot_pareto  # noqa: E402

DRAWN = "S9 azure conv"

QUICK = Effort(train_s=900, test_s=1200, configurations=5, schedules=40, ablations=False)
FULL = Effort(train_s=1800, test_s=3600, configurations=20, schedules=80, ablations=True)
LARGE = Effort(train_s=900, test_s=1200, configurations=8, schedules=30, ablations=False)
LONG = Effort(train_s=3600, test_s=82_800, configurations=8, schedules=20, ablations=False)


def planned(full: bool) -> list[tuple[Cell, Effort]]:
    """The cells to run, the largest first, and how much of each."""
    if not full:
        return [(cell, QUICK) for cell in all_cells.SCENARIOS]
    small = [*all_cells.SCENARIOS, *trace_cells(all_cells.STARTUPS, (4.0,))]
    large = trace_cells((120.0,), (16.0,)) + trace_cells((120.0,), (64.0,))[:2]
    return [
        *((cell, LONG) for cell in all_cells.DAYS),
        *((cell, LARGE) for cell in reversed(large)),
        *((cell, FULL) for cell in small),
    ]


def sampled(full: bool) -> Iterator[str]:
    """What is left out or made smaller."""
    yield from all_cells.NOT_COVERED
    effort = FULL if full else QUICK
    yield f"windows of {effort.train_s / 60:g} minutes to tune on and {effort.test_s / 60:g} to score, one seed"
    yield f"{effort.configurations} of 20 configurations a policy, {effort.schedules} schedules for the oracle"
    if full:
        yield f"windows of 23 hours for two traces at one start-up time, with {LONG.configurations} configurations"
        yield "a mean need of 16 replicas at a start-up of 120 s alone, of 64 on two traces; both in shorter windows"
    else:
        yield "a mean need of 4 replicas alone, one start-up time for each cell, no ablations: --full has them"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="all cells; up to two hours on two cores")
    parser.add_argument(
        "--ablations", action="store_true", help="SlaPolicy without each of its parts, also in the quick suite"
    )
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--policies", default="*", metavar="PATTERN", help="policies by name, as 'Sla*'")
    parser.add_argument(
        "--onto", type=Path, help="the JSON of an earlier run, which the other policies and the optimum are taken from"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the results, to compare a later run with")
    parser.add_argument("--against", type=Path, help="the JSON of an earlier run")
    parser.add_argument("--markdown", type=Path, help="write the tables")
    parser.add_argument("--pareto", type=Path, help=f"draw every configuration on the cell {DRAWN!r}")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    numbers = [number for number, (cell, _) in enumerate(planned(given.full)) if given.only in cell.name]
    if not numbers:
        parser.error(f"--only {given.only!r} is in the name of no cell")
    for line in sampled(given.full):
        print(f"sub-sampled: {line}")
    before = json.loads(given.onto.read_text(encoding="utf-8"))["cells"] if given.onto else []
    onto = {cell["name"]: CellResult.of_data(cell) for cell in before}
    if given.onto:
        numbers = [number for number in numbers if planned(given.full)[number][0].name in onto]
    results = run(numbers, partial(_nth, given.full, given.ablations, given.policies, onto), given.processes)
    found = rows(results)
    took_s, cpu_s = time.monotonic() - began, sum(result.took_s for result in results)
    effort = (
        f"{len(results)} cells in {took_s / 60:.1f} min, {cpu_s / 60:.1f} min of CPU time, {given.processes} processes"
    )
    text = f"{table(found)}\n\n{cells(results)}\n"
    print(f"\n{text}\n{effort}")
    if given.markdown:
        given.markdown.write_text(f"{text}\n{effort}.\n", encoding="utf-8")
    if given.json:
        data = {"rows": [asdict(row) for row in found], "cells": [result.as_data() for result in results]}
        given.json.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if given.against:
        print(against(found, json.loads(given.against.read_text(encoding="utf-8"))))
    if given.pareto:
        cell = next(cell for cell in all_cells.SCENARIOS if cell.name == DRAWN)
        feasible = next((result.feasible for result in results if result.name == DRAWN), None)
        plot_pareto(pareto(cell, QUICK), cell.sla, feasible).savefig(given.pareto, dpi=110)
    broken = [f"{name} in {result.name}" for result in results for name in result.broken_bound]
    print(f"cheaper than the lower bound: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


def run(numbers: Sequence[int], job: Callable[[int], CellResult], processes: int) -> list[CellResult]:
    """The planned cells of these numbers, side by side, in the order in which they were given."""
    if processes == 1:
        return [_told(job(number)) for number in numbers]
    with ProcessPoolExecutor(processes) as pool:
        jobs = {pool.submit(job, number): number for number in numbers}
        done = {jobs[one]: _told(one.result()) for one in as_completed(jobs)}
    return [done[number] for number in numbers]


def _nth(full: bool, ablations: bool, policies: str, onto: Mapping[str, CellResult], number: int) -> CellResult:
    cell, effort = planned(full)[number]
    return compare(cell, replace(effort, ablations=effort.ablations or ablations), policies, onto.get(cell.name))


def _told(result: CellResult) -> CellResult:
    print(f"{result.name}: {result.took_s:.0f} s of CPU time", file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    if "--blind" in sys.argv[1:]:
        sys.exit(blind.main([argument for argument in sys.argv[1:] if argument != "--blind"]))
    sys.exit(main())
