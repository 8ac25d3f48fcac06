"""What a process does first: a value is dumped whose class no validator has run for yet.

pydantic builds the classes of values on demand, so a test that comes after others in one process shows nothing here.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from dynamo_planner import (
    Decision,
    GpuBudget,
    LoadPolicy,
    Policy,
    PoolSpec,
    PoolStatus,
    Profile,
    Sla,
    SlaPolicy,
    Snapshot,
    Stabilization,
    StepLimit,
    Traffic,
)
from dynamo_planner.runtime.decision_log import read_log
from dynamo_planner.runtime.state_file import SavedState
from dynamo_planner.workloads.generators import poisson
from tests.support.cli import planner

AGGREGATED = PoolStatus(spec=PoolSpec(role="aggregated", max_replicas=8), replicas=2, queued=9, kv_usage=0.95)
POOLS = {
    role: PoolStatus(spec=PoolSpec(role=role, max_replicas=8), replicas=2, queued=0, running=2, kv_usage=0.5)
    for role in ("prefill", "decode")
}
CASES: dict[str, tuple[Policy, Snapshot]] = {
    "load": (
        LoadPolicy() | Stabilization() | StepLimit() | GpuBudget(max_gpus=4),
        Snapshot(at_s=0, traffic=Traffic(requests_per_s=11), pools={"workers": AGGREGATED}),
    ),
    "sla": (
        SlaPolicy(sla=Sla(ttft_ms=800, itl_ms=40), profile=Profile.bundled("llama31-8b_h100_vllm_tp1")) | StepLimit(),
        Snapshot(at_s=0, traffic=Traffic(window_s=10, requests_per_s=11, isl=500, osl=90), pools=POOLS),
    ),
}


def python(code: str, *files: Path) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", f"import sys, pickle\nfrom pathlib import Path\n{code}", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Policy, Snapshot]:
    return CASES[request.param]


def test_the_first_decision_and_its_state_dump(case: tuple[Policy, Snapshot], tmp_path: Path) -> None:
    policy, snapshot = case
    (tmp_path / "policy").write_text(policy.model_dump_json(), "utf-8")
    (tmp_path / "snapshot").write_text(snapshot.model_dump_json(), "utf-8")
    said = python(
        "from dynamo_planner import Snapshot, load_policy\n"
        "import json\n"
        "policy = load_policy(json.loads(Path(sys.argv[1]).read_text()))\n"
        "decision = policy.decide(Snapshot.model_validate_json(Path(sys.argv[2]).read_text()))\n"
        "print(decision.state.model_dump_json())\n"
        "print(decision.model_dump_json())",
        tmp_path / "policy",
        tmp_path / "snapshot",
    )
    state, decision = map(json.loads, said.splitlines())
    expected = policy.decide(snapshot)
    assert Decision.model_validate(decision).targets == expected.targets
    assert state == decision["state"] == json.loads(expected.model_dump_json())["state"]


@pytest.mark.parametrize("what", ["policy", "decision"])
def test_a_pickle_dumps_as_what_it_was_made_of(case: tuple[Policy, Snapshot], what: str, tmp_path: Path) -> None:
    policy, snapshot = case
    value = policy if what == "policy" else policy.decide(snapshot)
    (tmp_path / "value").write_bytes(pickle.dumps(value))
    said = python("print(pickle.loads(Path(sys.argv[1]).read_bytes()).model_dump_json())", tmp_path / "value")
    assert json.loads(said) == json.loads(value.model_dump_json())


def test_a_state_that_a_guard_leaves_as_it_was_dumps(case: tuple[Policy, Snapshot], tmp_path: Path) -> None:
    policy, snapshot = case
    first = policy.decide(snapshot)
    (tmp_path / "policy").write_bytes(pickle.dumps(policy))
    (tmp_path / "snapshot").write_bytes(pickle.dumps(snapshot.replace(at_s=5.0)))
    assert first.state is not None
    (tmp_path / "state").write_text(first.state.model_dump_json(), "utf-8")
    said = python(
        "policy, snapshot = [pickle.loads(Path(path).read_bytes()) for path in sys.argv[1:3]]\n"
        "import json\n"
        "print(policy.decide(snapshot, json.loads(Path(sys.argv[3]).read_text())).model_dump_json())",
        tmp_path / "policy",
        tmp_path / "snapshot",
        tmp_path / "state",
    )
    later = policy.decide(snapshot.replace(at_s=5.0), first.state)
    assert json.loads(said) == json.loads(later.model_dump_json())


def test_run_keeps_its_state_in_a_file(tmp_path: Path) -> None:
    config = {
        "policy": [{"kind": "load"}, {"kind": "stabilization"}],
        "executor": {"kind": "dry_run", "pools": {"workers": {"role": "aggregated"}}},
        "source": {"workers": {"workers": {}}},
        "state_file": str(tmp_path / "state.json"),
        "log": str(tmp_path / "log.jsonl"),
    }
    (tmp_path / "run.json").write_text(json.dumps(config), "utf-8")
    for steps in (1, 2):
        done = planner("run", "--once", tmp_path / "run.json")
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr and "could not be written" not in done.stderr, done.stderr
        saved = SavedState.model_validate_json((tmp_path / "state.json").read_bytes())
        logged = list(read_log(tmp_path / "log.jsonl", strict=True))
        assert (len(logged), logged[-1].at_s) == (steps, saved.at_s)
        assert saved.state is not None


def test_backtest_prints_its_table(tmp_path: Path) -> None:
    poisson(4, 60, seed=1).save(tmp_path / "trace.npz")
    (tmp_path / "load.json").write_text('[{"kind": "load"}, {"kind": "gpu_budget", "max_gpus": 4}]', "utf-8")
    profile, trace, policy = "llama31-8b_h100_vllm_tp1", tmp_path / "trace.npz", tmp_path / "load.json"
    done = planner("backtest", "--profile", profile, "--trace", trace, "--policy", policy, "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert "| load" in done.stdout
