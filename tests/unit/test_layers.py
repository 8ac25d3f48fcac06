"""What imports what among tests and benchmarks, and where helpers live."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def imports_below(directory: str, package: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in sorted((ROOT / directory).rglob("*.py"))
        for module in imported(path)
        if module.partition(".")[0] == package
    ]


def test_tests_and_benchmarks_import_nothing_of_each_other() -> None:
    assert imports_below("tests", "benchmarks") == []
    assert imports_below("benchmarks", "tests") == []


def test_tests_import_no_test() -> None:
    """What several tests need is in ``tests/support``."""
    allowed = ("tests.support", "tests.golden", "tests.fuzz.fuzzing")
    assert [line for line in imports_below("tests", "tests") if not line.split()[-1].startswith(allowed)] == []


def test_helpers_live_in_support() -> None:
    layers = [ROOT / "tests" / layer for layer in ("unit", "integration", "e2e")]
    files = [path for layer in layers for path in layer.rglob("*.py")]
    assert [path for path in files if not path.name.startswith(("test_", "conftest"))] == []


def test_the_samples_stay_small() -> None:
    files = [path for path in (ROOT / "tests" / "data").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3 * 2**20
