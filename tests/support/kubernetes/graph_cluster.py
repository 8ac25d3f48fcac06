"""The operator of a graph, the scheduler and a kubelet, as stand-ins that do one step at a time.

What each does is by the rules of :mod:`tests.support.kubernetes.stand_ins`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.control_plane import StatusError
from tests.support.kubernetes.graph_requests import Requests
from tests.support.kubernetes.objects import GRAPH
from tests.support.kubernetes.stand_ins import Node, unschedulable

VERSION = "nvidia.com/v1beta1"
COMPONENTS = {"prefill": "Prefill", "decode": "Decode"}


@dataclass
class Cluster:
    """The operator of the graph, the scheduler and a kubelet, one step at a time."""

    place: Place
    operates: bool = True
    schedules: bool = True
    pulls: bool = True
    rolling: dict[str, Any] | None = None
    lost: set[str] = field(default_factory=set)
    numbers: int = 0
    requests: Requests = field(default_factory=Requests)

    def step(self) -> None:
        """One turn of each."""
        pods = self.place.list("v1", "Pod")
        self.requests.turn(pods, self.lost)
        for pod in pods:
            self._keep(pod)
        if self.operates:
            self._operate([pod for pod in pods if "deletionTimestamp" not in pod["metadata"]])

    def _keep(self, pod: dict[str, Any]) -> None:
        name, node = pod["metadata"]["name"], Node(self.place)
        conditions = {each["type"]: each for each in pod["status"].get("conditions") or ()}
        scheduled = conditions.get("PodScheduled", {})
        if name in self.lost:
            return
        if "deletionTimestamp" in pod["metadata"]:
            if not self.requests.running.get(name):
                node.ended(name)
        elif "nodeName" not in pod["spec"]:
            if self.schedules:
                node.bind(name)
            elif scheduled.get("reason") != "Unschedulable":
                unschedulable(self.place, name, "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.")
        elif not self.pulls and conditions["Ready"]["status"] == "False":
            waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
            about = {"name": "main", "image": "x", "imageID": "", "ready": False, "restartCount": 0}
            status = {"containerStatuses": [{**about, "state": {"waiting": waiting}}]}
            self.place.set_status("v1", "Pod", name, status)
        elif conditions["Ready"]["status"] == "False":
            self.place.set_status("v1", "Pod", name, {"containerStatuses": []})
            node.ready(name)

    def _operate(self, pods: list[dict[str, Any]]) -> None:
        try:
            found = self.place.get(VERSION, GRAPH, "llama")
        except StatusError:
            found = {"spec": {"components": [{"name": each, "replicas": 0} for each in COMPONENTS.values()]}}
        counts = {}
        for component in found["spec"]["components"]:
            name, wanted = component["name"], int(component["replicas"])
            here = [pod for pod in pods if pod["metadata"]["labels"]["nvidia.com/dynamo-component"] == name]
            for _ in range(wanted - len(here)):
                self._create(name)
            for pod in here[wanted:]:
                path = self.place.path("v1", "Pod", pod["metadata"]["name"])
                self.place.server.request("DELETE", path, {"gracePeriodSeconds": 30})
            ready = sum(self._is_ready(pod) for pod in here[:wanted])
            counts[name] = {"replicas": wanted, "updatedReplicas": wanted, "readyReplicas": ready}
        if "metadata" in found:
            status = {"observedGeneration": found["metadata"]["generation"], "components": counts}
            self.place.set_status(VERSION, GRAPH, "llama", {**status, "rollingUpdate": self.rolling})

    def _create(self, component: str) -> None:
        self.numbers += 1
        labels = {"nvidia.com/dynamo-graph-deployment-name": "llama", "nvidia.com/dynamo-component": component}
        about = {"name": f"llama-{component.lower()}-{self.numbers:04}", "labels": labels}
        spec = {"containers": [{"name": "main", "image": "engine"}]}
        self.place.create({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})

    @staticmethod
    def _is_ready(pod: dict[str, Any]) -> bool:
        conditions = pod["status"].get("conditions") or ()
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
