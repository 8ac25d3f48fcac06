"""The pages of docs/extending: their code, in a package of its own, is found by the configurations that they show."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dynamo_planner import load_policy
from dynamo_planner.config.kinds import loading_context
from dynamo_planner.config.problems import validated
from dynamo_planner.config.run import RunConfig
from dynamo_planner.engines.vocabulary import COUNTERS, DISTRIBUTIONS, GAUGES
from dynamo_planner.workloads import Trace
from dynamo_planner.workloads.formats.registry import TRACE_FORMATS

PAGES = Path(__file__).parents[2] / "docs" / "extending"
RUN = {
    "policy": {"kind": "load"},
    "executor": {"kind": "dry_run", "pools": {"workers": {"role": "aggregated"}}},
    "source": {"kind": "scrape", "workers": {"workers": {"w0": "http://127.0.0.1:1"}}},
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def entry_point(page: str) -> tuple[str, str, str]:
    """Group, name and value of the only entry point that a page declares."""
    (text,) = blocks(page, "toml")
    ((group, points),) = tomllib.loads(text)["project"]["entry-points"].items()
    ((name, value),) = points.items()
    return group, name, value


def definitions(page: str) -> str:
    """The imports, classes and constants of a page's examples, without what only tries them."""
    examples = doctest.DocTestParser().get_examples((PAGES / page).read_text())
    module = ast.parse("".join(example.source for example in examples))
    kept = [
        each for each in module.body if isinstance(each, ast.Import | ast.ImportFrom | ast.ClassDef) or constant(each)
    ]
    return ast.unparse(ast.Module(kept, []))


def constant(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]).isupper()


@pytest.fixture
def page(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A page, whose code is an installed package."""
    page: str = request.param
    group, name, value = entry_point(page)
    package, _, module = value.partition(":")[0].partition(".")
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / f"{module}.py").write_text(definitions(page))
    about = tmp_path / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{group}]\n{name} = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield page
    for each in (package, f"{package}.{module}"):
        sys.modules.pop(each, None)


def named(data: Any, name: str, other: str) -> Any:
    """A configuration in which another name stands for that of a kind or an engine."""
    if isinstance(data, list):
        return [named(each, name, other) for each in data]
    if not isinstance(data, dict):
        return data
    return {
        key: other if key in {"kind", "engine"} and value == name else named(value, name, other)
        for key, value in data.items()
    }


def load(data: Any) -> Any:
    if isinstance(data, dict) and "kind" not in data:
        return validated(RunConfig, RUN | data, "", loading_context(allow_custom=True))
    return load_policy(data, allow_custom=True)


@pytest.mark.parametrize(
    "page", ["engine.md", "executor.md", "source.md", "guard.md", "law.md", "forecaster.md"], indirect=True
)
def test_a_package_is_found_by_its_entry_point_and_by_its_path(page: str) -> None:
    _, name, value = entry_point(page)
    configurations = blocks(page, "yaml")
    assert configurations
    for text in configurations:
        data = yaml.safe_load(text)
        assert named(data, name, value) != data
        data = data["policy"] if list(data) == ["policy"] else data
        assert load(data) == load(named(data, name, value))


@pytest.mark.parametrize("page", ["trace-format.md"], indirect=True)
def test_a_trace_format_is_found_by_its_entry_point_and_by_its_path(page: str, tmp_path: Path) -> None:
    _, name, value = entry_point(page)
    path = tmp_path / "gateway.csv"
    path.write_text("at,prompt_tokens,completion_tokens\n0.0,100,20\n1.5,400,30\n")
    for each in (name, value):
        form = TRACE_FORMATS.find(each, loading_context(allow_custom=True))
        assert Trace.load(path, trace_format=form).isl.tolist() == [100, 400]


def test_the_page_of_engines_has_every_quantity() -> None:
    rows = [line for line in (PAGES / "engine.md").read_text().splitlines() if line.startswith("  | `")]
    assert [tuple(re.findall("`(.*?)`", row.split("|")[1])) for row in rows] == [GAUGES, COUNTERS, DISTRIBUTIONS]
