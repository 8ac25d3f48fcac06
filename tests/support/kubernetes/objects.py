"""Objects as operators and users write them, and executors of a test's own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from dynamo_planner import PoolSpec
from dynamo_planner.executors.kubernetes import Api, KubernetesExecutor, KubernetesPool
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.control_plane import ADMIN

Shape = Literal["components", "early v1beta1", "v1alpha1"]
SHAPES: tuple[Shape, ...] = ("components", "early v1beta1", "v1alpha1")

GRAPH = "DynamoGraphDeployment"
ADAPTER = "DynamoGraphDeploymentScalingAdapter"
KINDS = {"Frontend": "frontend", "Prefill": "prefill", "Decode": "decode", "Worker": "worker"}


def version_of(shape: Shape) -> str:
    """The API version that a shape is written in."""
    return "nvidia.com/v1alpha1" if shape == "v1alpha1" else "nvidia.com/v1beta1"


def graph(name: str = "llama", shape: Shape = "components", gpus: int = 2, **replicas: int | None) -> dict[str, Any]:
    """A graph with these components; ``None`` leaves ``replicas`` out."""
    if shape == "components":
        limits = {"resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
        template = {"spec": {"containers": [{"name": "main", **limits}]}}
        spec: dict[str, Any] = {
            "components": [
                {"name": each, "type": KINDS[each], "podTemplate": template, **_said(count)}
                for each, count in replicas.items()
            ]
        }
    else:
        spec = {
            "services": {
                each: {
                    "componentType": "frontend" if each == "Frontend" else "worker",
                    **({"subComponentType": KINDS[each]} if each in {"Prefill", "Decode"} else {}),
                    "resources": {"limits": {"gpu": str(gpus)}},
                    **_said(count),
                }
                for each, count in replicas.items()
            }
        }
    return {"apiVersion": version_of(shape), "kind": GRAPH, "metadata": {"name": name}, "spec": spec}


def _said(replicas: int | None) -> dict[str, int]:
    return {} if replicas is None else {"replicas": replicas}


def settle(
    place: Place, name: str = "llama", shape: Shape = "components", more: Mapping[str, Any] | None = None, **ready: int
) -> None:
    """Write the status that the operator writes when it has seen the spec and these replicas are ready."""
    thing = place.get(version_of(shape), GRAPH, name)
    counts = {
        each: {"replicas": count, "updatedReplicas": count, "readyReplicas": count, "availableReplicas": count}
        for each, count in ready.items()
    }
    status = {
        "observedGeneration": thing["metadata"]["generation"],
        "components" if shape == "components" else "services": counts,
        **(more or {}),
    }
    place.set_status(version_of(shape), GRAPH, name, status)


def replicas_of(place: Place, component: str, name: str = "llama", shape: Shape = "components") -> int:
    """The replicas that a component's spec says now."""
    spec = place.get(version_of(shape), GRAPH, name)["spec"]
    if shape == "components":
        return next(int(each["replicas"]) for each in spec["components"] if each["name"] == component)
    return int(spec["services"][component]["replicas"])


def pod(name: str, labels: Mapping[str, str], *, ready: bool = True, **status: Any) -> dict[str, Any]:
    """A pod, running and ready or not; ``status`` is the rest of its status."""
    now = timestamp()
    condition = {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": now}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels)},
        "spec": {"containers": [{"name": "main", "image": "engine"}]},
        "status": {"phase": "Running" if ready else "Pending", "conditions": [condition], **status},
    }


def pod_of(component: str, number: int, *, graph: str = "llama", ready: bool = True, **status: Any) -> dict[str, Any]:
    """A pod of a graph's component."""
    labels = {"nvidia.com/dynamo-graph-deployment-name": graph, "nvidia.com/dynamo-component": component}
    return pod(f"{graph}-{component.lower()}-{number}", labels, ready=ready, **status)


def timestamp(at_s: float | None = None) -> str:
    """A time as Kubernetes writes it; now where it is left out."""
    when = datetime.now(UTC) if at_s is None else datetime.fromtimestamp(at_s, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def scaled(role: str = "decode", spec: Mapping[str, Any] | None = None, **target: Any) -> KubernetesPool:
    """A pool of this target; one of a graph where no kind is given."""
    given = {name: target.pop(name) for name in list(target) if name in KubernetesPool.model_fields}
    return KubernetesPool.model_validate(
        {"spec": PoolSpec.model_validate({"role": role, **(spec or {})}), "target": target, **given}
    )


def executor_of(
    place: Place, pools: Mapping[str, KubernetesPool], *, url: str | None = None, token: str = ADMIN, **given: Any
) -> KubernetesExecutor:
    """An executor of these pools, as the user of ``token``, through a proxy where there is a ``url``."""
    return KubernetesExecutor(pools, api_of(place, url=url, token=token), **given)


def api_of(place: Place, **given: Any) -> Api:
    """The API server, as ``dynamo-planner`` connects to it."""
    return Api.connect(place.kubeconfig(**given))
