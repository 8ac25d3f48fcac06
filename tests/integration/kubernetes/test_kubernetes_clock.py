"""A planner whose clock is an hour apart from the cluster's, or is set."""

from __future__ import annotations

import time

import pytest

from dynamo_planner.executors.kubernetes import Api, KubernetesExecutor
from dynamo_planner.executors.kubernetes.server_clock import ServerClock
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.objects import graph, pod_of, scaled, settle, timestamp


@pytest.mark.parametrize("apart_s", [3600.0, -3600.0])
def test_durations_are_by_the_clock_of_the_server_and_starts_by_that_of_the_planner(
    kubernetes: Place, apart_s: float
) -> None:
    kubernetes.create(graph(Decode=2))
    settle(kubernetes, Decode=1)
    kubernetes.create(pod_of("Decode", 0))
    name = kubernetes.create(pod_of("Decode", 1))["metadata"]["name"]
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no GPU"}
    kubernetes.set_status("v1", "Pod", name, {"conditions": [{**said, "lastTransitionTime": timestamp()}]})
    offset_s = [apart_s]
    clock = ServerClock(wall=lambda: time.time() + offset_s[0])
    pools = {"decode": scaled(name="llama", failed_after_s=600.0)}
    executor = KubernetesExecutor(pools, Api.connect(kubernetes.kubeconfig(), clock=clock))
    for offset_s[0] in (apart_s, -apart_s):  # it is set in between
        decode = executor.observe()["decode"]
        assert decode is not None
        assert (decode.starting, decode.failed) == (1, 0), "after seconds, and not after an hour"
        assert decode.starting_since_s == pytest.approx((time.time() + offset_s[0],), abs=60.0)
        (reason,) = executor.troubles
        assert reason.values["began_at_s"] == pytest.approx(time.time(), abs=60.0)
