"""The router's knobs in a real etcd: read, compared and swapped in Dynamo's own formats."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dynamo_planner import (
    KnobPolicy,
    Observation,
    Outcome,
    Planner,
    PoolMetrics,
    PoolSpec,
    Profile,
    SetKnob,
    Sla,
    Traffic,
)
from dynamo_planner.executors.dry_run import DryRunExecutor
from dynamo_planner.executors.etcd import Etcd, EtcdError, RouterKnobs, WithRouter
from dynamo_planner.executors.etcd.config import RouterConfig
from tests.support.kubernetes.control_plane import binaries, free_port

LENGTH, QUEUE = "max_local_prefill_length", "max_prefill_queue_size"
MODEL_KEY = "public/components/disagg_router/models/chat/tiny"


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """A member of its own, on loopback, that is ended."""
    port, peer = free_port(), free_port()
    url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    data = tmp_path_factory.mktemp("etcd")
    process = subprocess.Popen(
        [
            *(str(binaries() / "etcd"), f"--data-dir={data}", "--unsafe-no-fsync"),
            *(f"--listen-client-urls={url}", f"--advertise-client-urls={url}", f"--listen-peer-urls={peer_url}"),
            *(f"--initial-advertise-peer-urls={peer_url}", f"--initial-cluster=default={peer_url}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = Etcd(url)
    try:
        until_s = time.monotonic() + 20
        while True:
            try:
                client.get("ready")
                break
            except EtcdError:
                assert time.monotonic() < until_s, "etcd does not start"
                time.sleep(0.05)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(timeout=20)


def put(etcd: Etcd, key: str, value: str) -> None:
    """As the router does it when it starts."""
    encoded = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()}
    assert etcd._post("/v3/kv/put", encoded)[0] == 200


def delete(etcd: Etcd, key: str) -> None:
    assert etcd._post("/v3/kv/deleterange", {"key": base64.b64encode(key.encode()).decode()})[0] == 200


def value_of(etcd: Etcd, key: str) -> str:
    entry = etcd.get(key)
    assert entry is not None
    return entry.value.decode()


def turn(router: RouterKnobs | WithRouter, value: Any, knob: str = LENGTH, expected: Any = None) -> Outcome:
    action = SetKnob(knob=knob, value=value, expected=expected)
    return router.set_knob(action) if isinstance(router, RouterKnobs) else router.apply([action])[0]


def test_the_python_router_has_a_decimal_number_in_a_key_for_each_knob(etcd: Etcd) -> None:
    put(etcd, f"/one/disagg_router/{LENGTH}", "1000")
    put(etcd, f"/one/disagg_router/{QUEUE}", "2")
    router = RouterKnobs(etcd, namespace="one")
    assert router.read() == {LENGTH: 1000, QUEUE: 2}
    outcome = turn(router, 512, expected=1000)
    assert (outcome.status, outcome.message) == ("applied", "max_local_prefill_length 1000 -> 512")
    assert turn(router, 4, QUEUE).status == "applied"
    assert value_of(etcd, f"/one/disagg_router/{LENGTH}") == "512"
    assert value_of(etcd, f"/one/disagg_router/{QUEUE}") == "4"
    assert turn(router, 512).status == "unchanged"


def test_the_rust_router_has_json_whose_other_fields_stay(etcd: Etcd) -> None:
    put(etcd, MODEL_KEY, '{"version":2,"max_local_prefill_length":1000,"added":{"later":[1]}}')
    router = RouterKnobs(etcd, model="tiny")
    assert router.read() == {LENGTH: 1000}
    assert turn(router, 256).status == "applied"
    assert value_of(etcd, MODEL_KEY) == '{"version":2,"max_local_prefill_length":256,"added":{"later":[1]}}'
    assert "the router has no knob 'max_prefill_queue_size'" in turn(router, 3, QUEUE).message


def test_what_somebody_else_writes_in_between_is_not_lost(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    key = f"/two/disagg_router/{LENGTH}"
    put(etcd, key, "1000")
    router = RouterKnobs(etcd, namespace="two")
    get = etcd.get

    def get_then_somebody_writes(name: str) -> Any:
        entry = get(name)
        put(etcd, name, "700")
        return entry

    with monkeypatch.context() as patched:
        patched.setattr(etcd, "get", get_then_somebody_writes)
        outcome = turn(router, 512)
    assert outcome.status == "refused"
    assert f"{key} was written by another client meanwhile" in outcome.message
    assert value_of(etcd, key) == "700"
    assert turn(router, 512, expected=1000).message == f"{LENGTH} is 700, not 1000, which this was decided for"


@pytest.mark.parametrize(
    ("stored", "value", "status", "message"),
    [
        (None, 512, "refused", "there is no key /three/disagg_router/max_local_prefill_length: the router writes it"),
        ("many", 512, "failed", "is b'many', which has no max_local_prefill_length: correct or delete it"),
        ("1000", -1, "refused", "max_local_prefill_length is -1; it must be from 0 to 131072: take 0"),
        ("1000", 1.5, "refused", "it goes in steps of 1: take 2"),
    ],
)
def test_what_cannot_be_changes_nothing(
    etcd: Etcd, stored: str | None, value: float, status: str, message: str
) -> None:
    key = f"/three/disagg_router/{LENGTH}"
    delete(etcd, key)  # the cases come in any order
    if stored is not None:
        put(etcd, key, stored)
    outcome = turn(RouterKnobs(etcd, namespace="three"), value)
    assert outcome.status == status
    assert message in outcome.message
    entry = etcd.get(key)
    assert (entry and entry.value.decode()) == stored


def test_without_etcd_the_service_has_no_knobs_and_the_executor_goes_on() -> None:
    etcd = Etcd(f"http://127.0.0.1:{free_port()}", timeout_s=0.5)
    pools = {"prefill": PoolSpec(role="prefill"), "decode": PoolSpec(role="decode")}
    executor = WithRouter(DryRunExecutor(pools, {"prefill": 1, "decode": 2}), RouterKnobs(etcd, namespace="x"))
    assert {name: seen and seen.ready for name, seen in executor.observe().items()} == {"prefill": 1, "decode": 2}
    assert executor.knobs[None] == {}
    outcome = turn(executor, 512)
    assert outcome.status == "failed"
    assert "does not answer" in outcome.message


def test_a_user_and_a_password(etcd: Etcd) -> None:
    def do(path: str, **body: Any) -> None:
        status, answer = etcd._post(f"/v3/auth/{path}", body)
        assert status == 200, answer

    put(etcd, f"/four/disagg_router/{LENGTH}", "1000")
    do("user/add", name="root", password="secret")
    do("user/grant", user="root", role="root")
    do("enable")
    try:
        with pytest.raises(EtcdError, match="refused /v3/kv/range"):
            RouterKnobs(Etcd(etcd.url), namespace="four").read()
        with pytest.raises(EtcdError, match="did not take the user and password") as caught:
            RouterKnobs(Etcd(etcd.url, user="root", password="wrong-one"), namespace="four").read()
        assert "wrong-one" not in str(caught.value)
        router = RouterKnobs(Etcd(etcd.url, user="root", password="secret"), namespace="four")
        assert router.read() == {LENGTH: 1000}
        assert turn(router, 512).status == "applied"
    finally:
        token = etcd._post("/v3/auth/authenticate", {"name": "root", "password": "secret"})[1]["token"]
        etcd._token = token
        do("disable")
        etcd._token = None


class Waiting:
    """Prompts wait long for a prefill worker, and decode workers have room."""

    def observe(self, at_s: float) -> Observation:
        pools = {
            "prefill": PoolMetrics(observed_at_s=at_s, running=2, queued=9),
            "decode": PoolMetrics(observed_at_s=at_s, running=16, queued=0),
        }
        traffic = Traffic(requests_per_s=8, window_s=30, isl=600, osl=200, ttft_ms=900, itl_ms=8)
        return Observation(traffic=traffic, pools=pools)


def test_a_policy_turns_it(etcd: Etcd) -> None:
    put(etcd, f"/five/disagg_router/{LENGTH}", "64")
    pools = {"prefill": PoolSpec(role="prefill"), "decode": PoolSpec(role="decode")}
    executor = WithRouter(DryRunExecutor(pools, {"prefill": 1, "decode": 2}), RouterKnobs(etcd, namespace="five"))
    now = [1000.0]
    profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
    policy = KnobPolicy(sla=Sla(ttft_ms=1000, itl_ms=25), profile=profile)
    planner = Planner(policy, Waiting(), executor, interval_s=30, clock=lambda: now[0])
    for _ in range(4):
        step = planner.step()
        now[0] += 30
    assert [outcome.status for outcome in step.outcomes] == ["applied"]
    assert "a local prefill takes less than queueing and transfer" in step.decision.explain()
    assert int(value_of(etcd, f"/five/disagg_router/{LENGTH}")) > 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give one of the two"),
        ({"namespace": "a", "model": "b"}, "give one of the two"),
        ({"namespace": "a", "user": "me"}, "user and password_file go together"),
        ({"namespace": "a", "cert_file": "c"}, "cert_file and key_file go together"),
        ({"namespace": "a", "url": "http://me:secret@host"}, "url"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RouterConfig.model_validate({"url": "http://127.0.0.1:2379", **fields})


def test_the_command_reads_it_from_its_configuration(etcd: Etcd, tmp_path: Path) -> None:
    from dynamo_planner.config.assemble import running_service
    from dynamo_planner.config.run import load_config

    put(etcd, f"/six/disagg_router/{LENGTH}", "1000")
    config = {
        "policy": {"kind": "knobs", "sla": {"ttft_ms": 500, "itl_ms": 25}},
        "executor": {"kind": "dry_run", "pools": {"decode": {"role": "decode"}, "prefill": {"role": "prefill"}}},
        "router": {"url": etcd.url, "namespace": "six"},
    }
    (tmp_path / "planner.json").write_text(json.dumps(config))
    with running_service(load_config(tmp_path / "planner.json")) as service:
        step = service.planner.step()
    assert step.snapshot.knobs == {LENGTH: 1000}
