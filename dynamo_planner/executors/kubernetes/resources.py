"""The kinds of objects that are read and written, and their paths."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Resource:
    """A kind of object in a version of its group; the core group is ``""``.

    >>> Resource("apps", "v1", "deployments").path("serving", "vllm", "scale")
    '/apis/apps/v1/namespaces/serving/deployments/vllm/scale'
    """

    group: str
    version: str
    plural: str

    def path(self, namespace: str, *rest: str) -> str:
        """The path of all objects in a namespace, or of one, or of a subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return "/".join([f"{root}/namespaces/{namespace}/{self.plural}", *rest])


PODS = Resource("", "v1", "pods")
EVENTS = Resource("", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
AUTOSCALERS = Resource("autoscaling", "v1", "horizontalpodautoscalers")
SCALED_OBJECTS = Resource("keda.sh", "v1alpha1", "scaledobjects")

GRAPH_GROUP = "nvidia.com"
GRAPH_VERSIONS = ("v1beta1", "v1alpha1")
"""The versions of a DynamoGraphDeployment, the preferred one first."""


def graphs(version: str) -> Resource:
    """DynamoGraphDeployments."""
    return Resource(GRAPH_GROUP, version, "dynamographdeployments")


def adapters(version: str) -> Resource:
    """DynamoGraphDeploymentScalingAdapters: a scale subresource for one component each."""
    return Resource(GRAPH_GROUP, version, "dynamographdeploymentscalingadapters")
