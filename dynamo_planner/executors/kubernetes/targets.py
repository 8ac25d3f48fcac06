"""Targets whose replicas are scaled: listed in a tick, fetched again before a write, and patched."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dynamo_planner.core.snapshot import Role
from dynamo_planner.executors.kubernetes.api import Api
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.cluster import Cluster, KubeObject
from dynamo_planner.executors.kubernetes.container_args import (
    Container,
    container_of_component,
    container_of_template,
)
from dynamo_planner.executors.kubernetes.graph import (
    COMPONENT_LABEL,
    GRAPH_LABEL,
    GraphComponent,
    adapter_target,
    component_of,
    gpus_of,
    read_component,
)
from dynamo_planner.executors.kubernetes.pool import CustomTarget, GraphTarget, Target, WorkloadTarget
from dynamo_planner.executors.kubernetes.replica_status import ReplicaReport, ReplicasUnknownError
from dynamo_planner.executors.kubernetes.resources import GRAPH_GROUP, Resource, adapters
from dynamo_planner.executors.kubernetes.workload import read_scaled, read_workload, selector_of, workload_gpus

Reference = tuple[str, str, str]
"""The group, kind and name that a ``scaleTargetRef`` points to."""


@dataclass(frozen=True)
class ListedTarget:
    """A target as it was listed in this tick.

    Args:
        obj: The object.
        scaled: The object that holds its replicas: itself, or its scaling adapter.
        gpus: GPUs per replica, or ``None`` where the object does not say.
        read: Returns what it reports of its replicas, or raises :class:`ReplicasUnknownError`.
        pods: Lists its pods, or raises :class:`ApiError`.
    """

    obj: KubeObject
    scaled: KubeObject
    gpus: int | None
    read: Callable[[], ReplicaReport]
    pods: Callable[[], list[KubeObject]]


@dataclass(frozen=True)
class FetchedTarget:
    """A target as it was fetched just before a write.

    Args:
        obj: The object, or its scale.
        replicas: Its replicas.
        resource: The kind of object that is written.
        subresource: ``"scale"``, or empty for the object itself.
        patch: The patch to other replicas. It holds the version that was read, so that the write fails where anything
            came in between.
    """

    obj: KubeObject
    replicas: int
    resource: Resource
    subresource: str
    patch: Callable[[int], Any]

    @property
    def uid(self) -> str:
        """The object's uid, which another object of the same name does not have."""
        return str(self.obj["metadata"]["uid"])

    @property
    def name(self) -> str:
        """The name of the object that is written."""
        return str(self.obj["metadata"]["name"])


class ScaleTarget(Protocol):
    """An object, or a part of one, whose replicas can be read and set."""

    namespace: str
    whole_name: str
    """The kind and name of the object, which other targets may be parts of."""

    def find(self, cluster: Cluster) -> ListedTarget:
        """The target in this tick.

        Raises :class:`ApiError`, and :class:`ReplicasUnknownError` where it has no such part.
        """

    def fetch(self, api: Api) -> FetchedTarget:
        """The target, read now. Raises :class:`ApiError` and :class:`ReplicasUnknownError`."""

    def references(self) -> frozenset[Reference]:
        """The references by which an autoscaler would scale the same target."""

    def whole(self, api: Api) -> tuple[KubeObject, Resource]:
        """The object with the pod template, read now, and its resource. Raises :class:`ApiError`."""

    def container(self, obj: KubeObject, name: str | None) -> Container:
        """The engine's container in it. Raises :class:`ReplicasUnknownError` and :class:`UnsupportedManifestError`."""


def scale_target_of(target: Target, namespace: str, role: Role, cluster: Cluster) -> ScaleTarget:
    """The target of a pool, for reading and writing."""
    if isinstance(target, GraphTarget):
        return GraphScaleTarget(target, namespace, role, cluster)
    return SubresourceScaleTarget(target, namespace, cluster)


class SubresourceScaleTarget:
    """An object with a scale subresource."""

    def __init__(self, target: WorkloadTarget | CustomTarget, namespace: str, cluster: Cluster) -> None:
        self.target, self.namespace = target, namespace
        self.whole_name = f"{target.kind} {target.name}"
        cluster.expect(target.resource.plural, namespace, target.name)

    def references(self) -> frozenset[Reference]:
        return frozenset({(self.target.resource.group, self.target.kind, self.target.name)})

    def find(self, cluster: Cluster) -> ListedTarget:
        target = self.target
        obj = cluster.find(target.resource, self.namespace, target.name)
        if isinstance(target, WorkloadTarget):
            return ListedTarget(
                obj=obj,
                scaled=obj,
                gpus=workload_gpus(target.kind, obj),
                read=lambda: read_workload(target.kind, obj),
                pods=lambda: cluster.pods(self.namespace, selector_of(target.kind, obj)),
            )
        return ListedTarget(
            obj=obj,
            scaled=obj,
            gpus=None,
            read=lambda: read_scaled(obj, cluster.scale(target.resource, self.namespace, target.name)),
            pods=lambda: self._selected(cluster),
        )

    def whole(self, api: Api) -> tuple[KubeObject, Resource]:
        return api.get(self.target.resource, self.namespace, self.target.name), self.target.resource

    def container(self, obj: KubeObject, name: str | None) -> Container:
        return container_of_template("/spec/template", (obj.get("spec") or {}).get("template"), name)

    def _selected(self, cluster: Cluster) -> list[KubeObject]:
        scale = cluster.scale(self.target.resource, self.namespace, self.target.name)
        selector = (scale.get("status") or {}).get("selector")
        if not selector:
            raise ReplicasUnknownError("its scale has no selector for its pods")
        return cluster.pods(self.namespace, selector)

    def fetch(self, api: Api) -> FetchedTarget:
        scale = api.get(self.target.resource, self.namespace, self.target.name, "scale")
        replicas = int((scale.get("spec") or {}).get("replicas", 0))  # a Scale leaves out zero
        return _by_scale(scale, replicas, self.target.resource)


