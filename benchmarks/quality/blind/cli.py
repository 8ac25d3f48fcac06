"""The command line of the blind benchmark: ``python -m benchmarks.quality --blind`` for all of it, ``--quick``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from benchmarks.quality.blind.contest import Effort, compete, matches
from benchmarks.quality.blind.picture import draw_rows
from benchmarks.quality.blind.plan import planned
from benchmarks.quality.blind.results import WindowResult, rows
from benchmarks.quality.blind.scenarios import Scenario
from benchmarks.quality.blind.shown import against, tables
from benchmarks.quality.blind.windows import Window

QUICK, FULL = Effort(configurations=5, schedules=32), Effort(configurations=10, schedules=60)


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    began = time.monotonic()
    pieces = [piece for piece in planned(given.quick, given.traces, given.profiles) if matches(piece.name, given.cells)]
    if not pieces:
        raise SystemExit(f"--cells {given.cells!r} is the name of no window")
    begun = _read(given.json) if given.resume and given.json.exists() else {}
    earlier = {**(_read(given.onto) if given.onto else {}), **begun}
    job = partial(_job, QUICK if given.quick else FULL, given.policies, set(begun), given.search)
    done: dict[str, WindowResult] = {}
    for result in _run([(piece, earlier.get(piece.name)) for piece in pieces], job, given.processes):
        done[result.name] = result
        print(f"{result.name}: {result.cpu_s:.0f} s of CPU time", file=sys.stderr, flush=True)
        if given.json:
            _write(given.json, {**begun, **done})
    results = [done[piece.name] for piece in pieces]
    took_s, cpu_s = time.monotonic() - began, sum(result.cpu_s for result in results)
    print(f"{tables(results)}\n\n{len(results)} windows, {took_s / 60:.1f} min, {cpu_s / 60:.1f} min of CPU time")
    if given.markdown:
        given.markdown.write_text(tables(results) + "\n", encoding="utf-8")
    if given.picture:
        draw_rows(rows([result for result in results if result.group != "apart"]), given.picture)
    if given.against:
        print(against(results, list(_read(given.against).values())))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality --blind", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter windows; 10 minutes on two cores")
    parser.add_argument(
        "--cells", default="*", metavar="PATTERN", help="windows by name, as '*mlarge*'; '|' between two"
    )
    parser.add_argument("--policies", default="*", metavar="PATTERN", help="policies by name, likewise")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results, after every window")
    parser.add_argument("--resume", action="store_true", help="keep what is in the file of --json, and do the rest")
    parser.add_argument(
        "--onto", type=Path, metavar="FILE", help="take best schedules and the other policies from an earlier run"
    )
    parser.add_argument("--search", action="store_true", help="look for better schedules than those taken over")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with an earlier run")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw cost against promises kept")
    parser.add_argument("--traces", type=Path, metavar="DIR", help="draw windows from these traces instead")
    parser.add_argument("--profiles", type=Path, metavar="DIR", help="draw windows with these profiles instead")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser


def _job(
    effort: Effort, policies: str, begun: set[str], search: bool, piece: Window | Scenario, earlier: WindowResult | None
) -> WindowResult:
    return compete(piece, effort, policies, earlier, resume=piece.name in begun, search=search)


def _run(
    tasks: Sequence[tuple[Window | Scenario, WindowResult | None]], job: partial[WindowResult], processes: int
) -> Iterator[WindowResult]:
    """The windows, side by side, as they are done."""
    if processes == 1:
        yield from (job(*task) for task in tasks)
        return
    with ProcessPoolExecutor(processes) as pool:
        for future in as_completed([pool.submit(job, *task) for task in tasks]):
            yield future.result()


def _read(path: Path) -> dict[str, WindowResult]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return {cell["name"]: WindowResult.of_data(cell) for cell in cells}


def _write(path: Path, results: Mapping[str, WindowResult]) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps({"cells": [result.as_data() for result in results.values()]}) + "\n", encoding="utf-8")
    beside.replace(path)
