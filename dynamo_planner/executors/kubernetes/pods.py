"""The pods of a pool: since when replicas start, which cannot start, and which are terminating.

A replica is a pod, or a group of pods that start and end together (LeaderWorkerSet, Grove's scaling groups).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

GROUP_LABELS = ("leaderworkerset.sigs.k8s.io/group-index", "grove.io/podcliquescalinggroup-replica-index")
LEADER_LABEL = "leaderworkerset.sigs.k8s.io/worker-index"
PORT_ANNOTATION = "prometheus.io/port"

Pod = Mapping[str, Any]

_CANNOT_START = {
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}
_CRASHES_ENOUGH = 3  # restarts of a container that runs for a moment between two crashes


@dataclass(frozen=True)
class PodGroup:
    """The pods of one replica, as one: ready when all are, terminating or failed when one is."""

    ready: bool
    terminating: bool
    since_s: float
    """Since when it has been starting (Unix seconds), where it is not ready."""
    trouble: str | None
    trouble_since_s: float

    def failed(self, at_s: float, after_s: float) -> bool:
        """Whether it has been unable to start for longer than ``after_s``."""
        return self.trouble is not None and not self.terminating and at_s - self.trouble_since_s > after_s


def groups(pods: Iterable[Pod]) -> list[PodGroup]:
    """The replicas that these pods make up, oldest start first."""
    members: dict[str, list[Pod]] = {}
    for pod in pods:
        members.setdefault(_group_of(pod), []).append(pod)
    return sorted((_group(each) for each in members.values()), key=lambda group: group.since_s)


def _group_of(pod: Pod) -> str:
    labels = pod["metadata"].get("labels", {})
    index = next((f"group {labels[label]}" for label in GROUP_LABELS if label in labels), None)
    terminating = "terminating " if is_terminating(pod) else ""
    return f"{terminating}{index or pod['metadata']['name']}"


def _group(pods: list[Pod]) -> PodGroup:
    troubles = [(pod["metadata"]["name"], why) for pod in pods if (why := _trouble(pod)) is not None]
    return PodGroup(
        ready=all(is_ready(pod) for pod in pods),
        terminating=is_terminating(pods[0]),
        since_s=min(_starting_since_s(pod) for pod in pods),
        trouble=f"pod {troubles[0][0]}: {troubles[0][1][0]}" if troubles else None,
        trouble_since_s=min((since for _, (_, since) in troubles), default=0.0),
    )


def is_ready(pod: Pod) -> bool:
    """Whether a pod is ready, and so takes requests."""
    return not is_terminating(pod) and _condition(pod, "Ready").get("status") == "True"


def is_terminating(pod: Pod) -> bool:
    """Whether a pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def is_group_leader(pod: Pod) -> bool:
    """Whether a pod is the one of its group that serves; a pod of no group is."""
    return bool((pod["metadata"].get("labels") or {}).get(LEADER_LABEL, "0") == "0")


def host_of(pod: Pod) -> str:
    """The address of a pod, as it stands in a URL."""
    address = str(pod["status"]["podIP"])
    return f"[{address}]" if ":" in address else address


def port_of(pod: Pod, otherwise: int) -> str:
    """The port of a pod's metrics: that of its annotation, where it has one."""
    return str((pod["metadata"].get("annotations") or {}).get(PORT_ANNOTATION, otherwise))


def _condition(pod: Pod, kind: str) -> Mapping[str, Any]:
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == kind), {})


def _restarts(pod: Pod) -> int:
    return sum(each.get("restartCount", 0) for each in pod.get("status", {}).get("containerStatuses") or ())


def _starting_since_s(pod: Pod) -> float:
    """When a pod was created; for one whose container was started again, when it was last ready."""
    created_s = seconds(pod["metadata"]["creationTimestamp"])
    return _not_ready_since_s(pod) if _restarts(pod) else created_s


def _not_ready_since_s(pod: Pod) -> float:
    changed = _condition(pod, "Ready").get("lastTransitionTime")
    return seconds(changed or pod["metadata"]["creationTimestamp"])


def _trouble(pod: Pod) -> tuple[str, float] | None:
    """Why a pod cannot start, and since when it has not been able to."""
    if is_ready(pod):
        return None
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        since = scheduled.get("lastTransitionTime") or pod["metadata"]["creationTimestamp"]
        return _with_message("Unschedulable", scheduled), seconds(since)
    status = pod.get("status", {})
    for container in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        waiting = container.get("state", {}).get("waiting") or {}
        ended = container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated") or {}
        if waiting.get("reason") in _CANNOT_START:
            return _with_message(waiting["reason"], waiting), _not_ready_since_s(pod)
        if container.get("restartCount", 0) >= _CRASHES_ENOUGH and ended.get("exitCode"):
            return _with_message(f"crashed {container['restartCount']} times", ended), _not_ready_since_s(pod)
    return None


def _with_message(reason: str, of: Mapping[str, Any]) -> str:
    message = str(of.get("message", "")).strip()
    return f"{reason}: {message[:200]}" if message else reason


def seconds(timestamp: str) -> float:
    """Unix seconds of a time as Kubernetes writes it.

    >>> seconds("2026-01-02T03:04:05Z")
    1767323045.0
    """
    return datetime.fromisoformat(timestamp).timestamp()


def template_gpus(template: Mapping[str, Any] | None) -> int | None:
    """The GPUs that the containers of a pod template are limited to, or ``None`` where it names none."""
    containers = ((template or {}).get("spec") or {}).get("containers") or ()
    limits = [(each.get("resources") or {}).get("limits") or {} for each in containers]
    return sum(int(n) for each in limits for name, n in each.items() if name.endswith("/gpu")) or None
