"""Replicas, GPUs and pod selectors of Deployments, StatefulSets, LeaderWorkerSets and custom resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dynamo_planner.executors.kubernetes.pod_conditions import seconds
from dynamo_planner.executors.kubernetes.pods import template_gpus
from dynamo_planner.executors.kubernetes.replica_status import (
    ReplicaReport,
    ReplicasUnknownError,
    check_not_deleted,
    check_observed,
    condition,
    rollout_error,
)
from dynamo_planner.executors.kubernetes.troubles import Trouble

KubeObject = Mapping[str, Any]


def read_workload(kind: str, obj: KubeObject) -> ReplicaReport:
    """What a workload of a known kind reports.

    Raises :class:`ReplicasUnknownError` during a rollout, for a stale status, and while it is being deleted. A rollout
    that the controller no longer expects to progress (``ProgressDeadlineExceeded``), or that is paused, is not waited
    for.
    """
    check_not_deleted(obj)
    check_observed(obj)
    spec, status = obj.get("spec") or {}, obj["status"]
    report = ReplicaReport(
        target=int(spec.get("replicas", 1)),  # the API server fills it in, with 1
        ready=int(_available(spec, status)),
        blocked=_blocked(obj),
    )
    rollout = {"Deployment": _rollout_of_deployment, "StatefulSet": _rollout_of_stateful_set}.get(kind, _rollout)(obj)
    if not rollout:
        return report
    stopped = _stopped(obj) if kind == "Deployment" else None
    if stopped is None:
        raise rollout_error(rollout, report, _since_of_update(obj))
    return replace(report, rollout=stopped._replace(message=f"{rollout}: {stopped.message}"))


def _available(spec: KubeObject, status: KubeObject) -> int:
    """Replicas that are ready, and have been for ``minReadySeconds`` where these are set.

    A status leaves out what is 0. StatefulSets have both since Kubernetes 1.22.
    """
    otherwise = 0 if spec.get("minReadySeconds") else status.get("readyReplicas", 0)
    return int(status.get("availableReplicas", otherwise))


def _blocked(obj: KubeObject) -> Trouble | None:
    """Why its controller cannot create pods, such as for a quota."""
    failure = condition(obj, "ReplicaFailure")
    if failure.get("status") != "True" or not failure.get("lastTransitionTime"):
        return None
    said = ": ".join(part for part in (failure.get("reason"), failure.get("message")) if part)
    return Trouble("PodsNotCreated", f"its controller cannot create pods: {said}", _changed_s(failure))


def _stopped(obj: KubeObject) -> Trouble | None:
    """Why a Deployment's rollout does not go on, as its controller says: its deadline is over, or it is paused."""
    progress = condition(obj, "Progressing")
    if (obj.get("spec") or {}).get("paused"):
        return Trouble("RolloutPaused", "paused", _changed_s(progress))
    if progress.get("status") == "False" and progress.get("reason") == "ProgressDeadlineExceeded":
        return Trouble("RolloutStuck", f"{progress['reason']}: {progress.get('message')}", _changed_s(progress))
    return None


def _since_of_update(obj: KubeObject) -> float | None:
    """Since when a LeaderWorkerSet is being updated, as its condition says."""
    update = condition(obj, "UpdateInProgress")
    return _changed_s(update) if update.get("status") == "True" and update.get("lastTransitionTime") else None


def _changed_s(of: KubeObject) -> float:
    since = of.get("lastTransitionTime")
    return seconds(since) if since else 0.0


def read_scaled(obj: KubeObject, scale: KubeObject) -> ReplicaReport:
    """What a custom resource and its scale report."""
    check_not_deleted(obj)
    check_observed(obj)
    status = obj["status"]
    replicas = int((scale.get("spec") or {}).get("replicas", 0))  # a Scale leaves out zero
    report = ReplicaReport(target=replicas, ready=status.get("availableReplicas", status.get("readyReplicas")))
    rollout = _rollout(obj) or _updated(obj)
    if rollout:
        raise rollout_error(rollout, report, _since_of_update(obj))
    return report


def _rollout(obj: KubeObject) -> str | None:
    """A rollout by its condition alone.

    A LeaderWorkerSet counts a group as updated only once its workers are created, which with ``LeaderReady`` is after
    its leader loaded the model, and says itself when it is being updated (``updateConditions`` of its controller).
    """
    update = condition(obj, "UpdateInProgress")
    return str(update.get("message") or "UpdateInProgress") if update.get("status") == "True" else None


def _updated(obj: KubeObject) -> str | None:
    status = obj["status"]
    replicas, updated = status.get("replicas"), status.get("updatedReplicas")
    if None in (replicas, updated) or updated >= replicas:
        return None
    return f"{updated} of {replicas} replicas are updated"


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
