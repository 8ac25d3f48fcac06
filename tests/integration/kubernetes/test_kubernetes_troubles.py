"""What hangs is reported under a code of its own, with the cluster's own words, and holds nothing for ever."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dynamo_planner import Planner, Replicas, ScaleTo
from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.executors.kubernetes import KubernetesExecutor
from dynamo_planner.runtime.metrics import PlannerMetrics
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.objects import GRAPH, executor_of, graph, pod_of, scaled, settle, timestamp

CPU = {"gpus": 0}


def deployment(**spec: Any) -> dict[str, Any]:
    """A Deployment of two replicas."""
    template = {"metadata": {"labels": {"app": "vllm"}}, "spec": {"containers": [{"name": "main", "image": "good"}]}}
    chosen = {"replicas": 2, "selector": {"matchLabels": {"app": "vllm"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "vllm"}, "spec": chosen}


def codes(executor: KubernetesExecutor) -> list[str]:
    """The codes of what lasts."""
    return [reason.code for reason in executor.troubles]


class Busy:
    """A source of some traffic."""

    def observe(self, at_s: float) -> Observation:
        return Observation(traffic=Traffic(requests_per_s=5.0))


def test_a_rollout_to_a_broken_image_does_not_hold_its_pool(kubernetes: Place) -> None:
    """Of the real controller: two old pods are ready, a new one cannot pull its image, and the deadline passes."""
    kubernetes.server.start_controllers()
    kubernetes.create(deployment(progressDeadlineSeconds=1))

    def set_all(old: dict[str, Any], new: dict[str, Any]) -> None:
        for pod in kubernetes.list("v1", "Pod"):
            image = pod["spec"]["containers"][0]["image"]
            kubernetes.set_status("v1", "Pod", pod["metadata"]["name"], old if image == "good" else new)

    ready = {"type": "Ready", "status": "True", "lastTransitionTime": timestamp()}
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "broken"'}
    container = {"name": "main", "image": "broken", "imageID": "", "ready": False, "restartCount": 0}
    broken = {"phase": "Pending", "conditions": [{**ready, "status": "False"}]}
    broken["containerStatuses"] = [{**container, "state": {"waiting": waiting}}]
    kubernetes.until(lambda: len(kubernetes.list("v1", "Pod")) == 2, within_s=30)
    set_all({"phase": "Running", "conditions": [ready]}, broken)
    executor = executor_of(kubernetes, {"w": scaled("aggregated", CPU, kind="Deployment", name="vllm")}).start()
    kubernetes.until(lambda: executor.observe() == {"w": Replicas(ready=2, starting_since_s=())})
    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "broken"}]}}}}
    kubernetes.patch("apps/v1", "Deployment", "vllm", image)
    kubernetes.until(lambda: executor.observe() == {"w": None})
    kubernetes.until(lambda: len(kubernetes.list("v1", "Pod")) == 3)
    set_all({"phase": "Running", "conditions": [ready]}, broken)
    kubernetes.until(lambda: "RolloutStuck" in codes(executor) or executor.observe() == {}, within_s=30)

    step = Planner(lambda snapshot: {"w": 3}, Busy(), executor).step()
    metrics = PlannerMetrics()
    metrics.record(step)
    replicas = step.snapshot.pools["w"].replicas
    assert replicas is not None
    assert (replicas.ready, replicas.starting, replicas.draining, replicas.target) == (2, 0, 1, 2)
    assert [outcome.status for outcome in step.outcomes] == ["applied"]
    told = {reason.code: reason.message for reason in step.decision.reasons}
    assert "ProgressDeadlineExceeded" in told["RolloutStuck"]
    assert 'ImagePullBackOff: Back-off pulling image "broken"' in told["ImagePullFailed"]
    for code in ("RolloutStuck", "ImagePullFailed"):
        name, labels = "dynamo_planner_trouble_since_timestamp_seconds", {"pool": "w", "code": code}
        since_s = metrics.registry.get_sample_value(name, labels)
        assert since_s == pytest.approx(time.time(), abs=60)


@pytest.mark.parametrize(
    ("rolling", "held", "code"),
    [
        ({"phase": "InProgress", "startTime": timestamp(time.time() - 100)}, True, "RolloutInProgress"),
        ({"phase": "InProgress", "startTime": timestamp(time.time() - 2000)}, False, "RolloutStuck"),
        ({"phase": "Failed", "endTime": timestamp(time.time() - 5)}, False, "RolloutFailed"),
    ],
)
def test_a_rolling_update_of_a_graph_holds_for_a_limited_time(
    kubernetes: Place, rolling: dict[str, Any], held: bool, code: str
) -> None:
    kubernetes.create(graph(Decode=2))
    for number in range(2):
        kubernetes.create(pod_of("Decode", number, podIP=f"127.0.0.{number}"))
    settle(kubernetes, Decode=2, more={"rollingUpdate": rolling})
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
    assert executor.observe() == {"decode": None if held else Replicas(ready=2, starting_since_s=())}
    assert codes(executor) == [code]
    assert len(executor.endpoints()["decode"]) == 2, "old and new pods are observed all the time"


def test_an_operator_that_failed_is_reported_in_its_own_words(kubernetes: Place) -> None:
    ready = {"type": "Ready", "status": "False", "reason": "failed_to_reconcile_the_resources"}
    ready |= {"message": "exceeded quota: gpus", "lastTransitionTime": timestamp(time.time() - 700)}
    kubernetes.create(graph(Decode=2))
    kubernetes.create(pod_of("Decode", 0))
    settle(kubernetes, Decode=1, more={"state": "failed", "conditions": [ready]})
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")})
    assert executor.observe() == {"decode": Replicas(ready=1, failed=1, starting_since_s=())}
    (reason,) = executor.troubles
    assert reason.code == "OperatorFailed"
    assert reason.message.endswith("failed_to_reconcile_the_resources: exceeded quota: gpus")


def test_pods_that_nothing_schedules_are_reported_at_once_and_fail_in_the_end(kubernetes: Place) -> None:
    kubernetes.create(graph(Decode=2))
    settle(kubernetes, more={"components": {"Decode": {"replicas": 2, "readyReplicas": 1}}})
    kubernetes.create(pod_of("Decode", 0))
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no GPU"}
    since = timestamp(time.time() - 300)
    kubernetes.create(pod_of("Decode", 1, ready=False, conditions=[{**said, "lastTransitionTime": since}]))
    clock = [time.time()]
    executor = executor_of(kubernetes, {"decode": scaled(name="llama")}, clock=lambda: clock[0])
    for starting, failed in ((1, 0), (0, 1)):
        decode = executor.observe()["decode"]
        assert decode is not None
        assert (decode.ready, decode.starting, decode.failed) == (1, starting, failed)
        (reason,) = executor.troubles
        assert reason.code == "Unschedulable"
        assert reason.message.endswith("pod llama-decode-1: Unschedulable: 0/3 nodes: no GPU")
        clock[0] += 400


def test_a_target_that_is_being_deleted_is_left_alone(kubernetes: Place) -> None:
    for manifest in (graph(Decode=2), deployment()):
        manifest["metadata"]["finalizers"] = ["example.com/hold"]
        kubernetes.create(manifest)
    settle(kubernetes, Decode=2)
    pools = {"decode": scaled(name="llama"), "w": scaled("aggregated", CPU, kind="Deployment", name="vllm")}
    executor = executor_of(kubernetes, pools)
    actions = [ScaleTo(pool="decode", replicas=5), ScaleTo(pool="w", replicas=5)]
    try:
        for version, kind, name in (("nvidia.com/v1beta1", GRAPH, "llama"), ("apps/v1", "Deployment", "vllm")):
            kubernetes.delete(version, kind, name)
        assert executor.apply(actions)[0].message == "llama is being deleted, and left alone"
        assert executor.observe() == {"decode": None, "w": None}
        assert all(why.endswith("it is being deleted, and left alone") for why in executor.unknown.values())
        assert [outcome.status for outcome in executor.apply(actions)] == ["refused", "refused"]
    finally:
        for version, kind, name in (("nvidia.com/v1beta1", GRAPH, "llama"), ("apps/v1", "Deployment", "vllm")):
            kubernetes.patch(version, kind, name, {"metadata": {"finalizers": None}})
