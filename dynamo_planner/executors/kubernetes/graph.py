"""Components, replicas and GPUs of a DynamoGraphDeployment, in each of its shapes.

==================  =======================================  ==============================  =====================
shape               components                               a component's role              ``replicas`` left out
==================  =======================================  ==============================  =====================
``v1beta1``         ``spec.components``, a list with names   ``type``                        0
early ``v1beta1``   ``spec.services``, a map                 ``subComponentType``, else      1
                                                             ``componentType``
``v1alpha1``        ``spec.services``, a map                 as above                        1
==================  =======================================  ==============================  =====================

The shape shows in the fields of the spec, since both versions once had ``services``. A missing ``replicas`` means what
Dynamo's own planner takes it for: 0 since ``spec.components`` (1.x), 1 before (0.x).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dynamo_planner.core.snapshot import Role
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

GRAPH_LABEL = "nvidia.com/dynamo-graph-deployment-name"
COMPONENT_LABEL = "nvidia.com/dynamo-component"

_SETTLED_PHASES = (None, "", "Completed")

_GROUPED = ("PodCliqueScalingGroup", "LeaderWorkerSet")
"""Kinds whose ``updatedReplicas`` leave out groups that start: Grove counts those ready, LeaderWorkerSet those whose
workers were created."""


@dataclass(frozen=True)
class GraphComponent:
    """One component of a graph. ``index`` is its place in ``spec.components``, or ``None`` in ``spec.services``."""

    name: str
    kind: str | None
    index: int | None
    spec: Mapping[str, Any]

    @property
    def target(self) -> int:
        """The replicas in the graph's spec, or what the lack of a number means."""
        replicas = self.spec.get("replicas")
        default = 1 if self.index is None else 0
        return int(replicas) if replicas is not None else default


def components(graph: Mapping[str, Any]) -> dict[str, GraphComponent]:
    """The components of a graph by name. Raises :class:`ReplicasUnknownError` for a spec of no known shape."""
    spec = graph.get("spec") or {}
    if isinstance(listed := spec.get("components"), list):
        return {each["name"]: GraphComponent(each["name"], each.get("type"), n, each) for n, each in enumerate(listed)}
    if isinstance(mapped := spec.get("services"), Mapping):
        kinds = {name: each.get("subComponentType") or each.get("componentType") for name, each in mapped.items()}
        return {name: GraphComponent(name, kinds[name], None, each) for name, each in mapped.items()}
    raise ReplicasUnknownError("its spec has neither components nor services: there is no known shape of it")


def component_of(graph: Mapping[str, Any], name: str | None, role: Role) -> GraphComponent:
    """The component of this name, or the only one that has the role. Raises :class:`ReplicasUnknownError`.

    A component of the general type ``worker`` is aggregated, or decodes where others do the prefill; an only one of
    type ``decode`` beside no prefill is aggregated too.
    """
    there = components(graph)
    if name is not None:
        if name not in there:
            raise ReplicasUnknownError(f"it has no component {name!r}; it has {_listed(there)}")
        return there[name]
    of = {kind: [each for each in there.values() if each.kind == kind] for kind in ("prefill", "decode", "worker")}
    if role == "prefill":
        found = of["prefill"]
    elif role == "decode":
        found = of["decode"] or of["worker"]
    else:
        found = of["worker"] or ([] if of["prefill"] else of["decode"])
    if len(found) != 1:
        many = "several components" if found else "no component"
        raise ReplicasUnknownError(f"it has {many} of the role {role}, give target.component: it has {_listed(there)}")
    return found[0]


def _listed(there: Mapping[str, GraphComponent]) -> str:
    return ", ".join(f"{each.name} ({each.kind or 'no type'})" for each in there.values()) or "none"


