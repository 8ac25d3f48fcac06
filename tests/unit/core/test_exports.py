"""Every public name of the package and of each room is there."""

from __future__ import annotations

from importlib import import_module

import pytest

ROOMS = (
    "conformance", "config", "evaluation", "executors", "fleet", "forecasting", "guards", "policies", "profiles",
    "runtime", "simulator", "sizing", "sources", "workloads",
)  # fmt: skip


@pytest.mark.parametrize("module", ["dynamo_planner", *(f"dynamo_planner.{room}" for room in ROOMS)])
def test_every_public_name_is_there(module: str) -> None:
    package = import_module(module)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []
