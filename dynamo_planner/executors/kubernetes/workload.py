"""Replicas, GPUs and pod selectors of Deployments, StatefulSets, LeaderWorkerSets and custom resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamo_planner.executors.kubernetes.pods import seconds, template_gpus
from dynamo_planner.executors.kubernetes.replica_status import (
    ReplicaReport,
    ReplicasUnknownError,
    check_observed,
    condition,
)

KubeObject = Mapping[str, Any]


def read_workload(kind: str, obj: KubeObject) -> ReplicaReport:
    """What a workload of a known kind reports.

    Raises :class:`ReplicasUnknownError` during a rollout and for a stale status.
    """
    check_observed(obj)
    status = obj["status"]
    rollout = {"Deployment": _rollout_of_deployment, "StatefulSet": _rollout_of_stateful_set}.get(kind, _rollout)(obj)
    if rollout:
        raise ReplicasUnknownError(f"a rollout is in progress ({rollout})")
    ready = status.get("availableReplicas", status.get("readyReplicas", 0))
    blocked = condition(obj, "ReplicaFailure")
    since = blocked.get("lastTransitionTime") if blocked.get("status") == "True" else None
    return ReplicaReport(
        target=int((obj.get("spec") or {}).get("replicas", 1)),  # the API server fills it in, with 1
        ready=int(ready),
        blocked_since_s=seconds(since) if since else None,
    )


def read_scaled(obj: KubeObject, scale: KubeObject) -> ReplicaReport:
    """What a custom resource and its scale report."""
    check_observed(obj)
    rollout = _rollout(obj)
    if rollout:
        raise ReplicasUnknownError(f"a rollout is in progress ({rollout})")
    status = obj["status"]
    replicas = int((scale.get("spec") or {}).get("replicas", 0))  # a Scale leaves out zero
    return ReplicaReport(target=replicas, ready=status.get("availableReplicas", status.get("readyReplicas")))


def _rollout(obj: KubeObject) -> str | None:
    status = obj["status"]
    if condition(obj, "UpdateInProgress").get("status") == "True":
        return str(condition(obj, "UpdateInProgress").get("message") or "UpdateInProgress")
    replicas, updated = status.get("replicas"), status.get("updatedReplicas")
    return (
        f"{updated} of {replicas} replicas are updated"
        if None not in (replicas, updated) and updated < replicas
        else None
    )


def _rollout_of_deployment(obj: KubeObject) -> str | None:
    """Replicas of an older template, as ``kubectl rollout status`` counts them."""
    replicas, updated = obj["status"].get("replicas", 0), obj["status"].get("updatedReplicas", 0)
    return f"{updated} of {replicas} replicas are updated" if updated < replicas else None


def _rollout_of_stateful_set(obj: KubeObject) -> str | None:
    """Two revisions, where the controller is to make them one: not with ``OnDelete``, nor with a partition."""
    strategy = (obj.get("spec") or {}).get("updateStrategy") or {}
    lasting = strategy.get("type") == "OnDelete" or (strategy.get("rollingUpdate") or {}).get("partition")
    current, update = obj["status"].get("currentRevision"), obj["status"].get("updateRevision")
    return None if lasting or current == update else f"from revision {current} to {update}"


def workload_gpus(kind: str, obj: KubeObject) -> int | None:
    """The GPUs of one replica: of a pod, or of all pods of a group. ``None`` where no container is limited to any."""
    spec = obj.get("spec") or {}
    if kind != "LeaderWorkerSet":
        return template_gpus(spec.get("template"))
    group = spec.get("leaderWorkerTemplate") or {}
    worker = template_gpus(group.get("workerTemplate"))
    leader = template_gpus(group["leaderTemplate"]) if group.get("leaderTemplate") else worker
    return (leader or 0) + (worker or 0) * (int(group.get("size", 1)) - 1) or None


def selector_of(kind: str, obj: KubeObject) -> str:
    """The label selector of the pods of a workload of a known kind. Raises :class:`ReplicasUnknownError`."""
    if kind == "LeaderWorkerSet":
        return f"leaderworkerset.sigs.k8s.io/name={obj['metadata']['name']}"
    selector = (obj.get("spec") or {}).get("selector") or {}
    terms = [f"{label}={value}" for label, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        values = f"({','.join(each['values'])})" if each.get("values") else ""
        negated = "!" if each["operator"] == "DoesNotExist" else ""
        operator = {"In": " in ", "NotIn": " notin "}.get(each["operator"], "")
        terms.append(f"{negated}{each['key']}{operator}{values}")
    if not terms:
        raise ReplicasUnknownError("it has no selector for its pods")
    return ",".join(terms)
