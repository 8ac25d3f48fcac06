"""KEDA's external scaler over gRPC, as KEDA calls it: with SlaPolicy's decision, several pools, and a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from dynamo_planner import SlaPolicy, decide
from dynamo_planner.integrations.keda import METRIC, DesiredReplicas, keda_server
from dynamo_planner.integrations.keda_messages import SERVICE, message


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desired(clock: Clock) -> DesiredReplicas:
    return DesiredReplicas(valid_s=60, clock=clock)


@pytest.fixture
def channel(desired: DesiredReplicas) -> Iterator[grpc.Channel]:
    server = keda_server(desired, "127.0.0.1:0")
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as open_channel:
        yield open_channel
    server.stop(0)


def ref(name: str, **metadata: str) -> Any:
    return message("ScaledObjectRef")(name=name, namespace="llm", scalerMetadata=metadata)


def call(channel: grpc.Channel, method: str, request: Any, answer: str) -> Any:
    send = channel.unary_unary(
        f"/{SERVICE}/{method}", lambda sent: sent.SerializeToString(), message(answer).FromString
    )
    return send(request, timeout=20)


def value(channel: grpc.Channel, scaled_object: Any) -> float:
    asked = message("GetMetricsRequest")(scaledObjectRef=scaled_object, metricName=METRIC)
    (found,) = call(channel, "GetMetrics", asked, "GetMetricsResponse").metricValues
    assert found.metricValue == found.metricValueFloat
    return float(found.metricValueFloat)


def test_what_sla_policy_decides_is_what_keda_reads(channel: grpc.Channel, desired: DesiredReplicas) -> None:
    policy = SlaPolicy(ttft_ms=500, itl_ms=25, profile="llama31-8b_h100_vllm_tp1")
    decision = decide(policy, requests_per_s=40, isl=3000, osl=250, prefill=1, decode=1)
    desired.decided("llm", decision)
    read = {pool: value(channel, ref("any", pool=pool)) for pool in ("prefill", "decode")}
    assert read == dict(decision.targets) == {"prefill": 4, "decode": 3}
    (spec,) = call(channel, "GetMetricSpec", ref("decode"), "GetMetricSpecResponse").metricSpecs
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (METRIC, 1, 1.0)


def test_what_is_unknown_or_old_is_unavailable(channel: grpc.Channel, desired: DesiredReplicas, clock: Clock) -> None:
    desired.put("llm", "decode", 0)
    assert call(channel, "IsActive", ref("decode"), "IsActiveResponse").result is False
    clock.now_s = 61.0
    for name in ("decode", "never"):
        with pytest.raises(grpc.RpcError) as refused:
            call(channel, "IsActive", ref(name), "IsActiveResponse")
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE


def test_a_stream_says_when_a_pool_wakes_up_and_when_it_sleeps(channel: grpc.Channel, desired: DesiredReplicas) -> None:
    watch = channel.unary_stream(
        f"/{SERVICE}/StreamIsActive", lambda sent: sent.SerializeToString(), message("IsActiveResponse").FromString
    )
    desired.put("llm", "decode", 0)
    stream = watch(ref("decode"), timeout=20)
    told = [next(stream).result]
    for replicas in (2, 3, 0):
        desired.put("llm", "decode", replicas)
        if replicas != 3:  # 2 and 3 are both active
            told.append(next(stream).result)
    assert told == [False, True, False]
    stream.cancel()


def test_many_streams_do_not_keep_other_calls_waiting(channel: grpc.Channel, desired: DesiredReplicas) -> None:
    """40 ScaledObjects watch, with two streams each, while KEDA asks for their numbers."""
    watch, spec = (
        channel.unary_stream(f"/{SERVICE}/{method}", lambda sent: sent.SerializeToString(), message(answer).FromString)
        for method, answer in (("StreamIsActive", "IsActiveResponse"), ("StreamMetricSpec", "GetMetricSpecResponse"))
    )
    names = [f"pool-{number}" for number in range(40)]
    for number, name in enumerate(names):
        desired.put("llm", name, number)
    streams = [(watch(ref(name), timeout=60), spec(ref(name), timeout=60)) for name in names]
    assert [next(active).result for active, _ in streams] == [number > 0 for number in range(40)]
    assert {next(told).metricSpecs[0].targetSize for _, told in streams} == {1}
    assert [value(channel, ref(name)) for name in names] == list(range(40))
    for pair in streams:
        for stream in pair:
            stream.cancel()
