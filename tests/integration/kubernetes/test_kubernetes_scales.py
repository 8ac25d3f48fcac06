"""Whatever has a scale subresource, on a real API server and, where their status matters, with the real controllers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dynamo_planner import Replicas, ScaleTo
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.faulty_proxy import Proxy
from tests.support.kubernetes.objects import executor_of, pod, scaled, timestamp

CPU = {"gpus": 0}
TEMPLATE = {
    "metadata": {"labels": {"app": "vllm"}},
    "spec": {"containers": [{"name": "main", "image": "engine"}], "terminationGracePeriodSeconds": 0},
}


def workload(kind: str, replicas: int | None = None, **spec: Any) -> dict[str, Any]:
    """A Deployment or a StatefulSet."""
    said = {} if replicas is None else {"replicas": replicas}
    chosen = {"selector": {"matchLabels": {"app": "vllm"}}, "template": TEMPLATE, **said, **spec}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "vllm"}, "spec": chosen}


def make_ready(place: Place, count: int) -> None:
    """Have this many pods become ready, as a kubelet would say."""
    for each in place.list("v1", "Pod")[:count]:
        condition = {"type": "Ready", "status": "True", "lastTransitionTime": timestamp(time.time() - 5)}
        place.set_status("v1", "Pod", each["metadata"]["name"], {"phase": "Running", "conditions": [condition]})


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_workload_of_the_real_controllers(kubernetes: Place, kind: str) -> None:
    kubernetes.server.start_controllers()
    more: dict[str, Any] = {"podManagementPolicy": "Parallel", "serviceName": "vllm"} if kind == "StatefulSet" else {}
    kubernetes.create(workload(kind, **more))
    executor = executor_of(kubernetes, {"workers": scaled("aggregated", CPU, kind=kind, name="vllm")})

    def seen(**expected: int) -> bool:
        replicas = executor.observe()["workers"]
        told = replicas and {name: getattr(replicas, name) for name in expected}
        return told == expected

    kubernetes.until(lambda: seen(ready=0, starting=1, target=1), within_s=30)  # replicas left out mean 1
    assert executor.apply([ScaleTo(pool="workers", replicas=3, expected=1)])[0].status == "applied"
    kubernetes.until(lambda: len(kubernetes.list("v1", "Pod")) == 3)
    make_ready(kubernetes, 2)
    kubernetes.until(lambda: seen(ready=2, starting=1, target=3))
    replicas = executor.observe()["workers"]
    assert replicas is not None
    assert replicas.starting_since_s is not None
    assert abs(replicas.starting_since_s[0] - time.time()) < 60

    image = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "newer"}]}}}}
    kubernetes.patch("apps/v1", kind, "vllm", image)
    kubernetes.until(lambda: executor.observe()["workers"] is None)
    kubernetes.until(lambda: executor.observe() and "a rollout is in progress" in executor.unknown["workers"])


class TestLeaderWorkerSet:
    """Replicas are groups, and each group is several pods."""

    @staticmethod
    def create(place: Place, replicas: int = 2) -> None:
        """A set of groups of two pods, of eight GPUs each; the second group is not ready."""
        limits = {"resources": {"limits": {"nvidia.com/gpu": 8}}}
        template = {"spec": {"containers": [{"name": "main", "image": "engine", **limits}]}}
        place.create(
            {
                "apiVersion": "leaderworkerset.x-k8s.io/v1",
                "kind": "LeaderWorkerSet",
                "metadata": {"name": "deepseek"},
                "spec": {"replicas": replicas, "leaderWorkerTemplate": {"size": 2, "workerTemplate": template}},
                "status": {"replicas": replicas, "updatedReplicas": replicas, "readyReplicas": 1},
            }
        )
        for group in range(replicas):
            for worker in range(2):
                prefix = "leaderworkerset.sigs.k8s.io"
                labels = {f"{prefix}/name": "deepseek", f"{prefix}/group-index": str(group)}
                labels[f"{prefix}/worker-index"] = str(worker)
                ready = group == 0 or worker == 0
                place.create(
                    pod(f"deepseek-{group}-{worker}", labels, ready=ready, podIP=f"127.0.{group}.{worker + 1}")
                )

    def test_it_counts_groups(self, kubernetes: Place) -> None:
        self.create(kubernetes)
        pools = {"workers": scaled("aggregated", kind="LeaderWorkerSet", name="deepseek")}
        with executor_of(kubernetes, pools) as executor:
            workers = executor.observe()["workers"]
            assert workers is not None
            assert (workers.ready, workers.starting, workers.target) == (1, 1, 2)
            assert executor.pools["workers"].gpus == 16
            urls = executor.endpoints()["workers"]
            assert urls == {"deepseek-0-0": "http://127.0.0.1:8000", "deepseek-1-0": "http://127.0.1.1:8000"}
            assert executor.apply([ScaleTo(pool="workers", replicas=3, expected=2)])[0].status == "applied"
        scaled_set = kubernetes.get("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "deepseek")
        assert scaled_set["spec"]["replicas"] == 3

    def test_what_was_written_is_seen_though_several_are_listed_from_the_cache(
        self, kubernetes: Place, proxy: Proxy
    ) -> None:
        for name in ("a", "b"):
            spec = {"replicas": 1, "leaderWorkerTemplate": {"size": 1}}
            status = {"replicas": 1, "readyReplicas": 1}
            about = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": {"name": name}}
            kubernetes.create({**about, "spec": spec, "status": status})
        pools = {name: scaled("aggregated", CPU, kind="LeaderWorkerSet", name=name) for name in ("a", "b")}
        executor = executor_of(kubernetes, pools, url=proxy.url)
        executor.observe()
        for replicas in range(2, 12):
            actions = [ScaleTo(pool=name, replicas=replicas, expected=replicas - 1) for name in ("a", "b")]
            assert [outcome.status for outcome in executor.apply(actions)] == ["applied"] * 2
            seen = executor.observe()
            assert [each and each.target for each in seen.values()] == [replicas] * 2
        lists = [path for method, path in proxy.asked if method == "GET" and "leaderworkersets?" in path]
        assert ["resourceVersion=" in path for path in lists] == [False] + [True] * 10

    def test_an_update_is_a_rollout(self, kubernetes: Place) -> None:
        self.create(kubernetes)
        update = {"conditions": [{"type": "UpdateInProgress", "status": "True"}]}
        kubernetes.set_status("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "deepseek", update)
        executor = executor_of(kubernetes, {"w": scaled("aggregated", kind="LeaderWorkerSet", name="deepseek")})
        assert executor.observe() == {"w": None}
        assert executor.unknown["w"].endswith("a rollout is in progress (UpdateInProgress)")


ENGINE = {"kind": "Engine", "group": "serving.example.com", "version": "v1", "plural": "engines", "name": "mine"}


class TestCustomResource:
    """A resource of which nothing is known but its scale."""

    @staticmethod
    def engine(**spec: Any) -> dict[str, Any]:
        """An engine whose replicas are in an odd place."""
        status = {"size": 2, "selector": "engine=mine"}
        return {
            "apiVersion": "serving.example.com/v1",
            "kind": "Engine",
            "metadata": {"name": "mine"},
            "spec": spec,
            "status": status,
        }

    def test_its_scale_has_the_target_and_its_selector_the_pods(self, kubernetes: Place) -> None:
        kubernetes.create(self.engine(fleet={"size": 2}))
        kubernetes.create(pod("mine-0", {"engine": "mine"}))
        kubernetes.create(pod("mine-1", {"engine": "mine"}, ready=False))
        kubernetes.create(pod("other-0", {"engine": "other"}))
        with executor_of(kubernetes, {"workers": scaled("aggregated", CPU, **ENGINE)}) as executor:
            workers = executor.observe()["workers"]
            assert workers is not None
            assert (workers.ready, workers.starting, workers.target) == (1, 1, 2)
            assert executor.apply([ScaleTo(pool="workers", replicas=5, expected=2)])[0].status == "applied"
            assert kubernetes.get("serving.example.com/v1", "Engine", "mine")["spec"]["fleet"]["size"] == 5
            assert executor.apply([ScaleTo(pool="workers", replicas=0, expected=5)])[0].status == "applied"
            kubernetes.delete("v1", "Pod", "mine-0")
            kubernetes.delete("v1", "Pod", "mine-1")
            assert executor.observe()["workers"] == Replicas(ready=0, starting_since_s=())

    def test_a_status_that_makes_no_sense_is_unknown_and_the_others_are_not(self, kubernetes: Place) -> None:
        kubernetes.create(self.engine(fleet={"size": 2}))
        pools = {
            "workers": scaled("aggregated", CPU, **ENGINE),
            "beside": scaled("decode", CPU, kind="LeaderWorkerSet", name="beside"),
        }
        about = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": {"name": "beside"}}
        kubernetes.create({**about, "spec": {"leaderWorkerTemplate": {}}, "status": {"readyReplicas": 1}})
        executor = executor_of(kubernetes, pools)
        for nonsense in ({"readyReplicas": -1}, {"readyReplicas": "many"}, {"conditions": "fine"}):
            kubernetes.set_status("serving.example.com/v1", "Engine", "mine", nonsense)
            seen = executor.observe()
            assert seen == {"workers": None, "beside": Replicas(ready=1, starting_since_s=())}, nonsense
            assert executor.unknown["workers"].startswith("Engine mine: it has not the form that it should have")

    def test_without_replicas_its_scale_cannot_be_read_and_nothing_is_guessed(self, kubernetes: Place) -> None:
        kubernetes.create(self.engine())
        pools = {
            "workers": scaled("aggregated", CPU, **ENGINE),
            "beside": scaled("decode", CPU, kind="Deployment", name="vllm"),
        }
        kubernetes.create(workload("Deployment", 1))
        executor = executor_of(kubernetes, pools)
        assert executor.observe()["workers"] is None
        assert "replicas" in executor.unknown["workers"]
