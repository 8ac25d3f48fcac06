"""A policy as a plug-in of Dynamo's planner, called over gRPC as that calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from dynamo_planner import LoadPolicy, Policy, PoolSpec, SlaPolicy
from dynamo_planner.integrations.dynamo_plugin import SERVICE, DynamoPlugin, dynamo_plugin_server, message

SPECS = {"prefill": PoolSpec(role="prefill"), "decode": PoolSpec(role="decode")}
OBSERVED = {
    "traffic": {"duration_s": 60.0, "num_req": 2400.0, "isl": 3000.0, "osl": 250.0},
    "workers": {"ready_prefill": 1, "ready_decode": 1, "expected_prefill": 1, "expected_decode": 1},
}
Propose = Callable[[Policy, Any], Any]


@pytest.fixture
def propose() -> Iterator[Propose]:
    servers = []

    def ask(policy: Policy, observed: Any) -> Any:
        servers.append(dynamo_plugin_server(DynamoPlugin(policy, SPECS, clock=lambda: 0.0), "127.0.0.1:0"))
        request = message("ProposeStageRequest")(context={"observations": observed})
        with grpc.insecure_channel(f"127.0.0.1:{servers[-1].port}") as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/Propose",
                lambda sent: sent.SerializeToString(),
                message("ProposeStageResponse").FromString,
            )
            return call(request, timeout=20)

    yield ask
    for server in servers:
        server.stop(0)


@pytest.fixture
def sla_policy() -> Policy:
    return SlaPolicy(ttft_ms=500, itl_ms=25, profile="llama31-8b_h100_vllm_tp1")


def test_what_sla_policy_decides_is_what_the_planner_is_told(propose: Propose, sla_policy: Policy) -> None:
    answer = propose(sla_policy, OBSERVED)
    assert {each.sub_component_type: each.replicas for each in answer.override.targets} == {"prefill": 4, "decode": 3}
    assert "4 prefill replicas" in answer.override.reason


@pytest.mark.parametrize("observed", [{}, {"workers": OBSERVED["workers"]}, {"traffic": OBSERVED["traffic"]}])
def test_what_is_unknown_gives_no_opinion(propose: Propose, sla_policy: Policy, observed: Any) -> None:
    assert propose(sla_policy, observed).HasField("accept")


def test_a_policy_that_needs_queues_has_no_opinion(propose: Propose) -> None:
    assert propose(LoadPolicy(), OBSERVED).HasField("accept")


def test_the_numbers_of_the_fields_are_those_of_dynamo() -> None:
    """A request as Dynamo 1.6.1 writes it: context 1, observations 3, traffic 1 with duration 1 s and 2 requests."""
    traffic = b"\x09" + b"\0\0\0\0\0\0\xf0\x3f" + b"\x11" + b"\0\0\0\0\0\0\0\x40"
    workers = b"\x08\x01\x10\x02\x18\x03\x20\x04"
    observed = b"\x0a" + bytes([len(traffic)]) + traffic + b"\x1a" + bytes([len(workers)]) + workers
    context = b"\x0a\x01t" + b"\x1a" + bytes([len(observed)]) + observed  # the id of the request is skipped
    read = message("ProposeStageRequest").FromString(b"\x0a" + bytes([len(context)]) + context).context.observations
    assert (read.traffic.duration_s, read.traffic.num_req) == (1.0, 2.0)
    assert [read.workers.ready_prefill, read.workers.ready_decode] == [1, 2]
    assert [read.workers.expected_prefill, read.workers.expected_decode] == [3, 4]
    target = message("ComponentTarget")(sub_component_type="decode", replicas=5)
    told = message("OverrideResult")(targets=[target])
    response = message("ProposeStageResponse")(override=told).SerializeToString()
    assert response == b"\x12\x0c" + b"\x0a\x0a" + b"\x0a\x06decode" + b"\x18\x05"


def test_another_pool_is_refused() -> None:
    with pytest.raises(ValueError, match="has prefill and decode, not workers"):
        DynamoPlugin(LoadPolicy(), {"workers": PoolSpec(role="aggregated")})
