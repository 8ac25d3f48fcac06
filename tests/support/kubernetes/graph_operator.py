"""A small operator for DynamoGraphDeployments, and the kubelet of its pods: replicas are simulated worker processes.

It does of Dynamo's operator what a planner sees: a pod for each replica, the status by component in the shape of the
spec, and scaling adapters passed on to the graph. A pod has an address of its own on loopback, is ready when its
worker answers ``/health``, and when it is deleted its worker drains before it is gone.
"""

from __future__ import annotations

import itertools
import random
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.control_plane import StatusError

GRAPH, ADAPTER = "DynamoGraphDeployment", "DynamoGraphDeploymentScalingAdapter"
GRAPH_LABEL, COMPONENT_LABEL = "nvidia.com/dynamo-graph-deployment-name", "nvidia.com/dynamo-component"
ENGINES = {"prefill", "decode", "worker"}

Command = Callable[[str, str, str], list[str]]
"""The command of a worker of a component's type, which listens at a host and a port."""


@dataclass
class Pod:
    """A pod that runs: its worker's process, and what was last said of it."""

    name: str
    graph: str
    component: str
    host: str
    process: subprocess.Popen[bytes]
    ready: bool = False
    leaving: bool = False


def components(graph: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The components of a graph of either shape, as ``spec.components`` has them."""
    spec = graph["spec"]
    if "components" in spec:
        return list(spec["components"])
    return [
        {**service, "name": name, "type": service.get("subComponentType") or service["componentType"]}
        for name, service in spec["services"].items()
    ]


class GraphOperator:
    """Runs the graphs of a place until the end of the ``with`` block, which ends every worker that it started."""

    def __init__(self, place: Place, command: Command, port: int, version: str = "v1beta1") -> None:
        self._place, self._command, self._port = place, command, port
        self._version = f"nvidia.com/{version}"
        self._hosts = (f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{n}" for n in itertools.count(1))
        self._pods: dict[str, Pod] = {}
        self._numbers = itertools.count()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="graph-operator")
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for pod in self._pods.values():
            pod.process.kill()
            pod.process.wait()
        if self.error is not None:
            raise self.error

    def endpoints(self, graph: str) -> dict[str, dict[str, str]]:
        """The base URLs of the ready pods of a graph by component, as a service in front of them would have them."""
        urls: dict[str, dict[str, str]] = {}
        for pod in list(self._pods.values()):
            if pod.graph == graph and pod.ready and not pod.leaving:
                urls.setdefault(pod.component, {})[pod.name] = f"http://{pod.host}:{self._port}"
        return urls

    @property
    def is_draining(self) -> bool:
        """Whether a worker was told to end and has not ended yet."""
        return any(pod.leaving for pod in list(self._pods.values()))

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.2):
                self._turn()
        except BaseException as error:  # told by the test's own thread
            self.error = error

    def _turn(self) -> None:
        for adapter in self._place.list(self._version, ADAPTER):
            self._pass_on(adapter)
        for pod in list(self._pods.values()):
            self._keep(pod)
        for graph in self._place.list(self._version, GRAPH):
            for component in components(graph):
                if component["type"] in ENGINES:
                    self._reconcile(graph["metadata"]["name"], component)
            self._report(graph)

    def _pass_on(self, adapter: Mapping[str, Any]) -> None:
        """What an adapter was told, written to its component in the graph."""
        reference = adapter["spec"]["dgdRef"]
        graph = self._place.get(self._version, GRAPH, reference["name"])
        listed = graph["spec"]["components"]
        (n,) = [n for n, each in enumerate(listed) if each["name"] == reference["componentName"]]
        if listed[n]["replicas"] != adapter["spec"]["replicas"]:
            listed[n]["replicas"] = adapter["spec"]["replicas"]
            with suppress(StatusError):  # somebody was faster: the next turn sees it
                self._place.server.request("PUT", self._place.path(self._version, GRAPH, reference["name"]), graph)
        if adapter.get("status", {}).get("replicas") != adapter["spec"]["replicas"]:
            status = {"replicas": adapter["spec"]["replicas"]}
            self._place.set_status(self._version, ADAPTER, adapter["metadata"]["name"], status)

    def _reconcile(self, graph: str, component: Mapping[str, Any]) -> None:
        """As many pods as the component is to have; the newest go first."""
        there = [pod for pod in self._of(graph, component["name"]) if not pod.leaving]
        for _ in range(component["replicas"] - len(there)):
            self._start(graph, component)
        for pod in there[component["replicas"] :]:
            pod.leaving = True
            path = self._place.path("v1", "Pod", pod.name)
            self._place.server.request("DELETE", path, {"gracePeriodSeconds": 60})
            pod.process.terminate()

    def _of(self, graph: str, component: str) -> list[Pod]:
        return [pod for pod in self._pods.values() if (pod.graph, pod.component) == (graph, component)]

    def _start(self, graph: str, component: Mapping[str, Any]) -> None:
        name, host = f"{graph}-{component['name'].lower()}-{next(self._numbers)}", next(self._hosts)
        labels = {GRAPH_LABEL: graph, COMPONENT_LABEL: component["name"]}
        ports = [{"name": "system", "containerPort": self._port}]
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {"nodeName": "loopback", "containers": [{"name": "main", "image": "worker", "ports": ports}]},
        }
        self._place.create(manifest)
        command = self._command(component["type"], host, str(self._port))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._pods[name] = Pod(name, graph, component["name"], host, process)
        self._place.set_status("v1", "Pod", name, _pod_status(host, ready=False))

    def _keep(self, pod: Pod) -> None:
        """What a kubelet does: readiness, and taking a pod away once its process has ended."""
        if pod.process.poll() is not None:
            assert pod.leaving, f"the worker of {pod.name} ended unasked with {pod.process.returncode}"
            assert pod.process.returncode == 0 or not pod.ready, f"{pod.name} did not drain: {pod.process.returncode}"
            self._place.delete("v1", "Pod", pod.name)
            del self._pods[pod.name]
        elif not pod.ready and not pod.leaving and self._answers(pod):
            self._place.set_status("v1", "Pod", pod.name, _pod_status(pod.host, ready=True))
            pod.ready = True

    def _answers(self, pod: Pod) -> bool:
        try:
            with urllib.request.urlopen(f"http://{pod.host}:{self._port}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _report(self, graph: Mapping[str, Any]) -> None:
        counts = {}
        for component in components(graph):
            there = [pod for pod in self._of(graph["metadata"]["name"], component["name"]) if not pod.leaving]
            ready = sum(pod.ready for pod in there)
            if component["type"] in ENGINES:
                counts[component["name"]] = {
                    **{"componentKind": "Deployment", "componentNames": [component["name"]], "gpusPerReplica": 0},
                    **{"replicas": len(there), "updatedReplicas": len(there), "readyReplicas": ready},
                    **{"availableReplicas": ready, "scheduledReplicas": len(there)},
                }
        wanted = {each["name"]: each["replicas"] for each in components(graph) if each["type"] in ENGINES}
        complete = all(counts[name]["readyReplicas"] == replicas for name, replicas in wanted.items())
        shape = "components" if "components" in graph["spec"] else "services"
        status = {
            "observedGeneration": graph["metadata"]["generation"],
            "state": "successful" if complete else "pending",
            "conditions": [_condition("Ready", complete, "all_resources_are_ready" if complete else "pods_not_ready")],
            shape: counts,
        }
        told = {key: graph.get("status", {}).get(key) for key in status}
        if _without_times(told) != _without_times(status):
            self._place.set_status(self._version, GRAPH, graph["metadata"]["name"], status)


def _pod_status(host: str, *, ready: bool) -> dict[str, Any]:
    return {
        "phase": "Running",
        "podIP": host,
        "podIPs": [{"ip": host}],
        "conditions": [_condition("PodScheduled", True, ""), _condition("Ready", ready, "")],
    }


def _condition(kind: str, value: bool, reason: str) -> dict[str, str]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = {"type": kind, "status": str(value), "lastTransitionTime": now}
    return {**said, "reason": reason} if reason else said


def _without_times(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_times(each) for key, each in value.items() if key != "lastTransitionTime"}
    return [_without_times(each) for each in value] if isinstance(value, list) else value
