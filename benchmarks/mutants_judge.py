"""How mutants are judged: a process collects the quick tests of a part, and forks for each mutant.

The fork exchanges the code of the functions, and the constants, that the mutant changes, wherever a module or a class
has them, and runs the tests until one fails. No module is imported again, so a mutant takes about a second. First come
the tests that noticed another mutant of the file, then the quickest; those that fail without a mutant are left out.
"""

from __future__ import annotations

import ast
import gc
import json
import multiprocessing
import os
import select
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

QUICK = ["-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", "--hypothesis-profile=fast", "--hypothesis-seed=1"]
TIMEOUT_S = 900.0
"""Tests that run for longer have noticed: a search does not end."""


@dataclass(frozen=True)
class Mutant:
    """A wrong change: the text of ``path`` with it."""

    name: str
    path: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """Whether a mutant was noticed, by which test, and after how many seconds."""

    name: str
    noticed: bool
    by: str
    took_s: float


def judged(mutants: Sequence[Mutant], root: Path, tests: str) -> Iterator[Verdict]:
    """The verdict of each mutant as it comes, by the quick tests in the files that match a pattern."""
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_collect, args=(mutants, root, tests, writer))
    process.start()
    writer.close()
    try:
        if left_out := reader.recv():
            print(f"{left_out} of {tests} fail without a mutant, and are left out", flush=True)
        for _ in mutants:
            yield reader.recv()
    except EOFError:
        raise RuntimeError(f"the tests {tests} could not be run: try them by themselves") from None
    process.join()


def _collect(mutants: Sequence[Mutant], root: Path, tests: str, verdicts: Connection) -> None:
    """Collect the tests, and judge in their place."""
    os.chdir(root)
    sys.dont_write_bytecode = True
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    files = [str(path.relative_to(root)) for path in sorted(root.glob(tests))]
    pytest.main([*QUICK, "-m", "not slow and not long", *files], plugins=[Judge(mutants, root, verdicts)])


class Judge:
    """A plugin of pytest that judges mutants where tests would run."""

    def __init__(self, mutants: Sequence[Mutant], root: Path, verdicts: Connection) -> None:
        self._mutants, self._root, self._verdicts = mutants, root, verdicts
        self._failed = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed |= report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        took_s = _forked(partial(self._unchanged, session.items), None)
        items = [item for item in session.items if item.nodeid in took_s]
        self._verdicts.send(len(session.items) - len(items))
        noticed: Counter[tuple[str, str]] = Counter()
        for mutant in self._mutants:
            began_s = time.monotonic()
            items.sort(key=lambda item: (-noticed[mutant.path, item.nodeid], took_s[item.nodeid]))
            by = _forked(partial(self._noticed, mutant, items), TIMEOUT_S)
            if by is None:
                by = f"the tests did not end within {TIMEOUT_S:.0f} s"
            noticed[mutant.path, by] += 1
            self._verdicts.send(Verdict(mutant.name, bool(by), by, round(time.monotonic() - began_s, 1)))
        return True

    def _unchanged(self, items: Sequence[pytest.Item]) -> dict[str, float]:
        """Seconds that each test takes that does not fail without a mutant."""
        took_s = {}
        for item in items:
            began_s = time.monotonic()
            if not self._fails(item):
                took_s[item.nodeid] = time.monotonic() - began_s
        return took_s

    def _noticed(self, mutant: Mutant, items: Sequence[pytest.Item]) -> str:
        """The first test that fails with a mutant; empty where none does."""
        if not applied(mutant.text, self._root / mutant.path):
            return ""
        return next((item.nodeid for item in items if self._fails(item)), "")

    def _fails(self, item: pytest.Item) -> bool:
        self._failed = False
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return self._failed


def _forked(job: Callable[[], Any], timeout_s: float | None) -> Any:
    """What a job finds in a fork of this process; ``None`` where it takes longer."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            found = job()
        except BaseException as error:  # whatever ends the tests has noticed
            found = f"{type(error).__name__}: {error}"
        with os.fdopen(writer, "w") as pipe:
            json.dump(found, pipe)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        ready, _, _ = select.select([pipe], [], [], timeout_s)
        if not ready:
            os.kill(child, 9)
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


def applied(text: str, path: Path) -> int:
    """Give the functions of a module the code that they have in another text of it, and every module its constants.

    Returns how many functions and constants change.
    """
    before = path.read_text(encoding="utf-8")
    code = dict(_functions(compile(text, str(path), "exec")))
    old = dict(_functions(compile(before, str(path), "exec")))
    changed = {key for key, each in code.items() if each != old.get(key)}
    functions = [each for each in gc.get_objects() if isinstance(each, FunctionType)]
    count = 0
    for function in functions:
        own = function.__code__
        key = own.co_qualname, own.co_firstlineno
        if own.co_filename == str(path) and key in changed:
            function.__code__, count = code[key], count + 1
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("dynamo_planner.")]
    home = next(module for module in modules if module.__file__ == str(path))
    for name, value in _constants(before, text):
        known = getattr(home, name)
        for module in modules:
            if getattr(module, name, None) is known:
                setattr(module, name, value)
                count += 1
    return count


def _functions(code: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    """The code of every function in a module, by name and first line."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield (each.co_qualname, each.co_firstlineno), each
            yield from _functions(each)


def _constants(before: str, after: str) -> Iterator[tuple[str, Any]]:
    """The numbers of a module that differ in another text of it, and their values there."""
    old = {ast.unparse(statement) for statement in ast.parse(before).body}
    for statement in ast.parse(after).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement) not in old:
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id, ast.literal_eval(statement.value)
