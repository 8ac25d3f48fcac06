"""The commands as a user types them: what they print, how they exit, and how they tell what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dynamo_planner import Decision, LoadPolicy, Observation, Planner, PoolMetrics, PoolSpec, Traffic
from dynamo_planner.executors.dry_run import DryRunExecutor
from tests.support.cli import planner

SNAPSHOT = {
    "at_s": 0,
    "traffic": {"requests_per_s": 0},
    "pools": {"workers": {"spec": {"role": "aggregated"}, "replicas": 2, "kv_usage": 0.7, "queued": 0}},
}
CONFIG: dict[str, Any] = {
    "policy": [{"kind": "load"}, {"kind": "gpu_budget", "max_gpus": 4}],
    "executor": {"kind": "dry_run", "pools": {"workers": {"role": "aggregated"}}},
}


def written(directory: Path, name: str, data: Any) -> Path:
    path = directory / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_every_command_has_help_with_an_example() -> None:
    listed = planner("--help").stdout
    for command in ("decide", "validate", "schema", "run", "explain", "demo", "queries", "check", "shadow"):
        assert command in listed
        shown = planner(command, "--help")
        assert shown.returncode == 0
        assert f"Example: dynamo-planner {command}" in " ".join(shown.stdout.split())


def test_version() -> None:
    assert planner("--version").stdout.startswith("dynamo-planner 0.")


def test_decide_prints_a_decision_that_reads_back(tmp_path: Path) -> None:
    policy = written(tmp_path, "policy.json", CONFIG["policy"])
    done = planner("decide", "--policy", policy, written(tmp_path, "snapshot.json", SNAPSHOT))
    assert done.returncode == 0, done.stderr
    decision = Decision.model_validate_json(done.stdout)
    state = written(tmp_path, "state.json", json.loads(done.stdout)["state"])
    later = planner("decide", "-p", policy, "--state", state, "-", stdin=json.dumps({**SNAPSHOT, "at_s": 200}))
    assert later.returncode == 0, later.stderr
    assert decision.targets == {}
    assert json.loads(later.stdout)["targets"] == {"workers": 2}


def test_decide_explains_in_words(tmp_path: Path) -> None:
    policy = written(tmp_path, "policy.yaml", "kind: load\n")
    done = planner("decide", "--policy", policy, "--explain", written(tmp_path, "snapshot.json", SNAPSHOT))
    assert done.stdout.startswith("workers: held\n  Collecting")


@pytest.mark.parametrize(
    ("policy", "snapshot", "message"),
    [
        ({"kind": "lod"}, SNAPSHOT, "policy.kind: 'lod' is no kind of policy"),
        ({"kind": "load", "kv": 1}, SNAPSHOT, "policy.kv: unknown field"),
        ({"kind": "load", "prefill_queue_up": -1}, SNAPSHOT, "policy.prefill_queue_up: Input should be greater"),
        ({"kind": "load", "decode_kv_up": 0.4}, SNAPSHOT, "decode_kv_up (0.4) must be above decode_kv_down (0.5)"),
        ({"kind": "load"}, {**SNAPSHOT, "at": 3}, "snapshot.at: unknown field, did you mean 'at_s'?"),
        ({"kind": "load"}, {**SNAPSHOT, "pools": {"w": {"spec": {"role": "x"}}}}, "snapshot.pools.w.spec.role: Input"),
        ({"kind": "load"}, "{", "not JSON"),
        ("", SNAPSHOT, "not JSON"),
    ],
)
def test_wrong_input_is_told_by_its_path_and_exits_2(tmp_path: Path, policy: Any, snapshot: Any, message: str) -> None:
    done = planner(
        "decide", "-p", written(tmp_path, "policy.json", policy), written(tmp_path, "snapshot.json", snapshot)
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_validate_names_every_field_that_is_wrong(tmp_path: Path) -> None:
    good = planner("validate", written(tmp_path, "good.json", CONFIG))
    assert (good.returncode, good.stderr) == (0, "")
    circus = {"kind": "circus", "pools": {"w": {"spec": {"role": "decode", "gpu": 1}, "command": ["serve", "{port}"]}}}
    bad = written(tmp_path, "bad.json", {"policy": {"kind": "load", "kv": 1}, "executor": circus, "interval_s": 0})
    done = planner("validate", bad)
    assert done.returncode == 2
    told = done.stderr.splitlines()
    assert [line.removeprefix(f"error: {bad}: ").split(":")[0] for line in told] == [
        "policy.kv",
        "executor.pools.w.spec.gpu",
        "interval_s",
    ]
    assert "did you mean 'gpus'?" in done.stderr
    assert planner("validate", tmp_path / "missing.yaml").returncode == 2


def test_the_schemas_are_schemas(tmp_path: Path) -> None:
    for of, good in (("policy", CONFIG["policy"]), ("config", CONFIG)):
        schema = json.loads(planner("schema", of).stdout)
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(good)
    assert not jsonschema.Draft202012Validator(schema).is_valid({**CONFIG, "intervals": 3})


class Busy:
    def observe(self, at_s: float) -> Observation:
        return Observation(
            traffic=Traffic(requests_per_s=4), pools={"workers": PoolMetrics(kv_usage=0.97, queued=9, running=20)}
        )


def test_explain_reads_a_log_back(tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    now_s = [0.0]
    executor = DryRunExecutor({"workers": PoolSpec(role="aggregated")}, {"workers": 2})
    loop = Planner(LoadPolicy(adjustment_interval_s=20), Busy(), executor, clock=lambda: now_s[0], log=log)
    for now_s[0] in (0.0, 10.0, 20.0, 30.0):
        loop.step()
    changes = planner("explain", "--changes", log)
    assert changes.returncode == 0, changes.stderr
    assert changes.stdout.splitlines()[0] == "1970-01-01 00:00:20+00:00"
    assert "workers: 2 -> 3 replicas" in changes.stdout
    assert "=> workers: unchanged: dry run: would scale workers from 2 to 3 replicas" in changes.stdout
    assert len(planner("explain", "--last", "2", log).stdout.split("1970-")) == 3
    other = planner("explain", "--pool", "worker", log)
    assert (other.stdout, "'worker' is not a pool, did you mean 'workers'?" in other.stderr) == ("", True)
    late = planner("explain", "--since", "1970-01-01T00:00:20", "--json", log).stdout.splitlines()
    assert [json.loads(line)["at_s"] for line in late] == [20, 30]
    assert "neither a length of time" in planner("explain", "--since", "yesterday", log).stderr
    missing = planner("explain", tmp_path / "missing.jsonl")
    assert missing.returncode == 1
    assert "there is no such decision log" in missing.stderr
