"""Knobs in manifests on a real API server: read, changed so that pods are replaced, refused, and taken back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from dynamo_planner import KnobPolicy, Observation, Planner, PoolMetrics, Replicas, SetKnob, Sla, Traffic
from dynamo_planner.engines import Knob, catalogue
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes.container_args import UnsupportedManifestError, locate_knob
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.faulty_proxy import Fault, Proxy
from tests.support.kubernetes.objects import (
    GRAPH,
    SHAPES,
    Shape,
    executor_of,
    graph,
    pod_of,
    scaled,
    settle,
    version_of,
)

SEQS = catalogue("vllm")["max_num_seqs"]
ARGUMENTS = ["-m", "dynamo.vllm", "--max-num-seqs=16", "--max-num-batched-tokens", "2048", "--model", "m"]
SCRIPT = (
    "ulimit -n 65536 && exec python3 -m dynamo.vllm --model m \\\n  --max-num-seqs 16 --max-num-batched-tokens=2048"
)


def with_container(manifest: dict[str, Any], container: Mapping[str, Any], component: str = "Decode") -> dict[str, Any]:
    """A graph whose component has this container."""
    spec = manifest["spec"]
    if "components" in spec:
        part = next(each for each in spec["components"] if each["name"] == component)
        main = {**part["podTemplate"]["spec"]["containers"][0], **container}
        part["podTemplate"] = {"spec": {"containers": [{"name": "sidecar"}, main]}}
    else:
        spec["services"][component]["extraPodSpec"] = {"mainContainer": dict(container)}
    return manifest


def container_of(place: Place, shape: Shape = "components", component: str = "Decode") -> dict[str, Any]:
    """The container as the server has it."""
    spec = place.get(version_of(shape), GRAPH, "llama")["spec"]
    if shape == "components":
        part = next(each for each in spec["components"] if each["name"] == component)
        return dict(part["podTemplate"]["spec"]["containers"][1])
    return dict(spec["services"][component]["extraPodSpec"]["mainContainer"])


def notes(place: Place, shape: Shape = "components") -> dict[str, Any]:
    """What is noted in the graph."""
    found = place.get(version_of(shape), GRAPH, "llama")["metadata"].get("annotations") or {}
    return {key: json.loads(value) for key, value in found.items() if key.startswith("dynamo-planner/")}


def pool(**given: Any) -> Any:
    knobs = ("max_num_seqs", "max_num_batched_tokens")
    return scaled("decode", name="llama", **{"engine": "vllm", "knobs": knobs, **given})


def turn(executor: Any, value: float, knob: str = "max_num_seqs", expected: int | None = None) -> tuple[str, str]:
    (outcome,) = executor.apply([SetKnob(pool="decode", knob=knob, value=value, expected=expected)])
    return outcome.status, outcome.message


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shell", [False, True])
def test_arguments_change_in_each_shape_and_the_change_is_seen_through(
    kubernetes: Place, proxy: Proxy, shape: Shape, shell: bool
) -> None:
    if shape == "v1alpha1":
        proxy.rule = lambda method, path: Fault(404) if "/nvidia.com/v1beta1/" in path else None
    container = {"command": ["/bin/sh", "-c"], "args": [SCRIPT]} if shell else {"args": ARGUMENTS}
    kubernetes.create(with_container(graph(shape=shape, Frontend=1, Decode=2), container))
    settle(kubernetes, shape=shape, Frontend=1, Decode=2)
    with executor_of(kubernetes, {"decode": pool()}, url=proxy.url) as executor:
        assert executor.observe()["decode"] == Replicas(ready=2, starting_since_s=())
        assert executor.knobs["decode"] == {"max_num_seqs": 16, "max_num_batched_tokens": 2048}
        assert turn(executor, 64, expected=16) == ("applied", "decode: max_num_seqs 16 -> 64, which replaces its pods")
        changed = container_of(kubernetes, shape)
        assert changed["args"] == (
            [SCRIPT.replace("seqs 16", "seqs 64")] if shell else [*ARGUMENTS[:2], "--max-num-seqs=64", *ARGUMENTS[3:]]
        )
        (note,) = notes(kubernetes, shape).values()
        assert (note["knob"], note["before"], note["value"]) == ("max_num_seqs", 16, 64)
        assert executor.observe() == {"decode": None}, "the operator has not seen it yet"
        assert turn(executor, 64)[0] == "unchanged"
        assert turn(executor, 32) == ("refused", "its pods are still being replaced, to set max_num_seqs to 64")
        settle(kubernetes, shape=shape, Frontend=1, Decode=2)
        assert executor.observe()["decode"] == Replicas(ready=2, starting_since_s=())
        assert executor.knobs["decode"]["max_num_seqs"] == 64
        assert notes(kubernetes, shape) == {}
        assert turn(executor, 4096, "max_num_batched_tokens")[0] == "applied"
        assert executor.observe() == {"decode": None}
        assert turn(executor, 2048, "max_num_batched_tokens")[0] == "applied", "a change may be taken back at once"


def test_a_deployment_and_its_environment(kubernetes: Place) -> None:
    slots = Knob(name="slots", own_name="SLOTS", variable="SLOTS", roles=("decode",), minimum=1, maximum=64, trades="-")
    labels = {"app": "engine"}
    containers = [{"name": "engine", "image": "engine", "env": [{"name": "SLOTS", "value": "4"}]}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    kubernetes.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "engine"},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        }
    )
    target = scaled(
        kind="Deployment", name="engine", spec={"gpus": 0}, knobs=("slots",), more_knobs=(slots,), container="engine"
    )
    with executor_of(kubernetes, {"decode": target}) as executor:
        executor.observe()
        assert executor.knobs["decode"] == {"slots": 4}
        assert turn(executor, 8, "slots")[0] == "applied"
        found = kubernetes.get("apps/v1", "Deployment", "engine")["spec"]["template"]["spec"]["containers"][0]
        assert found["env"] == [{"name": "SLOTS", "value": "8"}]


def test_what_cannot_be_is_refused_and_nothing_is_written(kubernetes: Place) -> None:
    kubernetes.create(with_container(graph(Frontend=1, Decode=1), {"args": ARGUMENTS}))
    settle(kubernetes, Frontend=1, Decode=1)
    with executor_of(kubernetes, {"decode": pool()}) as executor:
        executor.observe()
        before = kubernetes.get("nvidia.com/v1beta1", GRAPH, "llama")
        assert "max_num_seqs is 0; it must be from 1 to 4096: take 1" in turn(executor, 0)[1]
        assert "max_num_batched_tokens is 2048, below max_num_seqs, which is 4000" in turn(executor, 4000)[1]
        assert turn(executor, 8, expected=4) == (
            "refused",
            "max_num_seqs is 16, not 4, which this was decided for",
        )
        assert "has no knob 'depth' in its configuration (knobs)" in turn(executor, 8, "depth")[1]
        assert kubernetes.get("nvidia.com/v1beta1", GRAPH, "llama") == before


def test_a_manifest_that_is_not_understood_is_told_at_the_start(kubernetes: Place) -> None:
    kubernetes.create(with_container(graph(Frontend=1, Decode=1), {"args": ["--max-num-seqs", "$SEQS"]}))
    settle(kubernetes, Frontend=1, Decode=1)
    message = r"max_num_seqs: its value '\$SEQS' is no plain number: write one"
    with (
        pytest.raises(ExecutorError, match=message),
        executor_of(kubernetes, {"decode": pool(knobs=("max_num_seqs",))}),
    ):
        pass


def test_pods_that_cannot_start_have_the_change_taken_back(kubernetes: Place) -> None:
    kubernetes.create(with_container(graph(Frontend=1, Decode=1), {"args": ARGUMENTS}))
    settle(kubernetes, Frontend=1, Decode=1)
    with executor_of(kubernetes, {"decode": pool()}) as executor:
        executor.observe()
        assert turn(executor, 64)[0] == "applied"
        crash = {"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "out of memory"}}}
        kubernetes.create(pod_of("Decode", 1, ready=False, containerStatuses=[{"name": "main", **crash}]))
        assert executor.observe() == {"decode": None}
        assert container_of(kubernetes)["args"] == ARGUMENTS
        (note,) = notes(kubernetes).values()
        assert (note["value"], note["back"]) == (16, True)
        kubernetes.delete("v1", "Pod", "llama-decode-1")
        settle(kubernetes, Frontend=1, Decode=1)
        executor.observe()
        assert notes(kubernetes) == {}
        status, message = turn(executor, 64)
        assert status == "refused"
        assert "pods with max_num_seqs 64 could not start (pod llama-decode-1: CrashLoopBackOff" in message


@pytest.mark.parametrize("late", [False, True])
def test_what_a_planner_began_the_next_one_sees_through(kubernetes: Place, late: bool) -> None:
    kubernetes.create(with_container(graph(Frontend=1, Decode=1), {"args": ARGUMENTS}))
    settle(kubernetes, Frontend=1, Decode=1)
    now = [1000.0]
    with executor_of(kubernetes, {"decode": pool()}, clock=lambda: now[0]) as first:
        first.observe()
        assert turn(first, 64)[0] == "applied"
    now[0] += 2000 if late else 10
    with executor_of(kubernetes, {"decode": pool()}, clock=lambda: now[0]) as second:
        if not late:
            settle(kubernetes, Frontend=1, Decode=1)
        second.observe()
        assert container_of(kubernetes)["args"][2] == ("--max-num-seqs=16" if late else "--max-num-seqs=64")
        assert [note["back"] for note in notes(kubernetes).values()] == ([True] if late else [])


def test_a_change_by_somebody_else_in_between_is_not_lost(kubernetes: Place, proxy: Proxy) -> None:
    """Somebody writes the graph after the planner has read it: the write is tried again, with theirs in it."""
    kubernetes.create(with_container(graph(Frontend=1, Decode=1), {"args": ARGUMENTS}))
    settle(kubernetes, Frontend=1, Decode=1)
    others = iter([{"metadata": {"labels": {"by": "somebody"}}}])

    def rule(method: str, path: str) -> None:
        if method == "PATCH" and (change := next(others, None)):
            kubernetes.patch("nvidia.com/v1beta1", GRAPH, "llama", change)

    with executor_of(kubernetes, {"decode": pool()}, url=proxy.url) as executor:
        executor.observe()
        proxy.rule = rule
        assert turn(executor, 64)[0] == "applied"
    found = kubernetes.get("nvidia.com/v1beta1", GRAPH, "llama")
    assert found["metadata"]["labels"] == {"by": "somebody"}
    assert container_of(kubernetes)["args"][2] == "--max-num-seqs=64"


class Queueing:
    """Full batches of 16 on each replica, and as many requests waiting, until there are 64 places."""

    def __init__(self, knobs: Any) -> None:
        self.knobs = knobs

    def observe(self, at_s: float) -> Observation:
        waits = 32 if self.knobs().get("max_num_seqs") == 16 else 0
        pools = {"decode": PoolMetrics(observed_at_s=at_s, running=64 - waits, queued=waits)}
        traffic = Traffic(requests_per_s=20, window_s=30, isl=500, osl=200, ttft_ms=200 + 30 * waits, itl_ms=9)
        return Observation(traffic=traffic, pools=pools)


def test_a_policy_turns_the_knob_of_a_graph(kubernetes: Place) -> None:
    kubernetes.create(with_container(graph(Frontend=1, Decode=2), {"args": ARGUMENTS}))
    settle(kubernetes, Frontend=1, Decode=2)
    now = [1000.0]
    policy = KnobPolicy(sla=Sla(ttft_ms=1000, itl_ms=25))
    with executor_of(kubernetes, {"decode": pool()}, clock=lambda: now[0]) as executor:
        source = Queueing(lambda: executor.knobs["decode"])
        planner = Planner(policy, source, executor, interval_s=30, clock=lambda: now[0])
        codes: list[str] = []
        for _ in range(20):
            codes += [reason.code for reason in planner.step().decision.reasons]
            settle(kubernetes, Frontend=1, Decode=2)
            now[0] += 30
    assert container_of(kubernetes)["args"][2] == "--max-num-seqs=32"
    assert "KnobKept" in codes


@pytest.mark.parametrize(
    ("container", "found"),
    [
        ({"args": ["--max-num-seqs", "8"]}, 8),
        ({"args": ["--max_num_seqs=8"]}, 8),
        ({"command": ["vllm", "serve", "--max-num-seqs", "8"]}, 8),
        ({"command": ["bash", "-lc"], "args": ["vllm serve --max-num-seqs 8"]}, 8),
        ({"command": ["bash", "-c", "vllm serve --max-num-seqs=8; sleep 1"]}, "'8;' is no plain number"),
        ({}, "--max-num-seqs is not there: add it, with the value that it has now"),
        ({"args": ["--max-num-seqs", "8", "--max-num-seqs=9"]}, "--max-num-seqs is there 2 times: leave one"),
        ({"args": ["--max-num-seqs"]}, "--max-num-seqs has no value: give it one"),
        ({"args": ["--max-num-seqs", "$(SEQS)"]}, r"'\$\(SEQS\)' is no plain number"),
        ({"args": ["--max-num-seqs-extra", "8"]}, "--max-num-seqs is not there"),
        ({"args": "--max-num-seqs 8"}, "args is no list of texts: make it one"),
        ({"args": ["run", "--max-num-seqs 8"]}, "is inside a longer text: make it a word of its own"),
        ({"command": ["sh", "-c", 'vllm serve --max-num-seqs "8"']}, "'\"8\"' is no plain number"),
        ({"command": ["sh", "-c", "vllm serve --max-num-seqs"]}, "--max-num-seqs has no value"),
    ],
)
def test_only_what_is_certain_is_understood(container: dict[str, Any], found: int | str) -> None:
    if isinstance(found, int):
        assert locate_knob(container, "", SEQS).value == found
        return
    with pytest.raises(UnsupportedManifestError, match=found):
        locate_knob(container, "", SEQS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"engine": None}, "there is no knob 'max_num_seqs'; there are none: name the engine"),
        ({"kind": "LeaderWorkerSet"}, "they can be set in Deployment, StatefulSet and graphs, not in LeaderWorkerSet"),
    ],
)
def test_a_configuration_that_cannot_be_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        pool(**given)