class GraphScaleTarget:
    """A component of a DynamoGraphDeployment: scaled through its adapter, and without one in the graph."""

    def __init__(self, target: GraphTarget, namespace: str, role: Role, cluster: Cluster) -> None:
        self.target, self.namespace, self._role, self._cluster = target, namespace, role, cluster
        self.whole_name = f"{target.kind} {target.name}"
        self._component = target.component
        self._graphs: Resource | None = None
        cluster.expect("dynamographdeployments", namespace, target.name)

    @property
    def _adapter_name(self) -> str:
        return f"{self.target.name}-{(self._component or '').lower()}"

    def references(self) -> frozenset[Reference]:
        adapter = (GRAPH_GROUP, "DynamoGraphDeploymentScalingAdapter", self._adapter_name)
        return frozenset({adapter, (GRAPH_GROUP, "DynamoGraphDeployment", self.target.name)})

    def _part(self, graph: Mapping[str, Any], graphs: Resource) -> GraphComponent:
        component = component_of(graph, self.target.component, self._role)
        self._graphs, self._component = graphs, component.name
        return component

    def find(self, cluster: Cluster) -> ListedTarget:
        graphs = cluster.graphs(self.namespace)
        graph = cluster.find(graphs, self.namespace, self.target.name)
        component = self._part(graph, graphs)
        adapter = self._adapter(cluster, adapters(graphs.version))
        target = adapter_target(adapter, self.target.name)

        def pods() -> list[KubeObject]:
            alone = cluster.is_alone(graphs.plural, self.namespace)
            of_graph = cluster.pods_with(self.namespace, GRAPH_LABEL, self.target.name, alone=alone)
            name = component.name.lower()
            return [pod for pod in of_graph if pod["metadata"]["labels"].get(COMPONENT_LABEL, "").lower() == name]

        return ListedTarget(
            obj=graph,
            scaled=graph if adapter is None or target is None else adapter,
            gpus=gpus_of(graph, component),
            read=lambda: read_component(graph, component, target),
            pods=pods,
        )

    def whole(self, api: Api) -> tuple[KubeObject, Resource]:
        graphs = self._graphs or self._cluster.graphs(self.namespace)
        return api.get(graphs, self.namespace, self.target.name), graphs

    def container(self, obj: KubeObject, name: str | None) -> Container:
        return container_of_component(component_of(obj, self.target.component, self._role), name)

    def _adapter(self, cluster: Cluster, resource: Resource) -> KubeObject | None:
        cluster.expect(resource.plural, self.namespace, self._adapter_name)
        try:
            return cluster.objects(resource, self.namespace).get(self._adapter_name)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def fetch(self, api: Api) -> FetchedTarget:
        graphs = self._graphs or self._cluster.graphs(self.namespace)
        if self._component is None:
            self._part(api.get(graphs, self.namespace, self.target.name), graphs)
        scaled_by = adapters(graphs.version)
        try:
            adapter = api.get(scaled_by, self.namespace, self._adapter_name)
        except ApiError as error:
            if error.status != 404:
                raise
            return self._fetch_graph(api, graphs)
        replicas = adapter_target(adapter, self.target.name)
        if replicas is None:
            return self._fetch_graph(api, graphs)
        return _by_scale(adapter, replicas, scaled_by)

    def _fetch_graph(self, api: Api, graphs: Resource) -> FetchedTarget:
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

        return FetchedTarget(graph, component.target, graphs, "", patch)


def _by_scale(obj: KubeObject, replicas: int, resource: Resource) -> FetchedTarget:
    version = obj["metadata"]["resourceVersion"]

    def patch(wanted: int) -> Any:
        return {"metadata": {"resourceVersion": version}, "spec": {"replicas": wanted}}

    return FetchedTarget(obj, replicas, resource, "scale", patch)


Writer = tuple[str, str]
"""The manager of a field, and when it wrote it last."""


def latest_writer(obj: Mapping[str, Any]) -> Writer | None:
    """Who last wrote the replicas of an object, as far as the server kept account of it.

    Before Kubernetes 1.22 a server keeps none of writes to a scale, and the latest entry is of an older write.
    """
    entries = [
        entry
        for entry in obj["metadata"].get("managedFields") or ()
        if '"f:replicas"' in json.dumps(entry.get("fieldsV1", {}).get("f:spec"))
    ]
    latest = max(entries, key=lambda entry: entry.get("time", ""), default=None)
    return (str(latest["manager"]), str(latest.get("time", ""))) if latest else None
