"""Patches are few: a graph is patched once for both of its pools, and not again soon to lower replicas."""

from __future__ import annotations

import time

import pytest

from dynamo_planner import ScaleTo
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.faulty_proxy import Fault, Proxy
from tests.support.kubernetes.objects import GRAPH, Shape, executor_of, graph, pod_of, replicas_of, scaled, settle

POOLS = {"prefill": scaled("prefill", name="llama"), "decode": scaled("decode", name="llama")}


@pytest.mark.parametrize("shape", ["components", "early v1beta1"])
def test_a_graph_is_patched_once_for_both_of_its_pools(kubernetes: Place, proxy: Proxy, shape: Shape) -> None:
    kubernetes.create(graph(shape=shape, Prefill=1, Decode=2))
    settle(kubernetes, shape=shape, Prefill=1, Decode=2)
    executor = executor_of(kubernetes, POOLS, url=proxy.url)
    executor.observe()
    touched: list[str] = []

    def touch(method: str, path: str) -> Fault | None:
        if method == "PATCH" and not touched:
            touched.append(path)
            version, labels = "nvidia.com/v1beta1", {"metadata": {"labels": {"touched": "yes"}}}
            kubernetes.patch(version, GRAPH, "llama", labels)
        return None

    proxy.rule = touch  # so that the first patch is of an older version, and both are tried again together
    actions = [ScaleTo(pool="prefill", replicas=3, expected=1), ScaleTo(pool="decode", replicas=1, expected=2)]
    assert [outcome.status for outcome in executor.apply(actions)] == ["applied", "applied"]
    assert [replicas_of(kubernetes, each, shape=shape) for each in ("Prefill", "Decode")] == [3, 1]
    assert [method for method, _ in proxy.asked].count("PATCH") == 2
    actions = [ScaleTo(pool="prefill", replicas=9, expected=1), ScaleTo(pool="decode", replicas=2, expected=1)]
    assert [outcome.status for outcome in executor.apply(actions)] == ["refused", "applied"]


def test_replicas_are_not_lowered_soon_after_a_write_and_raised_at_once(kubernetes: Place) -> None:
    kubernetes.create(graph(Prefill=2, Decode=2))
    clock = [time.time()]
    executor = executor_of(kubernetes, POOLS, clock=lambda: clock[0], spacing_s=60.0)

    def apply(**replicas: int) -> list[str]:
        actions = [ScaleTo(pool=pool, replicas=count) for pool, count in replicas.items()]
        return [outcome.status for outcome in executor.apply(actions)]

    assert apply(decode=3) == ["applied"]
    clock[0] += 20.0
    assert apply(decode=2) == ["refused"]
    assert apply(prefill=1) == ["refused"], "it is the same graph"
    assert apply(prefill=1, decode=4) == ["applied", "applied"]
    clock[0] += 61.0
    assert apply(prefill=2, decode=3) == ["applied", "applied"]


def test_the_least_busy_pods_are_annotated_to_end_first(
    kubernetes: Place, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """An API server of Kubernetes 1.20 keeps the annotation; what a ReplicaSet makes of it (1.22) is not shown here."""
    kubernetes.create(graph(Decode=4))
    settle(kubernetes, Decode=4)
    for number in range(4):
        kubernetes.create(pod_of("Decode", number, ready=number < 3))
    pools = {"decode": POOLS["decode"]}
    for on in (False, True):
        executor = executor_of(kubernetes, pools, url=proxy.url, deletion_costs=on)
        executor.observe()
        executor.consider({"decode": {"llama-decode-0": 7.0, "llama-decode-1": 0.0}})
        assert executor.apply([ScaleTo(pool="decode", replicas=(5, 3)[on])])[0].status == "applied"
    annotations = [each["metadata"].get("annotations") for each in kubernetes.list("v1", "Pod")]
    costs = [each and each["controller.kubernetes.io/pod-deletion-cost"] for each in annotations]
    assert costs == ["7", "0", "7", None], "the third is ready, and nothing is known of it"
    proxy.rule = lambda method, path: Fault(403) if method == "PATCH" and "/pods/" in path else None
    executor.consider({"decode": {"llama-decode-0": 8.0}})
    assert executor.apply([ScaleTo(pool="decode", replicas=2)])[0].status == "applied"
    assert "which pods go first is left to Kubernetes: PATCH" in caplog.text
