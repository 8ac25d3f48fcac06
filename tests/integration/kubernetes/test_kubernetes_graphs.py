"""DynamoGraphDeployments in each of their shapes, on a real API server: read, scaled, and held when in doubt."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dynamo_planner import Replicas, ScaleTo
from dynamo_planner.executors import ExecutorError
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.faulty_proxy import Fault, Proxy
from tests.support.kubernetes.objects import (
    ADAPTER,
    GRAPH,
    SHAPES,
    Shape,
    executor_of,
    graph,
    pod_of,
    replicas_of,
    scaled,
    settle,
    timestamp,
)

POOLS = {"prefill": scaled("prefill", name="llama"), "decode": scaled("decode", name="llama")}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest, proxy: Proxy) -> Shape:
    """Each shape; for v1alpha1, on a server that has no other version."""
    chosen: Shape = request.param
    if chosen == "v1alpha1":
        proxy.rule = lambda method, path: Fault(404) if "/nvidia.com/v1beta1/" in path else None
    return chosen


def test_each_shape_is_read_and_scaled(kubernetes: Place, proxy: Proxy, shape: Shape) -> None:
    kubernetes.create(graph(shape=shape, Frontend=1, Prefill=1, Decode=2))
    settle(kubernetes, shape=shape, Frontend=1, Prefill=1, Decode=2)
    for number in range(2):
        kubernetes.create(pod_of("Decode", number))
    with executor_of(kubernetes, POOLS, url=proxy.url) as executor:
        assert executor.pools["decode"].gpus == 2
        seen = executor.observe()
        assert seen["decode"] == Replicas(ready=2, starting_since_s=())
        actions = [
            ScaleTo(pool="prefill", replicas=2, expected=1),
            ScaleTo(pool="decode", replicas=4, expected=2),
            ScaleTo(pool="decode", replicas=4, expected=4),
        ]
        outcomes = executor.apply(actions)
        assert [outcome.status for outcome in outcomes] == ["applied", "applied", "unchanged"], outcomes
        assert outcomes[1].message == "decode: 2 -> 4 replicas"
        assert replicas_of(kubernetes, "Prefill", shape=shape) == 2
        assert replicas_of(kubernetes, "Decode", shape=shape) == 4
        assert replicas_of(kubernetes, "Frontend", shape=shape) == 1

        assert executor.observe()["decode"] is None
        assert "generation" in executor.unknown["decode"]
        settle(kubernetes, shape=shape, Frontend=1, Prefill=1, Decode=2)
        decode = executor.observe()["decode"]
        assert decode is not None
        assert (decode.ready, decode.starting, decode.target) == (2, 2, 4)
        assert decode.starting_since_s is not None
        assert all(abs(since - time.time()) < 30 for since in decode.starting_since_s)


def test_a_field_manager_says_who_wrote(kubernetes: Place) -> None:
    kubernetes.create(graph(Decode=1))
    settle(kubernetes, Decode=1)
    with executor_of(kubernetes, {"decode": scaled(name="llama")}) as executor:
        executor.apply([ScaleTo(pool="decode", replicas=2)])
    written = kubernetes.get("nvidia.com/v1beta1", GRAPH, "llama")["metadata"]["managedFields"]
    assert "dynamo-planner" in {entry["manager"] for entry in written}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_aggregated_graph_has_a_worker_of_no_special_kind(kubernetes: Place, shape: Shape) -> None:
    kubernetes.create(graph(shape=shape, Frontend=1, Worker=3))
    settle(kubernetes, shape=shape, Worker=3)
    with executor_of(kubernetes, {"workers": scaled("aggregated", name="llama")}) as executor:
        workers = executor.observe()["workers"]
        assert workers is not None
        assert workers.target == 3


def test_a_component_can_be_named(kubernetes: Place) -> None:
    kubernetes.create(graph(Frontend=1, Prefill=1, Worker=2, Decode=1))
    settle(kubernetes, Worker=2)
    with executor_of(kubernetes, {"decode": scaled(name="llama", component="Worker")}) as executor:
        decode = executor.observe()["decode"]
        assert decode is not None
        assert decode.target == 2


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (scaled("prefill", name="llama"), "no component of the role prefill, give target.component: it has"),
        (scaled(name="llama", component="Vllm"), "no component 'Vllm'; it has Frontend (frontend), Decode (decode)"),
        (scaled(name="gemma"), "there is no dynamographdeployments 'gemma'"),
    ],
)
def test_a_target_that_is_not_there_is_told_at_the_start(kubernetes: Place, pool: Any, said: str) -> None:
    kubernetes.create(graph(Frontend=1, Decode=1))
    with pytest.raises(ExecutorError) as refused:
        executor_of(kubernetes, {"pool": pool}).start()
    assert said in str(refused.value)
    assert str(refused.value).startswith("pools.pool.target: DynamoGraphDeployment ")


@pytest.mark.parametrize(("shape", "meant"), [("components", 0), ("early v1beta1", 1), ("v1alpha1", 1)])
def test_replicas_left_out_mean_what_the_version_means(kubernetes: Place, shape: Shape, meant: int) -> None:
    kubernetes.create(graph(shape=shape, Decode=None))
    settle(kubernetes, shape=shape, Decode=meant)
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
    decode = executor.observe()["decode"]
    assert decode is not None
    assert decode.target == meant
    outcome = executor.apply([ScaleTo(pool="decode", replicas=3, expected=meant)])[0]
    assert outcome.status == "applied", outcome
    assert replicas_of(kubernetes, "Decode", shape=shape) == 3


def test_replicas_left_out_are_unknown_where_the_status_contradicts(kubernetes: Place) -> None:
    kubernetes.create(graph(Decode=None))
    settle(kubernetes, Decode=2)
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
    assert executor.observe() == {"decode": None}
    assert executor.unknown["decode"].endswith("left out, which means 0, and there are 2: set it")


def test_gpus_are_those_of_the_status_then_of_the_resources_and_never_guessed(kubernetes: Place) -> None:
    kubernetes.create(graph(gpus=4, Decode=1))
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")}).start()
    assert executor.pools["decode"].gpus == 4
    settle(kubernetes, Decode=1, more={"components": {"Decode": {"gpusPerReplica": 8, "readyReplicas": 1}}})
    executor.observe()
    assert executor.pools["decode"].gpus == 8
    kubernetes.create(graph("cpu", gpus=0, Decode=1))
    with pytest.raises(
        ExecutorError, match=r"pools\.decode\.spec\.gpus: .* set spec.gpus of the pool, to 0 if it has none"
    ):
        executor_of(kubernetes, {"decode": scaled(name="cpu")}).start()
    assert executor_of(kubernetes, {"decode": scaled(spec={"gpus": 0}, name="cpu")}).start().pools["decode"].gpus == 0


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"observedGeneration": 0}, "its status is of generation 0, and its spec of generation 1"),
        ({"rollingUpdate": {"phase": "InProgress"}}, "a rollout is in progress (InProgress)"),
        (
            {"conditions": [{"type": "Ready", "status": "False", "reason": "updating", "message": "new image"}]},
            "a rollout is in progress (new image)",
        ),
        (
            {"components": {"Decode": {"replicas": 2, "updatedReplicas": 1, "readyReplicas": 2}}},
            "a rollout is in progress (1 of 2 replicas are updated)",
        ),
    ],
)
def test_what_cannot_be_trusted_is_unknown(kubernetes: Place, more: dict[str, Any], why: str) -> None:
    kubernetes.create(graph(Decode=2))
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
    assert executor.observe() == {"decode": None}
    assert executor.unknown["decode"].endswith("it has no status yet")
    settle(kubernetes, Decode=2, more=more)
    assert executor.observe() == {"decode": None}
    assert executor.unknown["decode"].endswith(why)
    settle(kubernetes, Decode=2, more={name: None for name in more if name not in {"components", "observedGeneration"}})
    assert executor.observe() == {"decode": Replicas(ready=2, starting_since_s=())}


def test_without_counts_in_the_status_the_pods_are_counted(kubernetes: Place) -> None:
    kubernetes.create(graph(shape="v1alpha1", Decode=3))
    kubernetes.set_status("nvidia.com/v1alpha1", GRAPH, "llama", {"state": "successful"})
    kubernetes.create(pod_of("Decode", 0))
    kubernetes.create(pod_of("Decode", 1, ready=False))
    kubernetes.create(pod_of("Frontend", 0))
    decode = executor_of(kubernetes, {"decode": scaled(name="llama")}).observe()["decode"]
    assert decode is not None
    assert (decode.ready, decode.starting, decode.failed) == (1, 2, 0)


class TestAdapter:
    """A component that has a scaling adapter is scaled through it, and its target is the adapter's."""

    @staticmethod
    def adapter(replicas: int, of: str = "llama") -> dict[str, Any]:
        """The adapter of the component Decode, which ``of`` is the graph of."""
        spec = {"replicas": replicas, "dgdRef": {"name": of, "componentName": "Decode"}}
        return {
            "apiVersion": "nvidia.com/v1beta1",
            "kind": ADAPTER,
            "metadata": {"name": "llama-decode"},
            "spec": spec,
        }

    def test_it_is_scaled_instead_of_the_graph(self, kubernetes: Place) -> None:
        kubernetes.create(graph(Decode=2))
        settle(kubernetes, Decode=2)
        kubernetes.create(self.adapter(3))
        executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
        decode = executor.observe()["decode"]
        assert decode is not None
        assert (decode.target, decode.ready, decode.starting) == (3, 2, 1)
        outcome = executor.apply([ScaleTo(pool="decode", replicas=5, expected=3)])[0]
        assert outcome.status == "applied", outcome
        assert kubernetes.get("nvidia.com/v1beta1", ADAPTER, "llama-decode")["spec"]["replicas"] == 5
        assert replicas_of(kubernetes, "Decode") == 2

    def test_one_of_another_graph_is_left_alone(self, kubernetes: Place) -> None:
        kubernetes.create(graph(Decode=2))
        settle(kubernetes, Decode=2)
        kubernetes.create(self.adapter(3, of="llama-dec"))
        executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
        assert executor.apply([ScaleTo(pool="decode", replicas=4, expected=2)])[0].status == "applied"
        assert kubernetes.get("nvidia.com/v1beta1", ADAPTER, "llama-decode")["spec"]["replicas"] == 3
        assert replicas_of(kubernetes, "Decode") == 4


