"""What each constant of SlaPolicy, of its sizing and of its forecasts is worth: halved and doubled, one at a time.

    python -m benchmarks.constants_worth [--only 'MAX_*|*'] [--cells PATTERN] [--minutes 20] [--json worth.json]

The constants are those of these rooms in docs/constants.md. SlaPolicy with its defaults runs in windows of the quick
blind benchmark, and each constant has a row: what half and twice of it cost over the unchanged policy (GPU-hours times
1 + 10 x the shortfall, geometric mean over the cells), and in how many cells the promise held. A dash says that no
target changed in any cell: there the constant decides nothing. Twice a share of more than a half is halfway to 1.

Each run is forked from a process that has loaded the windows and decided nothing, so that no cache outlives a value.
Constants that become a default while modules load are not tried. With ``--json`` rows are kept as they come, and those
that are there already are not run again; ``--only`` also orders them, by the first pattern that matches.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import multiprocessing
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.quality.blind.contest import matches
from benchmarks.quality.blind.plan import planned
from benchmarks.quality.blind.results import SHORTFALL_PRICE
from benchmarks.quality.cells import Cell, Stage
from dynamo_planner import Policy, SlaPolicy
from dynamo_planner.core.component import Component
from dynamo_planner.evaluation.backtest import run_policy
from dynamo_planner.evaluation.work_floor import unattainable

PAGE = Path(__file__).parents[1] / "docs" / "constants.md"
ROW = re.compile(r"^\| `([\w.]+)` \| .+? \| .+? \| `([\w/]+)\.py` \| .+ \|$", re.MULTILINE)
ROOMS = ("policies/sla/", "sizing/", "forecasting/")
CELLS = "S3*|S13*|*tue*8b_a100*|*mooncake_synthetic*"


@dataclass(frozen=True)
class Constant:
    """A constant of a module, or the default of a field: ``Class.field``."""

    name: str
    module: str

    @property
    def title(self) -> str:
        return f"{self.module}:{self.name}"

    @property
    def value(self) -> Any:
        owner, _, field = self.name.rpartition(".")
        home = import_module("dynamo_planner." + self.module.replace("/", "."))
        return getattr(home, owner).model_fields[field].default if owner else getattr(home, self.name)

    @property
    def is_read_at_import(self) -> bool:
        """Whether its own module computes a default with it, which a later change does not reach."""
        source = (PAGE.parents[1] / "dynamo_planner" / f"{self.module}.py").read_text(encoding="utf-8")
        return self.name in _loaded(ast.parse(source))


@dataclass(frozen=True)
class Outcome:
    """One run in one cell."""

    gpu_hours: float
    attainment: float
    target: float
    decisions: int
    """A checksum of all targets."""

    def cost(self) -> float:
        return self.gpu_hours * (1 + SHORTFALL_PRICE * max(self.target - self.attainment, 0.0))


def constants() -> list[Constant]:
    """The constants of these rooms on the page."""
    found = (Constant(*row) for row in ROW.findall(PAGE.read_text(encoding="utf-8")))
    return [constant for constant in found if constant.module.startswith(ROOMS)]


def halved(value: Any) -> Any:
    """Half of each number in a value.

    >>> halved(0.9), halved(5), halved((1, {"decode": 0.0, "prefill": 0.5}))
    (0.45, 2, (1, {'decode': 0.0, 'prefill': 0.25}))
    """
    return _mapped(value, lambda number: max(number // 2, 1) if isinstance(number, int) else number / 2)


def doubled(value: Any) -> Any:
    """Twice each number in a value; a share stays below 1.

    >>> doubled(0.2), doubled(0.5), doubled(5), doubled(1.0), doubled((0.5, 0.75))
    (0.4, 0.75, 10, 2.0, (0.75, 0.875))
    """
    return _mapped(value, lambda number: number * 2 if number >= 1 or number < 0.5 else (1 + number) / 2)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(_mapped(each, change) for each in value)
    return change(value)


def _loaded(tree: ast.AST) -> set[str]:
    """The names that are read while a module loads: outside of functions, and as defaults of their arguments."""
    names: set[str] = set()
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.Lambda):
            for default in (*child.args.defaults, *filter(None, child.args.kw_defaults)):
                names |= _loaded(ast.Expression(default))
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load):
            names.add(child.id)
        else:
            names |= _loaded(child)
    return names


def changed(policy: Policy, constant: Constant, value: Any) -> Policy:
    """The policy with another value of a constant, which in this process every module has from now on."""
    owner, _, field = constant.name.rpartition(".")
    if owner:
        found: Policy = _with_field(policy, owner, field, value)
        return found
    before = constant.value
    for name, module in list(sys.modules.items()):
        if name.startswith("dynamo_planner.") and getattr(module, constant.name, None) is before:
            setattr(module, constant.name, value)
    return policy


def _with_field(part: Any, owner: str, field: str, value: Any) -> Any:
    """A part of a policy, its own parts included, with another value of a field of one class."""
    if isinstance(part, tuple):
        return tuple(_with_field(each, owner, field, value) for each in part)
    if not isinstance(part, Component | Policy):
        return part
    names = type(part).model_fields
    inner = {name: _with_field(getattr(part, name), owner, field, value) for name in names if name != field}
    fields = {name: each for name, each in inner.items() if each is not getattr(part, name)}
    if type(part).__name__ == owner:
        fields[field] = value
    return part.replace(**fields) if fields else part


LOADED: dict[str, tuple[Cell, Stage]] = {}
"""The cells, as a forked process finds them."""


def run(constant: Constant | None, value: Any) -> dict[str, Outcome] | str:
    """SlaPolicy in each cell with another value of a constant, or the error that this makes."""
    try:
        return {name: _run(cell, stage, constant, value) for name, (cell, stage) in LOADED.items()}
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"[:200]


def _run(cell: Cell, stage: Stage, constant: Constant | None, value: Any) -> Outcome:
    policy: Policy = SlaPolicy(sla=cell.sla, profile=cell.profile())
    if constant is not None:
        policy = changed(policy, constant, value)
    done = run_policy("", policy, trace=stage.trace, cluster=stage.cluster, sla=cell.sla)
    met = done.served.meets(cell.sla)[~unattainable(stage.trace, stage.cluster, cell.sla)]
    targets = "".join(f"{count.at_s} {count.pool} {count.target}\n" for count in done.counts)
    return Outcome(done.score.gpu_hours, float(met.mean()), cell.sla.attainment, zlib.crc32(targets.encode()))


def load(cells: str, minutes: float) -> None:
    """Make the cells ready, the first minutes of each."""
    for piece in planned(True):
        if matches(piece.name, cells):
            cell, stage = piece.stage()
            LOADED[piece.name] = cell, replace(stage, trace=stage.trace.between(0.0, 60.0 * minutes))


def ordered(patterns: str) -> list[Constant]:
    """The constants that match one of the patterns, by the first that they match."""
    each = patterns.split("|")
    places = [
        (next((n for n, pattern in enumerate(each) if fnmatch(one.title, pattern)), None), one) for one in constants()
    ]
    return [one for place, one in sorted((p for p in places if p[0] is not None), key=lambda p: p[0] or 0)]


def row(constant: str, results: Mapping[str, Any], unchanged: Mapping[str, Outcome]) -> str:
    """A line of the table."""
    cells = []
    for found in results.values():
        if isinstance(found, str):
            cells.append(found)
        elif all(found[name].decisions == before.decisions for name, before in unchanged.items()):
            cells.append("-")
        else:
            logs = [math.log(found[name].cost() / before.cost()) for name, before in unchanged.items()]
            held = sum(outcome.attainment >= outcome.target for outcome in found.values())
            cells.append(f"{math.exp(sum(logs) / len(logs)):.3f}, {held}")
    return f"| {constant} | " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.constants_worth", description=__doc__)
    parser.add_argument("--only", default="*", help="constants as 'policies/sla/plan:MAX_*', '|' between two patterns")
    parser.add_argument("--cells", default=CELLS, help="windows of the quick blind benchmark by name, likewise")
    parser.add_argument("--minutes", type=float, default=1e9, help="run the first minutes of each window only")
    parser.add_argument("--json", type=Path, help="where rows are kept, and those of an earlier run stand")
    given = parser.parse_args(arguments)
    load(given.cells, given.minutes)
    kept: dict[str, Any] = json.loads(given.json.read_text()) if given.json and given.json.exists() else {}
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:

        def results(title: str, values: Mapping[str, Any], constant: Constant | None) -> dict[str, Any]:
            if title not in kept:
                found = {name: pool.apply(run, (constant, value)) for name, value in values.items()}
                kept[title] = {
                    name: each if isinstance(each, str) else {cell: asdict(outcome) for cell, outcome in each.items()}
                    for name, each in found.items()
                }
                if given.json:
                    given.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            return {
                name: each if isinstance(each, str) else {cell: Outcome(**outcome) for cell, outcome in each.items()}
                for name, each in kept[title].items()
            }

        unchanged = results("unchanged", {"unchanged": None}, None)["unchanged"]
        held = sum(outcome.attainment >= outcome.target for outcome in unchanged.values())
        print(f"| constant | halved: cost, held ({held} unchanged) | doubled: cost, held |\n|---|---|---|", flush=True)
        for constant in ordered(given.only):
            if constant.is_read_at_import:
                print(f"| {constant.title} | read at import | read at import |", flush=True)
                continue
            values = {"halved": halved(constant.value), "doubled": doubled(constant.value)}
            print(row(constant.title, results(constant.title, values, constant), unchanged), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
