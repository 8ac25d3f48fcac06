"""How long a tick takes that looks at 500 DynamoGraphDeployments with 2,000 pods, and where that time goes.

``python -m tests.long.kubernetes_ticks``, from the root of the repository. Against a real API server
(``tests/support/kubernetes/build_servers.sh``), in one process: 500 planners with an executor each, which share one
cluster.

Exits with 1 where a quiet tick takes more than 2 s or 5 requests per kind, or a tick that changes 50 more than 5 s.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from dynamo_planner import LoadPolicy, Observation, Planner, PoolSpec, Snapshot, Traffic
from dynamo_planner.core.metrics import PoolMetrics
from dynamo_planner.executors.kubernetes import Api, Cluster, KubernetesExecutor, KubernetesPool
from dynamo_planner.executors.kubernetes.resources import PODS, adapters
from tests.support.kubernetes.cluster import MERGE, Place, install_crds, new_place
from tests.support.kubernetes.control_plane import ControlPlane
from tests.support.kubernetes.objects import graph, pod_of, settle

QUIET_S, CHANGING_S, REQUESTS_PER_KIND = 2.0, 5.0, 5
CHANGED = 50


def spec_of_pod() -> dict[str, Any]:
    """The spec of a worker's pod as it is in practice: a dozen variables, volumes, probes, tolerations."""
    env: list[dict[str, Any]] = [{"name": f"ENGINE_OPTION_{n}", "value": f"value-of-option-{n}"} for n in range(12)]
    env.append({"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
    probe = {"httpGet": {"path": "/health", "port": 9090}, "periodSeconds": 10, "failureThreshold": 60}
    container = {
        "name": "main",
        "image": "registry.example.com/ai-dynamo/vllm-runtime:1.6.1",
        "command": ["python3", "-m", "dynamo.vllm"],
        "args": ["--model", "/models/llama", "--tensor-parallel-size", "2", "--max-num-seqs", "256"],
        "env": env,
        "ports": [{"name": "system", "containerPort": 9090}],
        "resources": {"limits": {"nvidia.com/gpu": "2", "memory": "160Gi"}, "requests": {"cpu": "16"}},
        "livenessProbe": probe,
        "readinessProbe": probe,
        "startupProbe": probe,
        "volumeMounts": [{"name": "models", "mountPath": "/models"}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    return {
        "containers": [container],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "32Gi"}},
        ],
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "nodeName": "gpu-node-1",
    }


def pod_status(number: int) -> dict[str, Any]:
    """The status that a kubelet writes of a pod that runs."""
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    then = "2026-01-02T03:04:05Z"
    container = {
        "name": "main",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "image": "registry.example.com/ai-dynamo/vllm-runtime:1.6.1",
        "imageID": "registry.example.com/ai-dynamo/vllm-runtime@sha256:" + "0123456789abcdef" * 4,
        "containerID": "containerd://" + "fedcba9876543210" * 4,
        "state": {"running": {"startedAt": then}},
    }
    address = f"10.1.{number // 250}.{number % 250}"
    return {
        "phase": "Running",
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": then} for kind in kinds],
        "hostIP": "10.0.0.1",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": then,
        "containerStatuses": [container],
    }


def populate(place: Place, graphs: int, pods: int) -> None:
    """Create the graphs and their pods, each part of them under the field manager that writes it in practice."""
    template = {"spec": {"containers": spec_of_pod()["containers"]}}

    def one(number: int) -> None:
        name = f"model-{number:03}"
        manifest = graph(name, Frontend=1, Prefill=2, Decode=2)
        for component in manifest["spec"]["components"]:
            component["podTemplate"] = template
        manifest["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": str(manifest)}
        path = f"/apis/nvidia.com/v1beta1/namespaces/{place.namespace}/dynamographdeployments"
        place.server.request("POST", f"{path}?fieldManager=kubectl-client-side-apply", manifest)
        conditions = [{"type": "Ready", "status": "True", "reason": "all_resources_are_ready", "message": "ready"}]
        settle(place, name, Frontend=1, Prefill=2, Decode=2, more={"state": "successful", "conditions": conditions})
        for replica in range(pods // graphs):
            worker = pod_of(("Prefill", "Decode")[replica % 2], replica, graph=name)
            worker["spec"], worker["status"] = spec_of_pod(), None
            path = f"/api/v1/namespaces/{place.namespace}/pods"
            place.server.request("POST", f"{path}?fieldManager=kube-controller-manager", worker)
            status = {"status": pod_status(number * 4 + replica)}
            said = f"{path}/{worker['metadata']['name']}/status?fieldManager=kubelet"
            place.server.request("PATCH", said, status, content_type=MERGE)

    with ThreadPoolExecutor(8) as several:
        list(several.map(one, range(graphs)))


class Quiet:
    """A source for a model whose queue is as long as ``queued`` says, in both pools."""

    def __init__(self) -> None:
        self.queued = 1.0

    def observe(self, at_s: float) -> Observation:
        seen = PoolMetrics(observed_at_s=at_s, coverage=1.0, queued=self.queued, running=8, kv_usage=0.7)
        traffic = Traffic(observed_at_s=at_s, requests_per_s=10, isl=1000, osl=200)
        return Observation(traffic=traffic, pools={"prefill": seen, "decode": seen})


class Requests(logging.Handler):
    """Counts requests by method and kind, as urllib3 logs them."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.counted: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if len(record.args or ()) > 4 and isinstance(record.args, tuple):
            method, path = str(record.args[3]), str(record.args[4]).partition("?")[0].split("/")
            after = path.index("namespaces") + 2
            self.counted[f"{method} {path[after]}"] += 1


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """The requests that are made in this context."""
    handler, logger = Requests(), logging.getLogger("urllib3.connectionpool")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield handler.counted
    finally:
        logger.removeHandler(handler)


def timed(work: Callable[[], Any]) -> float:
    """How many seconds it takes."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def wanted(snapshot: Snapshot) -> dict[str, int | None]:
    """One more decode worker where the queue is long."""
    decode = snapshot.pools["decode"]
    busy = decode.replicas is not None and (decode.queued or 0) > 100
    return {"prefill": None, "decode": decode.replicas.target + 1 if busy and decode.replicas else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=500)
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--ticks", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dp-kubernetes-") as directory:
        server = ControlPlane(Path(directory))
        try:
            server.start()
            install_crds(server)
            place = new_place(server, Path(directory))
            print(f"creating took {timed(lambda: populate(place, options.graphs, options.pods)):.0f} s")
            measure(place, options.graphs, options.ticks)
        finally:
            server.stop()


def measure(place: Place, graphs: int, ticks: int) -> None:
    """Time the parts of a tick, quiet ticks, and one that changes something."""
    api = Api.connect(place.kubeconfig())
    cluster = Cluster(api)
    sources = [Quiet() for _ in range(graphs)]
    planners = []
    for number, source in enumerate(sources):
        pools = {
            role: KubernetesPool(spec=PoolSpec(role=role), target={"name": f"model-{number:03}"})
            for role in ("prefill", "decode")
        }
        policy = wanted if number < CHANGED else LoadPolicy(adjustment_interval_s=30)
        planners.append(Planner(policy, source, KubernetesExecutor(pools, cluster)))
    executors = [planner.executor for planner in planners]
    for executor in executors:
        assert isinstance(executor, KubernetesExecutor)
    logging.getLogger("dynamo_planner").setLevel(logging.WARNING)

    def step_all() -> None:
        with cluster.tick():
            for planner in planners:
                planner.step()

    def observe_all() -> None:
        with cluster.tick():
            for executor in executors:
                seen = executor.observe()
                assert all(replicas is not None and replicas.ready == 2 for replicas in seen.values()), seen

    resources = {"graphs": cluster.graphs(place.namespace), "adapters": adapters("v1beta1"), "pods": PODS}
    for name, resource in resources.items():
        took_s = median(timed(partial(api.items, resource, place.namespace)) for _ in range(3))
        print(f"listing {name}, request to parsed JSON: {took_s:.2f} s")
    print(f"observing all, listing included: {median(timed(observe_all) for _ in range(3)):.2f} s")
    with counting() as requests:
        quiet = [timed(step_all) for _ in range(ticks)]
    per_tick = {kind: count / ticks for kind, count in requests.items()}
    print(f"a quiet tick: median {median(quiet):.2f} s, longest {max(quiet):.2f} s; requests {per_tick}")
    for source in sources[:CHANGED]:
        source.queued = 1000.0
    with counting() as requests:
        changing_s = timed(step_all)
    changed = requests["PATCH dynamographdeployments"]
    print(f"a tick that changes {changed}: {changing_s:.2f} s; requests {dict(requests)}")
    ok = median(quiet) <= QUIET_S and max(per_tick.values()) <= REQUESTS_PER_KIND
    if not ok or changing_s > CHANGING_S or changed != CHANGED:
        sys.exit(f"over the limits of {QUIET_S} s, {REQUESTS_PER_KIND} requests per kind, {CHANGING_S} s")


if __name__ == "__main__":
    main()
