"""What the operator does with a Deployment; the whole of it runs against a real API server elsewhere."""

from __future__ import annotations

import json
from typing import Any

from dynamo_planner import PoolMetrics, SlaPolicy, Traffic, decide
from dynamo_planner.integrations.kopf import POLICY, STATE, decided

BUSY = PoolMetrics(queued=8, kv_usage=0.97)


def test_a_full_cache_adds_a_replica_once_the_state_has_seen_it() -> None:
    annotations = {POLICY: json.dumps([{"kind": "load", "adjustment_interval_s": 20}])}
    metadata = {"name": "llama", "resourceVersion": "7", "annotations": annotations}
    deployment = {"metadata": metadata, "spec": {"replicas": 2}, "status": {"readyReplicas": 2}}
    patches: list[dict[str, Any]] = []
    for at_s in (0.0, 10.0, 20.0, 30.0, 40.0):
        _, patch = decided(deployment, Traffic(requests_per_s=5, window_s=60, queued=0), BUSY, at_s)
        annotations |= patch["metadata"]["annotations"]
        patches.append(patch)
    assert [patch.get("spec") for patch in patches].count({"replicas": 3}) >= 1
    assert patches[0].get("spec") is None
    assert {patch["metadata"]["resourceVersion"] for patch in patches} == {"7"}
    assert json.loads(annotations[STATE])["kind"] == "decision"


def test_the_decision_is_that_of_sla_policy() -> None:
    policy = {"kind": "sla", "ttft_ms": 500, "itl_ms": 25, "profile": "llama31-8b_h100_vllm_tp1"}
    metadata = {"name": "llama", "resourceVersion": "7", "annotations": {POLICY: json.dumps(policy)}}
    deployment = {"metadata": metadata, "spec": {"replicas": 2}, "status": {"readyReplicas": 2}}
    traffic = Traffic(requests_per_s=40, isl=1750, osl=250, queued=0)
    _, patch = decided(deployment, traffic, PoolMetrics(queued=0), 0.0)
    expected = decide(SlaPolicy.model_validate(policy), requests_per_s=40, isl=1750, osl=250, aggregated=2)
    assert patch["spec"] == {"replicas": expected.targets["workers"]}
    assert expected.targets["workers"] > 2


def test_replicas_that_are_not_ready_are_starting() -> None:
    metadata = {"name": "llama", "resourceVersion": "1", "annotations": {POLICY: json.dumps({"kind": "load"})}}
    decision, _ = decided({"metadata": metadata, "spec": {"replicas": 3}}, Traffic(), PoolMetrics(), 0.0)
    assert "llama" not in decision.targets  # no metrics: held
