"""Replicas on Kubernetes, written through its API (extra ``kubernetes``).

Describing pools needs no extra; the executor and its connection do.
"""

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports
from dynamo_planner.executors.kubernetes.pool import CustomTarget, GraphTarget, KubernetesPool, WorkloadTarget

if TYPE_CHECKING:
    from dynamo_planner.executors.kubernetes.api import Api
    from dynamo_planner.executors.kubernetes.api_error import ApiError
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

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Api": "api",
        "ApiError": "api_error",
        "Cluster": "cluster",
        "Election": "election",
        "KubernetesExecutor": "executor",
    },
)
