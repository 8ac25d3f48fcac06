"""What is scaled: how its state is found, read afresh before a write, and changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dynamo_planner.core.snapshot import Role
from dynamo_planner.executors.kubernetes.api import Api, ApiError
from dynamo_planner.executors.kubernetes.cluster import Cluster, Thing
from dynamo_planner.executors.kubernetes.containers import Container, of_component, of_template
from dynamo_planner.executors.kubernetes.graph import (
    COMPONENT_LABEL,
    GRAPH_LABEL,
    Component,
    adapter_target,
    component_of,
    gpus_of,
    read_component,
)
from dynamo_planner.executors.kubernetes.pool import CustomTarget, GraphTarget, Target, WorkloadTarget
from dynamo_planner.executors.kubernetes.replica_status import Reading, UnknownError
from dynamo_planner.executors.kubernetes.resources import GRAPH_GROUP, Resource, adapters
from dynamo_planner.executors.kubernetes.workload import read_scaled, read_workload, selector_of, workload_gpus

Reference = tuple[str, str, str]
"""The group, kind and name that a ``scaleTargetRef`` points to."""


@dataclass(frozen=True)
class Found:
    """A subject as it was listed. ``read`` gives its reading or raises :class:`UnknownError`, ``pods`` its pods.

    ``scaled`` is the object that holds its replicas: itself, or its scaling adapter.
    """

    thing: Thing
    scaled: Thing
    gpus: int | None
    read: Callable[[], Reading]
    pods: Callable[[], list[Thing]]


@dataclass(frozen=True)
class Fresh:
    """A subject as it is just before a write: the object or its scale, its replicas, and the change of these.

    ``patch`` holds the version that was read, so that the write fails where anything came in between.
    """

    thing: Thing
    replicas: int
    resource: Resource
    subresource: str
    patch: Callable[[int], Any]

    @property
    def uid(self) -> str:
        """What tells an object from another one that had its name before."""
        return str(self.thing["metadata"]["uid"])

    @property
    def name(self) -> str:
        """The name of the object that is written."""
        return str(self.thing["metadata"]["name"])


class Subject(Protocol):
    """Something whose replicas can be read and set."""

    namespace: str

    def find(self, cluster: Cluster) -> Found:
        """It, in what was listed. Raises :class:`ApiError`, or :class:`UnknownError` where it has no such part."""

    def fresh(self, api: Api) -> Fresh:
        """It, read now. Raises :class:`ApiError` and :class:`UnknownError`."""

    def references(self) -> frozenset[Reference]:
        """What an autoscaler's target would be, were it to scale the same."""

    def whole(self, api: Api) -> tuple[Thing, Resource]:
        """The object with the pod template, read now, and where it is. Raises :class:`ApiError`."""

    def container(self, thing: Thing, name: str | None) -> Container:
        """The engine's container in it. Raises :class:`UnknownError` and :class:`NotUnderstoodError`."""


def subject_of(target: Target, namespace: str, role: Role, cluster: Cluster) -> Subject:
    """What a pool's target stands for."""
    if isinstance(target, GraphTarget):
        return GraphSubject(target, namespace, role, cluster)
    return ScaleSubject(target, namespace, cluster)


class ScaleSubject:
    """An object with a scale subresource."""

    def __init__(self, target: WorkloadTarget | CustomTarget, namespace: str, cluster: Cluster) -> None:
        self.target, self.namespace = target, namespace
        cluster.expect(target.resource.plural, namespace, target.name)

    def references(self) -> frozenset[Reference]:
        return frozenset({(self.target.resource.group, self.target.kind, self.target.name)})

    def find(self, cluster: Cluster) -> Found:
        target = self.target
        thing = cluster.find(target.resource, self.namespace, target.name)
        if isinstance(target, WorkloadTarget):
            return Found(
                thing=thing,
                scaled=thing,
                gpus=workload_gpus(target.kind, thing),
                read=lambda: read_workload(target.kind, thing),
                pods=lambda: cluster.pods(self.namespace, selector_of(target.kind, thing)),
            )
        return Found(
            thing=thing,
            scaled=thing,
            gpus=None,
            read=lambda: read_scaled(thing, cluster.scale(target.resource, self.namespace, target.name)),
            pods=lambda: self._selected(cluster),
        )

    def whole(self, api: Api) -> tuple[Thing, Resource]:
        return api.get(self.target.resource, self.namespace, self.target.name), self.target.resource

    def container(self, thing: Thing, name: str | None) -> Container:
        return of_template("/spec/template", (thing.get("spec") or {}).get("template"), name)

    def _selected(self, cluster: Cluster) -> list[Thing]:
        scale = cluster.scale(self.target.resource, self.namespace, self.target.name)
        selector = (scale.get("status") or {}).get("selector")
        if not selector:
            raise UnknownError("its scale has no selector for its pods")
        return cluster.pods(self.namespace, selector)

    def fresh(self, api: Api) -> Fresh:
        scale = api.get(self.target.resource, self.namespace, self.target.name, "scale")
        replicas = int((scale.get("spec") or {}).get("replicas", 0))  # a Scale leaves out zero
        return _by_scale(scale, replicas, self.target.resource)


