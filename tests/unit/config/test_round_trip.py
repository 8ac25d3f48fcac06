"""Policies through JSON by pydantic itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from dynamo_planner import (
    Bounds,
    ConfigError,
    GpuBudget,
    Guard,
    KnobPolicy,
    LoadPolicy,
    Policy,
    Proposal,
    Sla,
    SlaPolicy,
    Snapshot,
    Stabilization,
    Want,
    highest,
    load_policy,
    together,
)
from dynamo_planner.core.policy import AnyPolicy

SLA = Sla(ttft_ms=500, itl_ms=25)
GUARDED = LoadPolicy(decode_kv_up=0.8) | Stabilization() | GpuBudget(max_gpus=8)


class Constant(Policy):
    replicas: int = 1

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return Proposal(pools={pool: Want(self.replicas) for pool in snapshot.pools}), state


class Named(Constant, kind="named_constant"):
    pass


POLICIES = {
    "plain": LoadPolicy(prefill_queue_up=3),
    "guarded": GUARDED,
    "nested": highest(GUARDED, LoadPolicy()) | Bounds(),
    "together": together(KnobPolicy(sla=SLA), SlaPolicy(sla=SLA, profile="llama31-8b_h100_vllm_tp1")),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_survives_json(name: str) -> None:
    policy = POLICIES[name]
    text = policy.model_dump_json()
    assert type(policy).model_validate_json(text) == policy
    assert type(policy).model_validate(policy.model_dump()) == policy
    anything: TypeAdapter[Policy] = TypeAdapter(AnyPolicy)
    assert anything.validate_json(text) == policy
    assert anything.dump_json(policy).decode() == text
    assert load_policy(json.loads(text)) == policy


def test_data_of_another_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="kind is 'load', and this is of kind 'sla'"):
        SlaPolicy.model_validate({"kind": "load"})
    assert LoadPolicy.model_validate({"kind": "load", "decode_kv_up": 0.8}).decode_kv_up == 0.8


@pytest.mark.parametrize("policy", [Constant(replicas=3), Named(replicas=3)])
def test_a_class_of_this_process_is_loaded_by_its_kind(policy: Policy) -> None:
    assert type(policy).model_validate_json(policy.model_dump_json()) == policy
    guarded = policy | Bounds()
    assert load_policy(guarded.model_dump(mode="json"), allow_custom=True) == guarded
    with pytest.raises(ConfigError, match=r"policy\.policy\.kind: .*not allowed here: .*allow_custom_kinds: true"):
        load_policy(guarded.model_dump(mode="json"))


def test_a_class_within_a_function_is_loaded_as_long_as_it_lives() -> None:
    class Local(Guard):
        most: int

        def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
            return proposal, state

    policy = LoadPolicy() | Local(most=3)
    assert load_policy(policy.model_dump(mode="json"), allow_custom=True) == policy


def test_a_function_is_a_policy_in_any_field() -> None:
    anything: TypeAdapter[Policy] = TypeAdapter(AnyPolicy)
    assert anything.validate_python(lambda snapshot: {"workers": 3}).kind == "function"
    with pytest.raises(ValidationError, match="expected a mapping with a 'kind', got 3"):
        anything.validate_python(3)
