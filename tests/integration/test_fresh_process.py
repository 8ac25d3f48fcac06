"""What a fresh interpreter imports and writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


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
