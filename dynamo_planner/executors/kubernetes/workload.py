"""Reading what is scaled as a whole: Deployments, StatefulSets, LeaderWorkerSets, custom resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamo_planner.executors.kubernetes.pods import seconds, template_gpus
from dynamo_planner.executors.kubernetes.replica_status import Reading, UnknownError, check_observed, condition

Thing = Mapping[str, Any]


def read_workload(kind: str, thing: Thing) -> Reading:
    """What a workload of a known kind says. Raises :class:`UnknownError` during a rollout and for a stale status."""
    check_observed(thing)
    status = thing["status"]
    rollout = {"Deployment": _rollout_of_deployment, "StatefulSet": _rollout_of_stateful_set}.get(kind, _rollout)(thing)
    if rollout:
        raise UnknownError(f"a rollout is in progress ({rollout})")
    ready = status.get("availableReplicas", status.get("readyReplicas", 0))
    blocked = condition(thing, "ReplicaFailure")
    since = blocked.get("lastTransitionTime") if blocked.get("status") == "True" else None
    return Reading(
        target=int((thing.get("spec") or {}).get("replicas", 1)),  # the API server fills it in, with 1
        ready=int(ready),
        blocked_since_s=seconds(since) if since else None,
    )


def read_scaled(thing: Thing, scale: Thing) -> Reading:
    """What a custom resource and its scale say."""
    check_observed(thing)
    rollout = _rollout(thing)
    if rollout:
        raise UnknownError(f"a rollout is in progress ({rollout})")
    status = thing["status"]
    replicas = int((scale.get("spec") or {}).get("replicas", 0))  # a Scale leaves out zero
    return Reading(target=replicas, ready=status.get("availableReplicas", status.get("readyReplicas")))


def _rollout(thing: Thing) -> str | None:
    status = thing["status"]
    if condition(thing, "UpdateInProgress").get("status") == "True":
        return str(condition(thing, "UpdateInProgress").get("message") or "UpdateInProgress")
    replicas, updated = status.get("replicas"), status.get("updatedReplicas")
    return (
        f"{updated} of {replicas} replicas are updated"
        if None not in (replicas, updated) and updated < replicas
        else None
    )


def _rollout_of_deployment(thing: Thing) -> str | None:
    """Replicas of an older template, as ``kubectl rollout status`` looks for them."""
    replicas, updated = thing["status"].get("replicas", 0), thing["status"].get("updatedReplicas", 0)
    return f"{updated} of {replicas} replicas are updated" if updated < replicas else None


def _rollout_of_stateful_set(thing: Thing) -> str | None:
    """Two revisions, where the controller is to make them one: not with ``OnDelete``, nor with a partition."""
    strategy = (thing.get("spec") or {}).get("updateStrategy") or {}
    lasting = strategy.get("type") == "OnDelete" or (strategy.get("rollingUpdate") or {}).get("partition")
    current, update = thing["status"].get("currentRevision"), thing["status"].get("updateRevision")
    return None if lasting or current == update else f"from revision {current} to {update}"


def workload_gpus(kind: str, thing: Thing) -> int | None:
    """The GPUs of one replica: of a pod, or of all pods of a group. ``None`` where no container is limited to any."""
    spec = thing.get("spec") or {}
    if kind != "LeaderWorkerSet":
        return template_gpus(spec.get("template"))
    group = spec.get("leaderWorkerTemplate") or {}
    worker = template_gpus(group.get("workerTemplate"))
    leader = template_gpus(group["leaderTemplate"]) if group.get("leaderTemplate") else worker
    return (leader or 0) + (worker or 0) * (int(group.get("size", 1)) - 1) or None


def selector_of(kind: str, thing: Thing) -> str:
    """The label selector of the pods of a workload of a known kind. Raises :class:`UnknownError`."""
    if kind == "LeaderWorkerSet":
        return f"leaderworkerset.sigs.k8s.io/name={thing['metadata']['name']}"
    selector = (thing.get("spec") or {}).get("selector") or {}
    terms = [f"{label}={value}" for label, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        values = f"({','.join(each['values'])})" if each.get("values") else ""
        negated = "!" if each["operator"] == "DoesNotExist" else ""
        operator = {"In": " in ", "NotIn": " notin "}.get(each["operator"], "")
        terms.append(f"{negated}{each['key']}{operator}{values}")
    if not terms:
        raise UnknownError("it has no selector for its pods")
    return ",".join(terms)
