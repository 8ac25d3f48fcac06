"""The numbered examples run, and do what they say."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from dynamo_planner import decide, load_policy
from dynamo_planner.integrations.kopf import POLICY, decided
from tests.support.examples import load
from tests.support.paths import EXAMPLES

SCRIPTS = (
    "01_own_controller.py",
    "02_own_policy.py",
    "05_backtest.py",
    "07_own_parts.py",
    "08_several_models.py",
    "09_mixed_hardware.py",
    "10_deferrable.py",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_run(script: str) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / script], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


PICTURES = {
    "04_what_if.ipynb": 0,
    "backtest.ipynb": 1,
    "knobs.ipynb": 2,
    "several_models.ipynb": 1,
    "sla_sizing.ipynb": 2,
}
"""How many pictures each notebook shows: a ``;`` after a figure of ours would hide it."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.ipynb")))
def test_notebooks_run_and_show_their_pictures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a kernel draws inline unless told otherwise
    book = nbformat.reads((EXAMPLES / name).read_text(), as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    printed = [output.get("text", "") for cell in book.cells for output in cell.get("outputs", [])]
    assert all(not cell.get("outputs") or printed for cell in book.cells)
    assert "replicas" in "".join(printed) or "workers" in "".join(printed)
    shown = [
        output for cell in book.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(shown) == PICTURES[name]


def test_the_backtest_follows_the_load_up_and_down() -> None:
    out = subprocess.run(
        [sys.executable, EXAMPLES / "05_backtest.py"], capture_output=True, text=True, timeout=100, check=True
    ).stdout
    moves = [line for line in out.splitlines() if " -> " in line]
    assert any("1 -> 2" in line for line in moves)
    assert any("2 -> 1" in line for line in moves)


def test_tuned_knobs_need_fewer_gpus_and_lose_nothing() -> None:
    script = [sys.executable, str(EXAMPLES / "06_knobs.py")]
    out = subprocess.run(script, capture_output=True, text=True, timeout=100, check=True).stdout
    alone, tuned, *told = out.splitlines()
    (attained, hours), (tuned_attained, tuned_hours) = (
        [float(word.rstrip("%")) for word in line.split() if word.rstrip("%").replace(".", "").isdecimal()]
        for line in (alone, tuned)
    )
    assert tuned_attained >= attained
    assert tuned_hours < 0.95 * hours
    assert any("KnobTrial: max_num_batched_tokens 8192" in line for line in told)


def test_the_kopf_operator_reaches_the_decision_of_sla_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("kubernetes/kopf_operator.py")
    answers = {"waiting": 0.0, "kv_cache": 0.5, "gateway": 20.0, "prompt_tokens": 3000.0, "generation_tokens": 250.0}
    monkeypatch.setattr(module, "ask", lambda query: next(value for name, value in answers.items() if name in query))
    sla = {"kind": "sla", "ttft_ms": 500, "itl_ms": 25, "profile": "llama31-8b_h100_vllm_tp1"}
    metadata = {"name": "llama", "resourceVersion": "1", "annotations": {POLICY: json.dumps(sla)}}
    deployment = {"metadata": metadata, "spec": {"replicas": 2}, "status": {"readyReplicas": 2}}
    traffic, metrics = module.observe("llama")
    _, patch = decided(deployment, traffic, metrics, at_s=0.0)
    wanted = decide(load_policy(sla), requests_per_s=20, isl=3000, osl=250, aggregated=2).targets["workers"]
    assert patch["spec"] == {"replicas": wanted}


def test_what_prometheus_does_not_answer_is_unknown() -> None:
    module = load("kubernetes/kopf_operator.py")
    vars(module)["PROMETHEUS"] = "http://127.0.0.1:9"
    assert module.ask("up") is None


def test_the_policy_of_example_two_can_be_imported_without_running_its_check() -> None:
    assert runpy.run_path(str(EXAMPLES / "02_own_policy.py"))["PerReplica"]().requests_per_s == 4
