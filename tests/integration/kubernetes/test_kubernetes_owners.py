"""Who else changes replicas: paused ScaledObjects, a second planner, and people who scale what is below a graph."""

from __future__ import annotations

import time

import pytest

from dynamo_planner import ScaleTo
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.objects import executor_of, graph, pod_of, replicas_of, scaled, settle

DECODE = {"decode": scaled(name="llama")}
PREFIX = "autoscaling.keda.sh/paused"


@pytest.mark.parametrize(
    ("annotations", "status", "owns"),
    [
        ({}, {}, True),
        ({PREFIX: "false"}, {}, True),
        ({PREFIX: "true"}, {}, False),
        ({f"{PREFIX}-replicas": "2"}, {}, False),
        ({f"{PREFIX}-replicas": "2"}, {"conditions": [{"type": "Paused", "status": "False"}]}, True),
        ({f"{PREFIX}-scale-in": "true"}, {}, True),
    ],
)
def test_a_paused_scaled_object_is_no_owner(
    kubernetes: Place, annotations: dict[str, str], status: dict[str, object], owns: bool
) -> None:
    kubernetes.create(graph(Decode=2))
    reference = {"apiVersion": "nvidia.com/v1beta1", "kind": "DynamoGraphDeployment", "name": "llama"}
    about = {"metadata": {"name": "theirs", "annotations": annotations}, "status": status}
    theirs = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "spec": {"scaleTargetRef": reference}}
    kubernetes.create({**theirs, **about})
    (outcome,) = executor_of(kubernetes, DECODE).apply([ScaleTo(pool="decode", replicas=3)])
    assert outcome.status == ("refused" if owns else "applied")


@pytest.mark.parametrize(("down", "owns"), [("Max", True), ("Disabled", False)])
def test_an_hpa_that_may_scale_neither_way_is_no_owner(kubernetes: Place, down: str, owns: bool) -> None:
    kubernetes.create(graph(Decode=2))
    reference = {"apiVersion": "nvidia.com/v1beta1", "kind": "DynamoGraphDeployment", "name": "llama"}
    metrics = [
        {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
    ]
    behavior = {"scaleUp": {"selectPolicy": "Disabled"}, "scaleDown": {"selectPolicy": down}}
    spec = {"maxReplicas": 9, "scaleTargetRef": reference, "metrics": metrics, "behavior": behavior}
    path = f"/apis/autoscaling/v2beta2/namespaces/{kubernetes.namespace}/horizontalpodautoscalers"
    kubernetes.server.request("POST", path, {"metadata": {"name": "theirs"}, "spec": spec})
    (outcome,) = executor_of(kubernetes, DECODE).apply([ScaleTo(pool="decode", replicas=3)])
    assert outcome.status == ("refused" if owns else "applied")


@pytest.mark.parametrize("when_changed", ["yield", "retake"])
def test_two_planners_without_a_lease_notice_each_other_and_do_not_fight(kubernetes: Place, when_changed: str) -> None:
    kubernetes.create(graph(Decode=2))
    settle(kubernetes, Decode=2)
    clock = [time.time()]
    both = [
        executor_of(kubernetes, DECODE, clock=lambda: clock[0], when_changed=when_changed, yield_s=60.0)
        for _ in range(2)
    ]
    written, noticed = [], set()
    for _ in range(30):  # 5 minutes, one wants 3 and the other 5
        clock[0] += 10.0
        for n, executor in enumerate(both):
            decode = executor.observe()["decode"]
            assert decode is not None
            noticed |= {n for reason in executor.troubles if reason.code == "AnotherPlanner"}
            (outcome,) = executor.apply([ScaleTo(pool="decode", replicas=(3, 5)[n], expected=decode.target)])
            written += [n] if outcome.status == "applied" else []
            settle(kubernetes, Decode=replicas_of(kubernetes, "Decode"))
    assert noticed == {0, 1}
    assert len(written) <= 6, "one for each time that the other yields"


@pytest.mark.parametrize(("there", "code"), [(3, "MoreThanRequested"), (1, "PodsMissing")])
def test_more_or_fewer_than_requested_for_a_while_is_reported(kubernetes: Place, there: int, code: str) -> None:
    kubernetes.create(graph(Decode=2))
    settle(kubernetes, Decode=there)
    for number in range(there):
        kubernetes.create(pod_of("Decode", number))
    clock = [time.time()]
    executor = executor_of(kubernetes, DECODE, clock=lambda: clock[0])
    executor.observe()
    assert list(executor.troubles) == []
    clock[0] += 70.0
    decode = executor.observe()["decode"]
    assert decode is not None
    assert [reason.code for reason in executor.troubles] == [code]
    assert decode.target == max(there, 2), "more are there, so that no policy waits for a movement"
    (outcome,) = executor.apply([ScaleTo(pool="decode", replicas=4, expected=decode.target)])
    assert outcome.status == "applied"
    (outcome,) = executor.apply([ScaleTo(pool="decode", replicas=5, expected=decode.target)])
    assert outcome.status == "refused"
