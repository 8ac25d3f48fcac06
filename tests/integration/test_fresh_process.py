"""What a fresh interpreter imports and writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dynamo_planner._moved import REMOVED_IN


def test_matplotlib_is_only_imported_to_plot() -> None:
    code = """
import sys
from dynamo_planner.profiles import Profile
Profile.bundled("llama31-8b_h100_vllm_tp1").decode.itl_ms(0.1, 500)
print("matplotlib" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_the_package_does_not_import_scipy_for_it() -> None:
    code = "import sys, dynamo_planner; print([name for name in sys.modules if name.startswith('scipy')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_completion_knows_every_public_name() -> None:
    rooms = [
        "",
        *(f".{room}" for room in ("executors", "guards", "policies", "runtime", "simulator", "sizing", "sources")),
    ]
    code = (
        "from importlib import import_module as load\n"
        f"packages = [load('dynamo_planner' + room) for room in {rooms}]\n"
        "print([name for package in packages for name in set(package.__all__) - set(dir(package))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_examples_are_stored(tmp_path: Path) -> None:
    program = (
        "from dynamo_planner.conformance import check_policy\n"
        "try:\n"
        "    check_policy(lambda snapshot: {'workers': round(snapshot.traffic.requests_per_s)}, modes=['aggregated'])\n"
        "except AssertionError as error:\n"
        "    print(error.law)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "never-raises\n"
    assert not list(tmp_path.glob(".hypothesis/examples"))


def test_a_source_without_its_extra_is_told_by_name() -> None:
    code = "import sys; sys.modules['urllib3'] = None; from dynamo_planner.sources import ScrapeSource"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "urllib3 is not installed: pip install 'dynamo-planner[scrape]'" in done.stderr


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
