"""Replicas on Kubernetes, written through its API (extra ``kubernetes``).

Describing pools needs no extra; the executor and its connection do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dynamo_planner.executors.kubernetes.pool import CustomTarget, GraphTarget, KubernetesPool, WorkloadTarget

if TYPE_CHECKING:
    from dynamo_planner.executors.kubernetes.api import Api, ApiError
    from dynamo_planner.executors.kubernetes.cluster import Cluster
    from dynamo_planner.executors.kubernetes.election import Election
    from dynamo_planner.executors.kubernetes.executor import KubernetesExecutor

__all__ = [
    "Api",
    "ApiError",
    "Cluster",
    "CustomTarget",
    "Election",
    "GraphTarget",
    "KubernetesExecutor",
    "KubernetesPool",
    "WorkloadTarget",
]

_IN = {"Api": "api", "ApiError": "api", "Cluster": "cluster", "Election": "election", "KubernetesExecutor": "executor"}


def __getattr__(name: str) -> Any:
    """Import what needs the official client only when it is asked for: configurations need only the pools."""
    if name not in _IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_IN[name]}"), name)
