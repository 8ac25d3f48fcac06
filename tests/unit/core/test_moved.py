"""Old module paths work for one release, and say where to go."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import dynamo_planner
from dynamo_planner._moved import MOVED, REMOVED_IN


@pytest.mark.parametrize("new", sorted(set(MOVED.values())))
def test_what_the_table_names_is_there(new: str) -> None:
    assert find_spec(f"dynamo_planner.{new}") is not None


@pytest.mark.parametrize("old", sorted(MOVED))
def test_the_table_hides_no_module(old: str) -> None:
    place = Path(dynamo_planner.__file__).parent.joinpath(*old.split("."))
    assert not place.exists()
    assert not place.with_suffix(".py").exists()


def _python(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, check=False, timeout=60)


def test_an_old_path_gives_the_same_objects_and_warns_where_it_is_imported() -> None:
    code = (
        "import warnings; warnings.simplefilter('always')\n"
        "from dynamo_planner.simulation.cluster import SimulatedCluster as old\n"
        "from dynamo_planner.simulator import SimulatedCluster as new\n"
        "print(old is new)"
    )
    done = _python(code)
    assert done.stdout.strip() == "True", done.stderr
    expected = (
        "<string>:2: DeprecationWarning: dynamo_planner.simulation.cluster is deprecated and is removed in "
        f"{REMOVED_IN}: use dynamo_planner.simulator.cluster"
    )
    assert expected in done.stderr.splitlines()


def test_a_module_below_a_moved_package_is_found_too() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        module = import_module("dynamo_planner.sources.vllm")
    assert module.VLLM is import_module("dynamo_planner.engines.vllm").VLLM
    assert all(each.category is DeprecationWarning for each in caught)


def test_what_never_was_is_still_not_found() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"simulation\.nothing"):
        import_module("dynamo_planner.simulation.nothing")


def test_a_worker_starts_under_its_old_name() -> None:
    """Pools in users' configurations have the old module in their commands."""
    done = subprocess.run(
        [sys.executable, "-m", "dynamo_planner.simulation.worker", "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "--startup-s" in done.stdout
