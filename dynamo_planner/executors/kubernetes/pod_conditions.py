"""The conditions of a pod, and since when they are what they are."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Pod = Mapping[str, Any]

FIRST_REPORT_S = 5.0
"""A Ready condition that turned false later than this after the pod's start had been true before (seconds)."""


def seconds(timestamp: str) -> float:
    """Unix seconds of a time as Kubernetes writes it.

    >>> seconds("2026-01-02T03:04:05Z")
    1767323045.0
    """
    return datetime.fromisoformat(timestamp).timestamp()


def pod_condition(pod: Pod, kind: str) -> Mapping[str, Any]:
    """A condition of a pod; empty where it has none of that type."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == kind), {})


def is_ready(pod: Pod) -> bool:
    """Whether a pod is ready, and so takes requests."""
    return not is_terminating(pod) and pod_condition(pod, "Ready").get("status") == "True"


def is_terminating(pod: Pod) -> bool:
    """Whether a pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def created_s(pod: Pod) -> float:
    """When a pod was created (Unix seconds)."""
    return seconds(pod["metadata"]["creationTimestamp"])


def changed_s(pod: Pod) -> float:
    """When a pod last became ready, or stopped being ready (Unix seconds); its creation where that is not said."""
    changed = pod_condition(pod, "Ready").get("lastTransitionTime")
    return seconds(changed) if changed else created_s(pod)


def was_ready(pod: Pod) -> bool:
    """Whether a pod that is not ready was ready before.

    A kubelet writes ``Ready: False`` when it takes a pod on, and the time of that stays until the pod becomes ready. So
    a time that is later than the pod's start is that of a readiness that ended.
    """
    scheduled = pod_condition(pod, "PodScheduled").get("lastTransitionTime")
    started = [time for time in ((pod.get("status") or {}).get("startTime"), scheduled) if time]
    begun_s = max([created_s(pod), *map(seconds, started)])
    return not is_ready(pod) and changed_s(pod) > begun_s + FIRST_REPORT_S


def is_node_lost(pod: Pod) -> bool:
    """Whether a pod's node no longer answers.

    The node controller then turns ``Ready`` alone to false (``MarkPodsNotReady`` in pkg/controller/util/node of
    Kubernetes), while a kubelet never says so of a pod whose containers are ready, but for a readiness gate.
    """
    ready, containers = pod_condition(pod, "Ready"), pod_condition(pod, "ContainersReady")
    if (pod.get("status") or {}).get("reason") == "NodeLost" or ready.get("status") == "Unknown":
        return True
    by_gate = ready.get("reason") == "ReadinessGatesNotReady"
    return ready.get("status") == "False" and containers.get("status") == "True" and not by_gate
