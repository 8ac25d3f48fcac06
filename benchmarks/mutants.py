"""Mutants: small wrong changes to the code that decides, and whether the unit tests of its room notice each.

    python -m benchmarks.mutants [--drawn 48] [--seed 1] [--only PATTERN] [--onto mutants.json]

Two sets. **Named** ones (:mod:`benchmarks.mutants_named`) are faults that were once in a policy, or easy to make; each
replaces a text that must be there exactly once. **Drawn** ones are made by operators on the syntax tree, at random and
evenly over parts and operators:

=========  ===================================================================
operator   change
=========  ===================================================================
sign       ``a + b`` becomes ``a - b``, and the other way round
bound      ``<`` becomes ``<=`` and the like; ``min`` becomes ``max``
unit       ``a * b`` becomes ``a / b``, and the other way round
dropped    ``a + b``, ``a * b``, ``a and b`` and ``max(a, b)`` become ``a``
=========  ===================================================================

Each is applied alone, and the quick unit tests of its part run until one fails (:mod:`benchmarks.mutants_judge`). Those
marked ``slow``, searches and statistics, judge results, and would notice much of what no test has a number for. A
mutant that no test notices is listed with its line: it is a missing test, or a change that makes no difference.

With ``--onto`` verdicts are written to a file as they come, and mutants that are noticed there are not judged again: a
run that was stopped goes on, and one after new tests judges what was missed.
"""

from __future__ import annotations

import argparse
import ast
import fnmatch
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.mutants_judge import Mutant, Verdict, judged
from benchmarks.mutants_named import NAMED

ROOT = Path(__file__).parents[1]
PARTS = {
    "dynamo_planner/policies/sla/*.py": "tests/unit/policies/test_sla_*.py",
    "dynamo_planner/policies/laws/*.py": "tests/unit/policies/test_l[al]*.py",
    "dynamo_planner/policies/reactive*.py": "tests/unit/policies/test_load_*.py",
    "dynamo_planner/sizing/*.py": "tests/unit/sizing/test_*.py",
    "dynamo_planner/forecasting/**/*.py": "tests/unit/forecasting/test_*.py",
    "dynamo_planner/guards/*.py": "tests/unit/guards/test_*.py",
}
"""Files that are mutated, and their unit tests."""

Operator = type[ast.operator] | type[ast.cmpop]

FLIPPED: dict[Operator, Operator] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
OTHER_END = {"min": "max", "max": "min"}


def named() -> list[Mutant]:
    """The named mutants. Raises ``ValueError`` where the text that one replaces is not there exactly once."""
    mutants = []
    for name, (path, before, after) in NAMED.items():
        text = (ROOT / path).read_text()
        if text.count(before) != 1:
            raise ValueError(f"{name}: {before!r} stands {text.count(before)} times in {path}: mend the table")
        mutants.append(Mutant(name, path, text.replace(before, after)))
    return mutants


def drawn(count: int, seed: int) -> list[Mutant]:
    """Mutants drawn by operator, evenly over parts and operators."""
    by_kind: dict[tuple[str, str], list[Mutant]] = {}
    for part in PARTS:
        for path in _files(part):
            for operator, mutant in mutants_of(path, (ROOT / path).read_text()):
                by_kind.setdefault((part, operator), []).append(mutant)
    chance = random.Random(seed)
    for kind in sorted(by_kind):
        chance.shuffle(by_kind[kind])
    picked: list[Mutant] = []
    while len(picked) < count and any(by_kind.values()):
        picked += [by_kind[kind].pop() for kind in sorted(by_kind) if by_kind[kind]]
    return picked[:count]


def _files(pattern: str) -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))


