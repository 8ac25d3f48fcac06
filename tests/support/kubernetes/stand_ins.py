"""Stand-ins for what does not run here: scheduler, kubelet, node controller, those of LeaderWorkerSets and of Dynamo.

Each does one step when a test calls it, and writes what the real one writes, by the rules of its published source:

- scheduler: a pod without a node has ``PodScheduled: False`` with the reason ``Unschedulable`` and its message
  (kubernetes pkg/scheduler/schedule_one.go, ``handleSchedulingFailure``); a binding makes it true, of which the API
  server itself takes care (``pods/binding``).
- kubelet: ``startTime`` and ``Ready: False`` when it takes a pod on; the time of a condition changes with its status
  alone (pkg/kubelet/status/status_manager.go, ``updateStatusInternal``); ``Ready`` follows ``ContainersReady``
  (generate.go); a pod goes once its containers have ended.
- node controller: of a node that does not answer ``Ready`` alone turns false (pkg/controller/util/node,
  ``MarkPodsNotReady``), then its pods are deleted and stay, since no kubelet confirms their end.
- LeaderWorkerSet (lws pkg/controllers): a leader StatefulSet and a worker StatefulSet for each group; with
  ``startupPolicy: LeaderReady`` the workers are created once the leader is ready (pod_controller.go); ``replicas``
  counts leaders, ``updatedReplicas`` groups whose workers were created (leaderworkerset_controller.go,
  ``updateConditions``).
- Dynamo's operator: a LeaderWorkerSet for all replicas of a component, and before that one of a single group for each,
  named ``NAME-INDEX`` (dynamocomponentdeployment_controller.go, ``reconcileLeaderWorkerSetResources``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.objects import timestamp

LWS = "leaderworkerset.sigs.k8s.io"
LABELS = {"nvidia.com/dynamo-graph-deployment-name": "llama", "nvidia.com/dynamo-component": "Decode"}
GROUP_SIZE = 2


@dataclass(frozen=True)
class Node:
    """A node's kubelet, and the controllers that speak for it."""

    place: Place
    name: str = "node-a"

    def bind(self, pod: str) -> None:
        """Have the scheduler bind a pod to this node, and its kubelet take it on."""
        target = {"apiVersion": "v1", "kind": "Node", "name": self.name}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": target}
        self.place.server.request("POST", self.place.path("v1", "Pod", pod, "binding"), binding)
        self._report(pod, startTime=timestamp(), ContainersReady=False, Ready=False)

    def ready(self, pod: str, *, ready: bool = True) -> None:
        """Report that the containers of a pod became ready, or stopped being."""
        self._report(pod, phase="Running", podIP="127.0.0.9", ContainersReady=ready, Ready=ready)

    def lose(self, *pods: str) -> None:
        """Turn pods not ready for a node that does not answer, and evict them: they stay."""
        for pod in pods:
            self._report(pod, Ready=False)
            self.place.server.request("DELETE", self.place.path("v1", "Pod", pod), {"gracePeriodSeconds": 1})

    def ended(self, pod: str) -> None:
        """Report that a pod that was deleted has ended."""
        self.place.delete("v1", "Pod", pod)

    def _report(self, pod: str, **status: Any) -> None:
        present = self.place.get("v1", "Pod", pod)["status"]
        conditions = {each["type"]: each for each in present.get("conditions") or ()}
        for kind in ("ContainersReady", "Ready"):
            said = str(status.pop(kind, conditions.get(kind, {}).get("status", False)))
            if conditions.get(kind, {}).get("status") != said:
                conditions[kind] = {"type": kind, "status": said, "lastTransitionTime": timestamp()}
        self.place.set_status("v1", "Pod", pod, {**status, "conditions": list(conditions.values())})


def unschedulable(place: Place, pod: str, message: str) -> None:
    """Have the scheduler find no node for a pod."""
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    place.set_status("v1", "Pod", pod, {"conditions": [{**said, "lastTransitionTime": timestamp()}]})


@dataclass(frozen=True)
class Groups:
    """The controllers of a multinode component of a graph: ``replicas`` groups of two pods.

    Args:
        place: Where the graph ``llama`` is, with a component ``Decode``.
        one_set: Whether one LeaderWorkerSet has all groups; else there is one for each.
        leader_first: Whether workers wait until their leader is ready.
    """

    place: Place
    one_set: bool
    leader_first: bool = False

    def reconcile(self, replicas: int) -> None:
        """One turn of all controllers: pods are created and deleted, and the status of the graph is written."""
        pods = {each["metadata"]["name"]: each for each in self.place.list("v1", "Pod")}
        for group in range(replicas):
            if self.leader(group) not in pods:
                self._create(group, 0)
            elif self.worker(group) not in pods and (not self.leader_first or _is_ready(pods[self.leader(group)])):
                self._create(group, 1)
        for name, pod in pods.items():
            number = int(name.split("-")[2 if not self.one_set else 3])
            if number >= replicas and "deletionTimestamp" not in pod["metadata"]:
                path = self.place.path("v1", "Pod", name)
                self.place.server.request("DELETE", path, {"gracePeriodSeconds": 60})
        self._report(replicas)

    def leader(self, group: int) -> str:
        """The name of a group's leader."""
        return f"llama-decode-0-{group}" if self.one_set else f"llama-decode-{group}-0"

    def worker(self, group: int) -> str:
        """The name of a group's worker."""
        return f"{self.leader(group)}-1"

    def _create(self, group: int, index: int) -> None:
        owner, number = ("llama-decode-0", group) if self.one_set else (f"llama-decode-{group}", 0)
        labels = {f"{LWS}/name": owner, f"{LWS}/group-index": str(number), f"{LWS}/worker-index": str(index), **LABELS}
        about = {"name": self.worker(group) if index else self.leader(group), "labels": labels}
        about["annotations"] = {f"{LWS}/size": str(GROUP_SIZE)}
        spec = {"containers": [{"name": "main", "image": "engine"}]}
        self.place.create({"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec})

    def _report(self, replicas: int) -> None:
        pods = {each["metadata"]["name"]: each for each in self.place.list("v1", "Pod")}
        leaders = [group for group in range(replicas) if self.leader(group) in pods]
        whole = [group for group in leaders if self.worker(group) in pods]
        ready = [g for g in whole if _is_ready(pods[self.leader(g)]) and _is_ready(pods[self.worker(g)])]
        counts = {"replicas": len(leaders), "updatedReplicas": len(whole), "readyReplicas": len(ready)}
        graph = self.place.get("nvidia.com/v1beta1", "DynamoGraphDeployment", "llama")
        status = {
            "observedGeneration": graph["metadata"]["generation"],
            "components": {"Decode": {**counts, "componentKind": "LeaderWorkerSet", "gpusPerReplica": 16}},
        }
        self.place.set_status("nvidia.com/v1beta1", "DynamoGraphDeployment", "llama", status)


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
