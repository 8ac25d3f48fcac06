"""Old module paths work for one release, and say where to go."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import dynamo_planner
from dynamo_planner._moved import MOVED, RENAMED


@pytest.mark.parametrize("new", sorted(set(MOVED.values())))
def test_what_the_table_names_is_there(new: str) -> None:
    assert find_spec(f"dynamo_planner.{new}") is not None


@pytest.mark.parametrize("old", sorted(MOVED))
def test_the_table_hides_no_module(old: str) -> None:
    place = Path(dynamo_planner.__file__).parent.joinpath(*old.split("."))
    assert not place.exists()
    assert not place.with_suffix(".py").exists()


def test_a_module_below_a_moved_package_is_found_too() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = import_module("dynamo_planner.sources.vllm")
    assert module.VLLM is import_module("dynamo_planner.engines.vllm").VLLM
    assert all(each.category is DeprecationWarning for each in caught)


def test_names_that_changed_with_their_module_are_found_too() -> None:
    with pytest.warns(DeprecationWarning):
        old = import_module("dynamo_planner.sources.engines")
    engines = import_module("dynamo_planner.engines.registry")
    assert engines.worker_vocabularies() == old.ENGINES
    for module, names in RENAMED.items():
        for name in names:
            assert getattr(import_module(f"dynamo_planner.{module}"), name) is not None


@pytest.mark.parametrize(
    ("room", "old", "new"),
    [
        ("executors", "SaysWhy", "ReportsUnknown"),
        ("sizing", "Need", "Requirement"),
        ("sizing", "MixedStep", "AggregatedStage"),
    ],
)
def test_a_room_knows_its_old_names(room: str, old: str, new: str) -> None:
    package = import_module(f"dynamo_planner.{room}")
    with pytest.warns(DeprecationWarning, match=f"{room}.{old} is deprecated and is removed in .*: use .*{room}.{new}"):
        assert getattr(package, old) is getattr(package, new)


def test_what_never_was_is_still_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"simulation\.nothing"):
        import_module("dynamo_planner.simulation.nothing")
