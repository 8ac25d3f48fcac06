"""SlaPolicy without a profile: what it does before it knows its engines, and after."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from dynamo_planner import Dist, PoolSpec, PoolStatus, Replicas, Sla, SlaPolicy, Snapshot, State, Traffic
from dynamo_planner.policies.sla import LearnedCapacity, StepModelCapacity
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.restraint import at_most
from dynamo_planner.policies.sla.tick import Engine, Tick
from tests.support.sla_service import Service

SLA = Sla(ttft_ms=1000, itl_ms=25)
POLICY = SlaPolicy(sla=SLA)


def of(ms: float, target_ms: float, share: float = 1.0) -> Dist:
    return Dist(mean=ms, count=500, buckets={target_ms: share, 10 * target_ms: 1.0})


def decoding(service: Service, rate: float, seconds: float, itl_ms: float = 0.0) -> None:
    """A pool whose steps take 10 ms and 0.1 ms for each request; answers have 250 tokens."""
    for _ in range(int(seconds / 10)):
        tokens = rate * 0.25 / service.ready["decode"]  # requests in flight for each ms of a step
        batch = 10 * tokens / (1 - 0.1 * tokens)
        itl = of(itl_ms or 10 + 0.1 * batch, SLA.itl_ms)
        running = {"running": batch * service.ready["decode"], "kv_usage": 0.2}
        service.see(rate, pools={"decode": running}, itl_ms=itl, ttft_ms=of(100, SLA.ttft_ms))


def test_without_latencies_the_present_replicas_stay() -> None:
    service = Service(POLICY, roles=("prefill", "decode"), prefill=3, decode=5)
    service.run(rate=40, seconds=600)
    assert dict(service.decision.targets) == {"prefill": 3, "decode": 5}
    assert "EngineUnknown" in service.codes("decode")


def test_without_latencies_a_queue_that_grows_asks_for_more() -> None:
    service = Service(POLICY, roles=("prefill",), prefill=2)
    for number in range(12):
        service.see(20, pools={"prefill": {"queued": 40 * number, "running": 2}})
    assert service.target("prefill") > 2


def test_a_pool_that_is_too_large_falls_to_what_the_learned_steps_need() -> None:
    service = Service(POLICY, roles=("decode",), decode=8)
    decoding(service, rate=40, seconds=3600)
    # At 25 ms a batch of 150 makes 6 tokens/ms: 40 * 250 tokens/s take 1.7 replicas without a margin.
    assert 2 <= service.target("decode") <= 3
    assert "EngineLearned" in service.codes("decode")
    (why,) = [each for each in service.decision.reasons if each.code == "EngineLearned"]
    assert 0 < float(why.values["error"] or 0) < 0.15


def test_prompts_are_learned_from_the_time_to_first_token_where_there_are_no_stage_times() -> None:
    """Prompts take 60 ms each and 40 come a second: a load of 2.4, and little waiting with three."""
    service = Service(POLICY, roles=("prefill",), prefill=8)
    targets = []
    for _ in range(360):
        ready = service.ready["prefill"]
        utilisation = min(2.4 / ready, 0.99)
        waits_ms = 30 * utilisation ** math.sqrt(2 * ready + 2) / ready / (1 - utilisation)
        service.see(40, pools={"prefill": {"running": 2.4}}, ttft_ms=of(60 + waits_ms, SLA.ttft_ms))
        targets.append(service.target("prefill"))
    assert targets[-1] in (3, 4)
    assert min(targets) >= 3


def test_a_pool_in_time_rises_with_the_demand_alone_while_little_is_known() -> None:
    service = Service(POLICY, roles=("decode",), decode=4)
    decoding(service, rate=20, seconds=200, itl_ms=24)  # so close to the target that curves alone would ask for 20
    assert {"EngineLearned", "LittleKnown"} <= set(service.codes("decode"))
    assert service.target("decode") <= 6  # the forecast, which has seen little as well, plans for 30 requests/s


def test_restraint_goes_by_requests_in_time() -> None:
    def tick(share: float) -> Tick:
        pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=8, queued=0)
        traffic = Traffic(
            requests_per_s=100, window_s=30, ttft_ms=of(100, SLA.ttft_ms), itl_ms=of(20, SLA.itl_ms, share)
        )
        snapshot = Snapshot(at_s=0, traffic=traffic, pools={"decode": pool})
        return Tick("decode", pool, Replicas(ready=8), snapshot, 1.0, Engine(), 60.0)

    now = ArrivalWindow(0, requests_per_s=100, window_s=30, elapsed_s=30)
    assert at_most(tick(1.0), SLA, 150, now) == 12
    assert at_most(tick(1.0), SLA, 50, now) == 8
    assert at_most(tick(0.9), SLA, 100, now) == 16


def test_the_capacity_follows_from_the_profile() -> None:
    assert isinstance(POLICY.capacity, StepModelCapacity)
    assert isinstance(SlaPolicy(sla=SLA, profile="llama31-8b_h100_vllm_tp1").capacity, LearnedCapacity)
    with pytest.raises(ValidationError, match="corrects a profile"):
        SlaPolicy(sla=SLA, capacity=LearnedCapacity())


def test_what_was_learned_survives_json() -> None:
    service = Service(POLICY, roles=("decode",), decode=4)
    decoding(service, rate=40, seconds=1200)
    text = service.decision.state.model_dump_json() if service.decision.state else ""
    service.state = State.model_validate(json.loads(text))
    other = Service(POLICY, roles=("decode",), decode=service.ready["decode"])
    other.state, other.at_s = service.decision.state, service.at_s
    for each in (service, other):
        decoding(each, rate=40, seconds=60)
    assert service.decision.targets == other.decision.targets
    assert "EngineLearned" in service.codes("decode")