def read_component(graph: Mapping[str, Any], component: GraphComponent, target: int | None = None) -> ReplicaReport:
    """What a graph reports of one component; ``target`` is that of its scaling adapter, where it has one.

    Raises :class:`ReplicasUnknownError` while a rollout is under way, where the status is not of this generation, and
    while the graph is being deleted. A rollout that the operator gave up (phase ``Failed``: Dynamo's operator leaves it
    as it is) is not waited for.
    """
    check_not_deleted(graph)
    check_observed(graph)
    status = graph["status"]
    counts = _counts(status, component.name)
    wanted = component.target if target is None else target
    ready = counts.get("availableReplicas", counts.get("readyReplicas")) if counts else None
    report = ReplicaReport(target=wanted, ready=ready, blocked=_blocked(graph), rollout=_given_up(graph))
    if report.rollout is None:
        _check_no_rollout(graph, report, counts)
    replicas = counts.get("replicas")
    if target is None and component.spec.get("replicas") is None and replicas not in {None, wanted}:
        raise ReplicasUnknownError(f"spec.replicas is left out, which means {wanted}, and there are {replicas}: set it")
    return report


def _blocked(graph: Mapping[str, Any]) -> Trouble | None:
    """Why the operator cannot create what the graph requests, where it says that it failed."""
    if graph["status"].get("state") != "failed":
        return None
    ready = condition(graph, "Ready")
    since = ready.get("lastTransitionTime") or graph["metadata"]["creationTimestamp"]
    said = ": ".join(part for part in (ready.get("reason"), ready.get("message")) if part)
    return Trouble(
        "OperatorFailed", f"its operator reports that it failed: {said or 'no reason given'}", seconds(since)
    )


def _given_up(graph: Mapping[str, Any]) -> Trouble | None:
    rolling = graph["status"].get("rollingUpdate") or {}
    if rolling.get("phase") != "Failed":
        return None
    since = rolling.get("endTime") or rolling.get("startTime") or graph["metadata"]["creationTimestamp"]
    return Trouble("RolloutFailed", "the operator gave its rolling update up (Failed)", seconds(since))


def _check_no_rollout(graph: Mapping[str, Any], report: ReplicaReport, counts: Mapping[str, Any]) -> None:
    """Raise :class:`ReplicasUnknownError` for a rollout that is in progress."""
    rolling = graph["status"].get("rollingUpdate") or {}
    phase, ready = rolling.get("phase"), condition(graph, "Ready")
    if phase not in _SETTLED_PHASES:
        since = rolling.get("startTime")
        raise rollout_error(phase, report, seconds(since) if since else None)
    if ready.get("status") == "False" and ready.get("reason") == "updating":
        raise rollout_error(ready.get("message") or "updating", report)
    replicas, updated = counts.get("replicas"), counts.get("updatedReplicas")
    grouped = counts.get("componentKind") in _GROUPED
    if updated is not None and replicas is not None and updated < replicas and not grouped:
        raise rollout_error(f"{updated} of {replicas} replicas are updated", report)


def _counts(status: Mapping[str, Any], component: str) -> Mapping[str, Any]:
    by_name = status.get("components") or status.get("services") or {}
    return by_name.get(component) or {}


def gpus_of(graph: Mapping[str, Any], component: GraphComponent) -> int | None:
    """GPUs per replica: of the status if it is of this generation, else the limits of its containers on all nodes."""
    status, metadata = graph.get("status") or {}, graph["metadata"]
    counts = _counts(status, component.name)
    if "gpusPerReplica" in counts and status.get("observedGeneration", -1) >= metadata.get("generation", 0):
        return int(counts["gpusPerReplica"])
    nodes = int((component.spec.get("multinode") or {}).get("nodeCount", 1))
    resources = component.spec.get("resources") or {}
    limit = (resources.get("limits") or {}).get("gpu") or (resources.get("requests") or {}).get("gpu")
    each = int(limit) if limit else template_gpus(component.spec.get("podTemplate"))
    return nodes * each if each else None


def adapter_target(adapter: Mapping[str, Any] | None, graph: str) -> int | None:
    """The replicas that a scaling adapter requests, or ``None`` where it is not one of this graph."""
    spec = (adapter or {}).get("spec") or {}
    of = (spec.get("dgdRef") or {}).get("name")
    return spec.get("replicas") if of in {None, graph} else None
