"""Policies from data: what is built, and how what is wrong is told."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from dynamo_planner import ConfigError, KnobPolicy, Profile, SlaPolicy, load_policy, policy_schema
from dynamo_planner.guards import GpuBudget, Stabilization
from dynamo_planner.policies import LoadPolicy

PIPELINE = [
    {"kind": "load", "adjustment_interval_s": 30},
    {"kind": "stabilization"},
    {"kind": "gpu_budget", "max_gpus": 8},
]


def test_a_list_is_a_policy_followed_by_its_guards() -> None:
    assert load_policy(PIPELINE) == LoadPolicy(adjustment_interval_s=30) | Stabilization() | GpuBudget(max_gpus=8)


@pytest.mark.parametrize("kind", ["sla", "knobs"])
def test_a_profile_is_named(kind: str, tmp_path: Path) -> None:
    data = {"kind": kind, "sla": {"ttft_ms": 500, "itl_ms": 25}, "profile": "llama31-8b_h100_vllm_tp1"}
    policy = load_policy(data)
    assert isinstance(policy, SlaPolicy | KnobPolicy)
    assert policy.profile == Profile.bundled("llama31-8b_h100_vllm_tp1")
    Profile.bundled("llama31-70b_h100_vllm_tp4").save(tmp_path / "own.json")
    policy = load_policy({**data, "profile": str(tmp_path / "own.json")})
    assert isinstance(policy, SlaPolicy | KnobPolicy)
    assert policy.profile == Profile.bundled("llama31-70b_h100_vllm_tp4")
    with pytest.raises(ConfigError, match=r"policy\.profile: none-such: there is no such file .*bundled are llama"):
        load_policy({**data, "profile": "none-such"})
    validator = jsonschema.Draft202012Validator(policy_schema())
    validator.validate(data)
    assert not validator.is_valid({**data, "profile": 3})


def test_the_targets_stand_in_the_sla_or_in_the_policy() -> None:
    targets = {"ttft_ms": 500, "itl_ms": 25, "attainment": 0.95}
    rest = {"kind": "sla", "profile": "llama31-8b_h100_vllm_tp1"}
    policy = SlaPolicy(ttft_ms=500, itl_ms=25, attainment=0.95, profile=rest["profile"])
    assert policy == load_policy({**rest, **targets}) == load_policy({**rest, "sla": targets})
    assert load_policy(policy.model_dump(mode="json")) == policy
    validator = jsonschema.Draft202012Validator(policy_schema())
    assert [
        validator.is_valid({**rest, **data}) for data in (targets, {"sla": targets}, {}, {"sla": targets, "ttft_ms": 5})
    ] == [True, True, False, False]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"ttft_ms": -1, "itl_ms": 25}, r"policy\.ttft_ms: Input should be greater than 0 \(got -1\)"),
        ({"ttft_ms": 500}, r"policy\.itl_ms: Field required"),
        ({"ttft_ms": 500, "itl_ms": 25, "attainment": 99}, r"policy\.attainment: .* \(got 99; 99 % is 0\.99\)"),
        ({}, "policy.sla: Field required; or give ttft_ms, itl_ms, attainment"),
        ({"sla": {"ttft_ms": 500, "itl_ms": 25}, "attainment": 0.9}, "give either sla or attainment, not both"),
        ({"tft_ms": 500, "itl_ms": 25}, r"policy\.ttft_ms: Field required\npolicy\.tft_ms: .* mean 'ttft_ms'"),
        ({"sla": {"ttft_ms": 500, "itl_ms": 25}, "itl": 25}, "unknown field, did you mean 'itl_ms'"),
    ],
)
def test_a_wrong_target_is_told_under_its_name(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_policy({"kind": "sla", "profile": "llama31-8b_h100_vllm_tp1", **data})


def test_nodes_nest() -> None:
    nested = {
        "kind": "guarded",
        "policy": {"kind": "highest", "policies": [PIPELINE[0], PIPELINE]},
        "guards": [PIPELINE[2]],
    }
    assert load_policy(nested).model_dump(mode="json")["policy"]["policies"][1]["guards"][1]["max_gpus"] == 8


def test_what_is_built_can_be_written_down_and_built_again() -> None:
    policy = load_policy({"kind": "highest", "policies": [PIPELINE, {"kind": "load"}]})
    assert load_policy(policy.model_dump(mode="json")) == policy


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".yml"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"policy{suffix}"
    path.write_text(json.dumps(PIPELINE))  # JSON is YAML too
    assert load_policy(path) == load_policy(str(path)) == load_policy(PIPELINE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "lod"}, "policy.kind: 'lod' is no kind of policy, did you mean 'load'? allowed: load, sla"),
        ({"kind": "bounds"}, "policy.kind: 'bounds' is no kind of policy"),
        ({}, "policy.kind: None is no kind of policy"),
        ([3], "policy[0]: expected a mapping with a 'kind', got 3"),
        ([], "policy: an empty list"),
        ([{"kind": "load"}, {"kind": "load"}], "policy[1].kind: 'load' is no kind of guard; allowed: fallback"),
        (
            {"kind": "load", "decode_kv_upp": 0.8},
            "policy.decode_kv_upp: unknown field, did you mean 'decode_kv_up'? allow",
        ),
        (
            {"kind": "load", "prefill_queue_up": -1},
            "policy.prefill_queue_up: Input should be greater than or equal to 0 (got",
        ),
        ({"kind": "load", "decode_kv_up": 0.3}, "policy: decode_kv_up (0.3) must be above decode_kv_down (0.5)"),
        ({"kind": "load", "prefill_queue_up": "many"}, "policy.prefill_queue_up: Input should be a valid number"),
        ([{"kind": "load"}, {"kind": "gpu_budget"}], "policy[1].max_gpus: Field required"),
        ([*PIPELINE, {"kind": "pending"}], "policy: 'pending' is a soft guard and stands after 'gpu_budget'"),
        ({"kind": "highest", "policies": {"kind": "load"}}, "policy.policies: expected a list"),
        ({"kind": "highest", "policies": [{"kind": "load", "x": 1}]}, "policy.policies[0].x: unknown field"),
        ({"kind": "os:system"}, "'os:system' is a kind of your own, which is not allowed here"),
    ],
)
def test_what_is_wrong_is_told_by_its_path(data: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(data)
    assert message in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy({"kind": "load", "prefill_queue_up": -1, "kv": 3})
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("policy.json", "{", "not JSON"),
        ("policy.yaml", "a: [", "not YAML"),
        ("policy.toml", "", "ends in .json, .yaml or .yml"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_policy(path)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_policy(tmp_path / "missing.json")


def test_a_kind_of_your_own_is_imported_only_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        textwrap.dedent("""
        from dynamo_planner import Policy, Proposal, Want
        class Fixed(Policy):
            replicas: int
            def propose(self, snapshot, state):
                return Proposal(pools={pool: Want(self.replicas) for pool in snapshot.pools}), state
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    built = load_policy({"kind": "mine:Fixed", "replicas": 3}, allow_custom=True)
    assert built.model_dump() == {"kind": "mine:Fixed", "replicas": 3}
    for kind, message in {
        "mine:Other": "cannot be imported",
        "no_such_module:A": "No module named .no_such_module. .install that package, or put its directory on",
        "os:sep": "is not a subclass",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_policy({"kind": kind}, allow_custom=True)
    del sys.modules["mine"]


def test_the_schema_accepts_what_builds_and_refuses_what_does_not() -> None:
    schema = policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for good in (
        PIPELINE,
        {"kind": "load"},
        {"kind": "guarded", "policy": PIPELINE, "guards": [{"kind": "gpu_budget", "max_gpus": 4}]},
    ):
        assert validator.is_valid(good)
        load_policy(good)
    for bad in (
        {"kind": "lod"},
        {"kind": "load", "x": 1},
        [{"kind": "load"}, {"kind": "gpu_budget"}],
        {"kind": "bounds"},
    ):
        assert not validator.is_valid(bad)
        with pytest.raises(ConfigError):
            load_policy(bad)
