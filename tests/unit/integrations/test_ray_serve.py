"""Ray Serve's autoscaling policy, with Ray's context stood in for: SlaPolicy decides from what replicas report."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace
from typing import Any

import pytest

from dynamo_planner import decide, load_policy
from dynamo_planner.integrations.ray_serve import RayServePolicy, snapshot_of
from tests.support.paths import EXAMPLES

SLA = {"kind": "sla", "ttft_ms": 500, "itl_ms": 25, "profile": "llama31-8b_h100_vllm_tp1"}


def serve_context(**changes: Any) -> SimpleNamespace:
    """The fields of Ray Serve's AutoscalingContext that the policy reads."""
    fields = {
        "aggregated_metrics": {
            "requests_per_s": {"replica-1": 10.0, "replica-2": 30.0},
            "isl": {"replica-1": 1000.0, "replica-2": 2000.0},
            "osl": {"replica-1": 250.0, "replica-2": 250.0},
        },
        "capacity_adjusted_max_replicas": 40,
        "capacity_adjusted_min_replicas": 1,
        "current_num_replicas": 2,
        "current_time": 0.0,
        "policy_state": {},
        "target_num_replicas": 2,
        "total_num_requests": 40,
        "total_queued_requests": 0,
    }
    return SimpleNamespace(**{**fields, **changes})


def test_rates_are_added_and_means_are_weighted() -> None:
    traffic = snapshot_of(serve_context(), gpus=1).traffic
    assert traffic.isl is not None
    assert (traffic.requests_per_s, traffic.isl.mean) == (40, 1750)


def test_serve_gets_the_decision_of_sla_policy_and_hands_its_state_back() -> None:
    policy = RayServePolicy(SLA, startup_s=60)
    target, state = policy(serve_context())
    expected = decide(load_policy(SLA), requests_per_s=40, isl=1750, osl=250, aggregated=2).targets["workers"]
    assert target == expected > 2
    assert json.loads(json.dumps(state)) == state
    held, _ = policy(serve_context(current_time=20.0, policy_state={"__counters": 1, **state}, aggregated_metrics={}))
    assert held == 2  # the arrivals are unknown


def test_the_example_reports_what_the_policy_needs() -> None:
    now = iter([0.0, 1.0, 2.0, 5.0, 10.0])
    replica = runpy.run_path(str(EXAMPLES / "03_ray_serve.py"))["ReportsTokens"](clock=lambda: next(now))
    replica.arrived(1000)
    replica.arrived(2000)
    replica.ended(100)
    assert replica.record_autoscaling_stats() == pytest.approx({"requests_per_s": 0.2, "isl": 1500, "osl": 100})
