"""The HTTP service: SlaPolicy's decisions over a socket, with the state in the caller's hands."""

from __future__ import annotations

import asyncio
from typing import Any

import jsonschema
import pytest
from aiohttp.test_utils import TestClient, TestServer

from dynamo_planner import PoolSpec, PoolStatus, SlaPolicy, Snapshot, Traffic
from dynamo_planner.integrations.http_service import service

POLICY = SlaPolicy(ttft_ms=500, itl_ms=25, profile="llama31-8b_h100_vllm_tp1")


def snapshot(at_s: float, requests_per_s: float) -> Snapshot:
    pools = {
        role: PoolStatus(spec=PoolSpec(role=role, startup_s=60), replicas=2, queued=0) for role in ("prefill", "decode")
    }
    traffic = Traffic(requests_per_s=requests_per_s, window_s=30, isl=3000, osl=250, queued=0)
    return Snapshot(at_s=at_s, traffic=traffic, pools=pools)


def answers(*asked: tuple[str, Any]) -> list[tuple[int, Any]]:
    """What the service answers to bodies that are posted one after the other (``None``: got)."""

    async def ask() -> list[tuple[int, Any]]:
        async with TestClient(TestServer(service(POLICY))) as client:
            found = []
            for path, body in asked:
                answer = await (client.get(path) if body is None else client.post(path, json=body))
                found.append((answer.status, await answer.json()))
            return found

    return asyncio.run(ask())


def test_decisions_are_those_of_the_policy() -> None:
    first, second = snapshot(0, 20), snapshot(30, 40)
    expected = POLICY.decide(first)
    body = {"snapshot": first.model_dump(mode="json")}
    ((status, given),) = answers(("/v1/decide", body))
    assert status == 200
    assert given == expected.model_dump(mode="json")
    later = {"snapshot": second.model_dump(mode="json"), "state": given["state"]}
    (_, decided), (_, explained) = answers(("/v1/decide", later), ("/v1/explain", later))
    wanted = POLICY.decide(second, expected.state)
    assert decided["targets"] == dict(wanted.targets)
    assert explained == {"explanation": wanted.explain()}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"snapshot": {"at_s": 0, "trafic": {}}}, "body.snapshot.trafic: unknown field, did you mean 'traffic'?"),
        ({}, "body.snapshot: Field required"),
        ([], "body: "),
    ],
)
def test_what_is_wrong_is_told_by_its_path(body: Any, problem: str) -> None:
    ((status, answer),) = answers(("/v1/decide", body))
    assert status == 422
    assert answer["problems"][0].startswith(problem)


def test_the_description_is_of_what_it_takes() -> None:
    (_, described), (_, policy), (health, _), (missing, _) = answers(
        ("/openapi.json", None), ("/v1/policy", None), ("/healthz", None), ("/v2", None)
    )
    schemas = described["components"]["schemas"]
    whole = {"$ref": "#/components/schemas/DecisionRequest", "components": {"schemas": schemas}}
    body = {"snapshot": snapshot(0, 20).model_dump(mode="json"), "state": None}
    jsonschema.Draft202012Validator(whole).validate(body)
    pools = {"workers": {"spec": {"role": "aggregated"}, "replicas": 2, "queued": 0}}
    traffic = {"requests_per_s": 20, "isl": 3000, "osl": {"mean": 250, "cv2": 1}, "queued": 0}
    validator = jsonschema.Draft202012Validator(whole)
    validator.validate({"snapshot": {"at_s": 0, "traffic": traffic, "pools": pools}})  # as the page of hosts writes it
    assert not validator.is_valid({"snapshot": {"at_s": 0, "pools": {"workers": 3}}})
    decision = {**whole, "$ref": "#/components/schemas/Decision"}
    assert jsonschema.Draft202012Validator(decision).is_valid({"at_s": 0, "targets": {"workers": 3}})
    assert not jsonschema.Draft202012Validator(decision).is_valid({"at_s": 0, "targets": {"workers": "three"}})
    assert not jsonschema.Draft202012Validator(whole).is_valid({"snapshot": {}})
    assert (policy["kind"], health, missing) == ("sla", 200, 404)
