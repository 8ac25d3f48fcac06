"""Old module paths work for one release, and say where to go."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import dynamo_planner
from dynamo_planner._moved import MOVED


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


def test_what_never_was_is_still_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"simulation\.nothing"):
        import_module("dynamo_planner.simulation.nothing")
