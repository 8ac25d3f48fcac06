"""Configuration of a pool on Kubernetes: the object that holds its replicas, and what one replica is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationInfo, model_validator

from dynamo_planner.core.snapshot import PoolSpec
from dynamo_planner.core.values import Frozen
from dynamo_planner.engines import Catalogue, Knob, catalogue
from dynamo_planner.engines.named import with_custom_knobs
from dynamo_planner.executors.kubernetes.resources import Resource

ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]

WORKLOADS = {
    "Deployment": Resource("apps", "v1", "deployments"),
    "StatefulSet": Resource("apps", "v1", "statefulsets"),
    "LeaderWorkerSet": Resource("leaderworkerset.x-k8s.io", "v1", "leaderworkersets"),
}


WITH_TEMPLATES = ("Deployment", "StatefulSet")
"""Workloads with one pod template, whose controllers replace the pods when it changes."""


class GraphTarget(Frozen):
    """A component of a DynamoGraphDeployment.

    Its GPUs per replica are taken from the status or the resources of the graph, unless the ``spec`` of the pool has
    them.

    Args:
        kind: ``DynamoGraphDeployment``.
        name: Name of the graph.
        component: Name of the component; ``None`` is the one whose type (``type`` of ``spec.components``,
            ``subComponentType`` or ``componentType`` of ``spec.services``) is the role of the pool.
    """

    kind: Literal["DynamoGraphDeployment"] = "DynamoGraphDeployment"
    name: ObjectName
    component: str | None = Field(default=None, min_length=1)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f", component {self.component}" if self.component else "")


class WorkloadTarget(Frozen):
    """A Deployment, a StatefulSet, or a LeaderWorkerSet, whose replicas are groups and not pods.

    Args:
        kind: Which of them.
        name: Name of the object.
    """

    kind: Literal["Deployment", "StatefulSet", "LeaderWorkerSet"]
    name: ObjectName

    @property
    def resource(self) -> Resource:
        """Where objects of this kind are."""
        return WORKLOADS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class CustomTarget(Frozen):
    """Any other object with a scale subresource.

    Its ready replicas are ``status.readyReplicas`` or ``availableReplicas``; where it has neither, its pods are
    counted, by the selector of its scale.

    Args:
        kind: Kind of the object.
        group: Its API group.
        version: Its API version.
        plural: Plural of the kind, as in its URL.
        name: Name of the object.
    """

    kind: str = Field(min_length=1)
    group: str = Field(min_length=1)
    version: str = Field(min_length=1)
    plural: str = Field(min_length=1)
    name: ObjectName

    @property
    def resource(self) -> Resource:
        """Where objects of this kind are."""
        return Resource(self.group, self.version, self.plural)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def _which(value: Any) -> str:
    kind = value.get("kind", "DynamoGraphDeployment") if isinstance(value, Mapping) else getattr(value, "kind", "")
    return "graph" if kind == "DynamoGraphDeployment" else "workload" if kind in WORKLOADS else "custom"


Target = Annotated[
    Annotated[GraphTarget, Tag("graph")]
    | Annotated[WorkloadTarget, Tag("workload")]
    | Annotated[CustomTarget, Tag("custom")],
    Discriminator(_which),
]


class KubernetesPool(Frozen):
    """A pool of identical replicas on Kubernetes.

    The values of its knobs are those of the arguments and variables in the manifest. A change that is not in effect
    after ``rolls_within_s``, or whose pods cannot start, is rolled back.

    Args:
        spec: What a replica is.
        target: The object that holds the replicas.
        failed_after_s: Seconds for which a pod that cannot start (unschedulable, image not to be pulled, crashing)
            counts as starting, then as failed; the time that a cluster autoscaler may take to add a node (600).
        metrics_port: Port of the workers' metrics, unless their pods have the annotation ``prometheus.io/port`` (8000).
        engine: Engine whose catalogue the knobs are from; ``None`` is none.
        knobs: Names of the knobs that may be set, from the catalogue of ``engine`` and from ``more_knobs``.
        more_knobs: Knobs beside those of the catalogue.
        container: Name of the engine's container; ``None`` is ``main``, or the only one.
        rolls_within_s: Seconds within which a changed knob must be in effect (1800).

    >>> KubernetesPool(spec=PoolSpec(role="decode"), target={"kind": "Deployment", "name": "vllm"}).target
    WorkloadTarget(kind='Deployment', name='vllm')
    """

    spec: PoolSpec
    target: Target
    failed_after_s: float = Field(default=600.0, ge=0)
    metrics_port: int = Field(default=8000, ge=1, le=65535)
    engine: str | None = None
    knobs: tuple[str, ...] = ()
    more_knobs: tuple[Knob, ...] = ()
    container: str | None = None
    rolls_within_s: float = Field(default=1800.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _engine_of_another_package(cls, data: Any, info: ValidationInfo) -> Any:
        return with_custom_knobs(data, info.context, "more_knobs")

    @model_validator(mode="after")
    def _knobs_are_known(self) -> Self:
        unknown = [knob for knob in self.knobs if knob not in self.catalogue]
        if unknown:
            there = ", ".join(self.catalogue) or "none: name the engine"
            raise ValueError(f"knobs: there is no knob {unknown[0]!r}; there are {there}")
        if self.knobs and not isinstance(self.target, GraphTarget) and self.target.kind not in WITH_TEMPLATES:
            raise ValueError(f"knobs: they can be set in {', '.join(WITH_TEMPLATES)} and graphs, not in {self.target}")
        return self

    @property
    def catalogue(self) -> Catalogue:
        """The knobs of its engine."""
        return catalogue(self.engine, self.more_knobs)