def mutants_of(path: str, source: str) -> Iterator[tuple[str, Mutant]]:
    """Every mutant of a file, with its operator.

    >>> [mutant.text.splitlines()[1].strip() for _, mutant in mutants_of("x.py", "def f(a, b):\\n    return a - b < 3")]
    ['return (a - b <= 3)', 'return (a + b) < 3', 'return (a) < 3']
    """
    lines = source.splitlines(keepends=True)
    for node in _expressions(ast.parse(source)):
        begin = _place(lines, node.lineno, node.col_offset)
        end = _place(lines, node.end_lineno or 0, node.end_col_offset or 0)
        for operator, changed in _changes(node):
            text = f"{source[:begin]}({changed}){source[end:]}"
            where = f"{path.removeprefix('dynamo_planner/')}:{node.lineno}"
            yield operator, Mutant(f"{where} {operator}: {ast.unparse(node)[:80]}", path, text)


def _place(lines: list[str], number: int, utf8_bytes: int) -> int:
    """The place in a text of a byte of one of its lines."""
    return sum(map(len, lines[: number - 1])) + len(lines[number - 1].encode()[:utf8_bytes].decode())


def _expressions(tree: ast.Module) -> Iterator[ast.expr]:
    """The expressions in functions, but for those of messages; constants of modules have a table of their own."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    messages = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    known: set[int] = set()
    for function in functions:
        for statement in function.body:
            for node in ast.walk(statement):
                if isinstance(node, ast.expr) and id(node) not in messages | known:
                    known.add(id(node))
                    yield node


def _changes(node: ast.expr) -> Iterator[tuple[str, str]]:
    """The wrong versions of an expression, each with its operator."""
    if isinstance(node, ast.BinOp) and type(node.op) in FLIPPED:
        other = FLIPPED[type(node.op)]()
        kind = "sign" if isinstance(node.op, ast.Add | ast.Sub) else "unit"
        yield kind, ast.unparse(ast.BinOp(node.left, other, node.right))  # type: ignore[arg-type]
        yield "dropped", ast.unparse(node.left)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in FLIPPED:
        other = FLIPPED[type(node.ops[0])]()
        yield "bound", ast.unparse(ast.Compare(node.left, [other], node.comparators))  # type: ignore[list-item]
    elif isinstance(node, ast.BoolOp):
        yield "dropped", ast.unparse(node.values[0])
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OTHER_END:
        yield "bound", ast.unparse(ast.Call(ast.Name(OTHER_END[node.func.id]), node.args, node.keywords))
        if len(node.args) == 2 and not node.keywords:
            yield "dropped", ast.unparse(node.args[0])


def judge_all(mutants: Sequence[Mutant]) -> Iterator[Verdict]:
    """The verdict of each mutant, part by part, as they come."""
    for part, tests in PARTS.items():
        files = _files(part)
        if own := [mutant for mutant in mutants if mutant.path in files]:
            yield from judged(own, ROOT, tests)


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether unit tests notice small wrong changes")
    parser.add_argument("--drawn", type=int, default=48, help="how many are drawn by operator")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="*", help="a pattern of names")
    parser.add_argument("--onto", type=Path, help="where verdicts are written, and those of an earlier run stand")
    options = parser.parse_args()
    every = [*named(), *drawn(options.drawn, options.seed)]
    mutants = [mutant for mutant in every if fnmatch.fnmatchcase(mutant.name, options.only)]
    before = json.loads(options.onto.read_text()) if options.onto and options.onto.exists() else []
    verdicts = {known["name"]: Verdict(**known) for known in before}
    left = [mutant for mutant in mutants if mutant.name not in verdicts or not verdicts[mutant.name].noticed]
    for verdict in judge_all(left):
        verdicts[verdict.name] = verdict
        mark = "noticed" if verdict.noticed else "MISSED "
        print(f"{mark} {verdict.took_s:6.1f} s  {verdict.name}  {verdict.by}", flush=True)
        if options.onto:
            options.onto.write_text(json.dumps([asdict(verdict) for verdict in verdicts.values()], indent=1) + "\n")
    noticed = sum(verdicts[mutant.name].noticed for mutant in mutants)
    print(f"{noticed} of {len(mutants)} are noticed ({noticed / max(len(mutants), 1):.0%}); not noticed:")
    print("\n".join(f"  {mutant.name}" for mutant in mutants if not verdicts[mutant.name].noticed))


if __name__ == "__main__":
    main()
