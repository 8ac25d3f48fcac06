"""Who else scales a subject: an HPA or a KEDA ScaledObject whose target is the same object."""

from __future__ import annotations

from typing import Any

from dynamo_planner.executors.kubernetes.api import ApiError
from dynamo_planner.executors.kubernetes.cluster import Cluster
from dynamo_planner.executors.kubernetes.resources import AUTOSCALERS, SCALED_OBJECTS
from dynamo_planner.executors.kubernetes.targets import Reference, Subject

_KINDS = ((SCALED_OBJECTS, "ScaledObject"), (AUTOSCALERS, "HorizontalPodAutoscaler"))
"""ScaledObjects first: KEDA makes an HPA for each, and the ScaledObject is what a person has written."""


def owner_of(subject: Subject, cluster: Cluster) -> str | None:
    """The autoscaler that scales a subject, by kind and name. Raises :class:`ApiError` where they cannot be listed.

    HPAs are asked for in ``autoscaling/v1``, which old and new servers answer. A server without KEDA has none of its
    objects.
    """
    references = subject.references()
    for resource, kind in _KINDS:
        try:
            there = cluster.objects(resource, subject.namespace)
        except ApiError as error:
            if error.status == 404 and resource is SCALED_OBJECTS:
                continue
            raise
        for name, thing in there.items():
            if _reference(thing["spec"].get("scaleTargetRef") or {}) in references:
                return f"{kind} {name}"
    return None


def _reference(target: dict[str, Any]) -> Reference:
    """What a ``scaleTargetRef`` points to; KEDA's own defaults where it leaves something out."""
    version = target.get("apiVersion") or "apps/v1"
    return version.rpartition("/")[0], target.get("kind") or "Deployment", str(target.get("name"))
