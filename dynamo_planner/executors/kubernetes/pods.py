"""The pods of a pool: since when replicas start, which cannot start, and which are terminating.

A replica is a pod, or a group of pods that start and end together (LeaderWorkerSet, Grove's scaling groups).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dynamo_planner.executors.kubernetes.pod_conditions import (
    changed_s,
    created_s,
    is_ready,
    is_terminating,
    was_ready,
)
from dynamo_planner.executors.kubernetes.troubles import PASSING, Trouble, trouble_of

INDEX_LABELS = {
    "leaderworkerset.sigs.k8s.io/group-index": "leaderworkerset.sigs.k8s.io/name",
    "grove.io/podcliquescalinggroup-replica-index": "grove.io/podcliquescalinggroup",
}
"""Labels with the index of a group, and those with the name of the set that the index counts in."""

LEADER_LABEL = "leaderworkerset.sigs.k8s.io/worker-index"
SIZE_ANNOTATION = "leaderworkerset.sigs.k8s.io/size"
STATEFUL_LABEL = "statefulset.kubernetes.io/pod-name"
PORT_ANNOTATION = "prometheus.io/port"

LEADER_FIRST_S = 60.0
"""A worker that was created within this after another pod of its group became ready had been waiting for it."""

LONGEST_START_S = 3600.0
"""A pod that is ready later than this after its creation had been ready before."""

Pod = Mapping[str, Any]


@dataclass(frozen=True)
class PodGroup:
    """The pods of one replica, as one: ready when all are, terminating or failed when one is.

    Args:
        ready: Whether all of its pods are there and ready.
        terminating: Whether its pods are being deleted.
        since_s: Since when it has been starting; of one that is ready or terminating, since when it has been there
            (Unix seconds).
        trouble: Why it cannot start, or does not end.
        ready_since_s: Since when all of its pods have been ready; ``None`` where they are not.
    """

    ready: bool
    terminating: bool
    since_s: float
    trouble: Trouble | None = None
    ready_since_s: float | None = None

    @property
    def started_s(self) -> float:
        """Since when a group that has only just become ready had been starting (Unix seconds).

        One that took an hour to become ready was ready before: 3 days after its creation, it started when it became
        ready again.
        """
        ready_s = self.since_s if self.ready_since_s is None else self.ready_since_s
        return self.since_s if ready_s - self.since_s <= LONGEST_START_S else ready_s

    def failed(self, at_s: float, after_s: float) -> bool:
        """Whether it has been unable to start for longer than ``after_s``."""
        trouble = self.trouble
        if trouble is None or self.terminating or trouble.code in PASSING:
            return False
        return at_s - trouble.since_s > after_s

    def overdue(self, at_s: float, after_s: float) -> bool:
        """Whether it should have ended: ``after_s`` ago, or on a node that does not answer, before now."""
        trouble = self.trouble
        if trouble is None or not self.terminating:
            return False
        return at_s - trouble.since_s > (0.0 if trouble.code == "NodeLost" else after_s)


def groups(pods: Iterable[Pod]) -> list[PodGroup]:
    """The replicas that these pods make up, oldest start first."""
    members: dict[tuple[bool, str, str], list[Pod]] = {}
    for pod in pods:
        members.setdefault((is_terminating(pod), *_group_of(pod)), []).append(pod)
    return sorted((_group(each) for each in members.values()), key=lambda group: group.since_s)


def _group_of(pod: Pod) -> tuple[str, str]:
    """The set and the index of a pod's group: an index is unique only within its set."""
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    index = next((label for label in INDEX_LABELS if label in labels), None)
    return ("", metadata["name"]) if index is None else (labels.get(INDEX_LABELS[index], ""), labels[index])


def _group(pods: list[Pod]) -> PodGroup:
    size = int((pods[0]["metadata"].get("annotations") or {}).get(SIZE_ANNOTATION, 0))
    ready = all(is_ready(pod) for pod in pods) and len(pods) >= size
    terminating = is_terminating(pods[0])
    troubles = [trouble for pod in pods if (trouble := trouble_of(pod)) is not None]
    return PodGroup(
        ready=ready,
        terminating=terminating,
        since_s=min(map(created_s, pods)) if ready or terminating else _starting_since_s(pods),
        trouble=min(troubles, key=lambda trouble: (trouble.code in PASSING, trouble.since_s), default=None),
        ready_since_s=max(map(changed_s, pods)) if ready else None,
    )


def _starting_since_s(pods: list[Pod]) -> float:
    """Since when a group has been starting: since the first of its pods that are not ready has.

    Where a leader has to be ready before its workers are created (``startupPolicy: LeaderReady``), since the leader
    was. A member that comes anew in an old group starts by itself.
    """
    ready = [pod for pod in pods if is_ready(pod)]
    waiting = [pod for pod in pods if not is_ready(pod)]
    if not waiting:  # the other members are still to be created
        return min(map(created_s, pods))
    first_s = min(changed_s(pod) if was_ready(pod) else created_s(pod) for pod in waiting)
    return min([first_s, *(created_s(pod) for pod in ready if 0 <= first_s - changed_s(pod) <= LEADER_FIRST_S)])


def is_member(pod: Pod) -> bool:
    """Whether a pod is one of a group, or of a StatefulSet, which end by their index."""
    labels = pod["metadata"].get("labels") or {}
    return STATEFUL_LABEL in labels or any(label in labels for label in INDEX_LABELS)


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


def template_gpus(template: Mapping[str, Any] | None) -> int | None:
    """The GPUs that the containers of a pod template are limited to, or ``None`` where it names none."""
    containers = ((template or {}).get("spec") or {}).get("containers") or ()
    limits = [(each.get("resources") or {}).get("limits") or {} for each in containers]
    return sum(int(n) for each in limits for name, n in each.items() if name.endswith("/gpu")) or None