class GraphSubject:
    """A component of a DynamoGraphDeployment: scaled through its adapter, and without one in the graph."""

    def __init__(self, target: GraphTarget, namespace: str, role: Role, cluster: Cluster) -> None:
        self.target, self.namespace, self._role, self._cluster = target, namespace, role, cluster
        self._component = target.component
        self._graphs: Resource | None = None
        cluster.expect("dynamographdeployments", namespace, target.name)

    @property
    def _adapter_name(self) -> str:
        return f"{self.target.name}-{(self._component or '').lower()}"

    def references(self) -> frozenset[Reference]:
        adapter = (GRAPH_GROUP, "DynamoGraphDeploymentScalingAdapter", self._adapter_name)
        return frozenset({adapter, (GRAPH_GROUP, "DynamoGraphDeployment", self.target.name)})

    def _part(self, graph: Mapping[str, Any], graphs: Resource) -> Component:
        component = component_of(graph, self.target.component, self._role)
        self._graphs, self._component = graphs, component.name
        return component

    def find(self, cluster: Cluster) -> Found:
        graphs = cluster.graphs(self.namespace)
        graph = cluster.find(graphs, self.namespace, self.target.name)
        component = self._part(graph, graphs)
        adapter = self._adapter(cluster, adapters(graphs.version))
        target = adapter_target(adapter, self.target.name)

        def pods() -> list[Thing]:
            alone = cluster.is_alone(graphs.plural, self.namespace)
            of_graph = cluster.pods_with(self.namespace, GRAPH_LABEL, self.target.name, alone=alone)
            name = component.name.lower()
            return [pod for pod in of_graph if pod["metadata"]["labels"].get(COMPONENT_LABEL, "").lower() == name]

        return Found(
            thing=graph,
            scaled=graph if adapter is None or target is None else adapter,
            gpus=gpus_of(graph, component),
            read=lambda: read_component(graph, component, target),
            pods=pods,
        )

    def whole(self, api: Api) -> tuple[Thing, Resource]:
        graphs = self._graphs or self._cluster.graphs(self.namespace)
        return api.get(graphs, self.namespace, self.target.name), graphs

    def container(self, thing: Thing, name: str | None) -> Container:
        return of_component(component_of(thing, self.target.component, self._role), name)

    def _adapter(self, cluster: Cluster, resource: Resource) -> Thing | None:
        cluster.expect(resource.plural, self.namespace, self._adapter_name)
        try:
            return cluster.objects(resource, self.namespace).get(self._adapter_name)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def fresh(self, api: Api) -> Fresh:
        graphs = self._graphs or self._cluster.graphs(self.namespace)
        if self._component is None:
            self._part(api.get(graphs, self.namespace, self.target.name), graphs)
        scaled_by = adapters(graphs.version)
        try:
            adapter = api.get(scaled_by, self.namespace, self._adapter_name)
        except ApiError as error:
            if error.status != 404:
                raise
            return self._fresh_graph(api, graphs)
        replicas = adapter_target(adapter, self.target.name)
        if replicas is None:
            return self._fresh_graph(api, graphs)
        return _by_scale(adapter, replicas, scaled_by)

    def _fresh_graph(self, api: Api, graphs: Resource) -> Fresh:
        graph = api.get(graphs, self.namespace, self.target.name)
        component = self._part(graph, graphs)
        version = graph["metadata"]["resourceVersion"]

        def patch(wanted: int) -> Any:
            if component.index is None:
                services = {component.name: {"replicas": wanted}}
                return {"metadata": {"resourceVersion": version}, "spec": {"services": services}}
            place = f"/spec/components/{component.index}"
            return [
                {"op": "test", "path": f"{place}/name", "value": component.name},
                {"op": "add", "path": f"{place}/replicas", "value": wanted},
                {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
            ]

        return Fresh(graph, component.target, graphs, "", patch)


def _by_scale(thing: Thing, replicas: int, resource: Resource) -> Fresh:
    version = thing["metadata"]["resourceVersion"]

    def patch(wanted: int) -> Any:
        return {"metadata": {"resourceVersion": version}, "spec": {"replicas": wanted}}

    return Fresh(thing, replicas, resource, "scale", patch)


def changed_by(thing: Mapping[str, Any]) -> str | None:
    """Who last wrote the replicas of an object, as far as the server kept account of it."""
    entries = [
        entry
        for entry in thing["metadata"].get("managedFields") or ()
        if '"f:replicas"' in json.dumps(entry.get("fieldsV1", {}).get("f:spec"))
    ]
    latest = max(entries, key=lambda entry: entry.get("time", ""), default=None)
    return str(latest["manager"]) if latest else None