class TestPods:
    """Pods say since when replicas start, which cannot, and which are leaving."""

    def test_starting_failed_and_draining_ones_are_told_apart(self, kubernetes: Place) -> None:
        kubernetes.create(graph(Decode=7))
        settle(kubernetes, Decode=7, more={"components": {"Decode": {"replicas": 7, "readyReplicas": 1}}})
        long_ago = timestamp(time.time() - 3600)
        unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU free"}
        kubernetes.create(pod_of("Decode", 0))
        kubernetes.create(pod_of("Decode", 1, ready=False))
        kubernetes.create(
            pod_of("Decode", 2, ready=False, conditions=[{**unscheduled, "lastTransitionTime": long_ago}])
        )
        kubernetes.create(
            pod_of("Decode", 3, ready=False, conditions=[{**unscheduled, "lastTransitionTime": timestamp()}])
        )
        for number, waiting in ((4, "CrashLoopBackOff"), (5, "ImagePullBackOff")):
            state = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 4}
            kubernetes.create(
                pod_of(
                    *("Decode", number),
                    ready=False,
                    conditions=[{"type": "Ready", "status": "False", "lastTransitionTime": long_ago}],
                    containerStatuses=[{**state, "state": {"waiting": {"reason": waiting}}}],
                )
            )
        leaving = pod_of("Decode", 6)
        leaving["spec"]["nodeName"] = "node"  # so that its end waits for a kubelet, which never comes
        kubernetes.create(leaving)
        kubernetes.server.request("DELETE", kubernetes.path("v1", "Pod", "llama-decode-6"))
        executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
        decode = executor.observe()["decode"]
        assert decode is not None
        assert (decode.ready, decode.starting, decode.failed, decode.draining, decode.target) == (1, 3, 3, 1, 7)

    def test_a_group_of_pods_is_one_replica(self, kubernetes: Place) -> None:
        kubernetes.create(graph(Decode=2))
        settle(kubernetes, more={"components": {"Decode": {"replicas": 2, "readyReplicas": 1}}})
        for replica in range(2):
            for node in range(2):
                member = pod_of("Decode", 2 * replica + node, ready=replica == 0)
                member["metadata"]["labels"]["grove.io/podcliquescalinggroup-replica-index"] = str(replica)
                kubernetes.create(member)
        decode = executor_of(kubernetes, {"decode": scaled(name="llama")}).observe()["decode"]
        assert decode is not None
        assert (decode.ready, decode.starting, decode.failed, decode.draining) == (1, 1, 0, 0)

    def test_they_are_where_workers_are_scraped(self, kubernetes: Place) -> None:
        kubernetes.create(graph(Decode=2))
        settle(kubernetes, Decode=2)
        kubernetes.create(pod_of("Decode", 0, podIP="127.0.0.5"))
        annotated = pod_of("Decode", 1, podIP="127.0.0.6")
        annotated["metadata"]["annotations"] = {"prometheus.io/port": "9090"}
        kubernetes.create(annotated)
        kubernetes.create(pod_of("Decode", 2, podIP="127.0.0.7", ready=False))
        kubernetes.create(pod_of("Decode", 3, podIP="fd00::8"))
        executor = executor_of(kubernetes, {"decode": scaled(name="llama", metrics_port=8080)})
        executor.observe()
        urls = {"llama-decode-0": "http://127.0.0.5:8080", "llama-decode-1": "http://127.0.0.6:9090"}
        urls["llama-decode-3"] = "http://[fd00::8]:8080"
        assert executor.endpoints() == {"decode": urls}
