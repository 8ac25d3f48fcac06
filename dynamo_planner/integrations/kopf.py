"""A Kubernetes operator with kopf: the policy in its annotation scales each labelled Deployment (extra ``kopf``).

A file for ``kopf run --standalone -n NAMESPACE operator.py`` says what is known of a Deployment, and the rest is here::

    from dynamo_planner import PoolMetrics, Traffic
    from dynamo_planner.integrations.kopf import scale_deployments

    def observe(name: str) -> tuple[Traffic, PoolMetrics]: ...

    scale_deployments(observe)

The policy is JSON in the annotation ``dynamo-planner/policy`` of a Deployment with the label ``dynamo-planner:
enabled``. The operator leaves one mark, the annotation ``dynamo-planner/state``: what the policy remembers, so that a
restarted operator goes on where it was. It goes with the label.

A timer or a daemon of kopf would put a finalizer on each Deployment, and without the operator no one could delete them
any more. So this one watches, and has a loop of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from dynamo_planner.config.policies import load_policy
from dynamo_planner.core.decision import Decision, ScaleTo
from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.metrics import PoolMetrics, Traffic
from dynamo_planner.core.snapshot import PoolSpec, PoolStatus, Replicas, Snapshot

with needs_extra("kopf"):
    import kopf
    from kubernetes import client, config

LOG = logging.getLogger(__name__)

LABEL, POLICY, STATE = "dynamo-planner", "dynamo-planner/policy", "dynamo-planner/state"
"""The label that asks for scaling (``enabled``), and the annotations of the policy and of its memory."""

AGGREGATED = PoolSpec(role="aggregated")

Observe = Callable[[str], tuple[Traffic, PoolMetrics]]
"""What is known of the Deployment of a name: its traffic, and the metrics of its pods. Called in a thread."""


def decided(
    deployment: Mapping[str, Any], traffic: Traffic, metrics: PoolMetrics, at_s: float, spec: PoolSpec = AGGREGATED
) -> tuple[Decision, dict[str, Any]]:
    """The decision on a Deployment, and the patch that carries it out.

    The patch holds the version that was read, so that it is refused where somebody wrote in between.

    Args:
        deployment: The object as the API server has it.
        traffic: Its traffic.
        metrics: The metrics of its pods.
        at_s: The time, in Unix seconds.
        spec: What a replica is. Default an aggregated one with a GPU.
    """
    metadata, status, target = deployment["metadata"], deployment.get("status", {}), deployment["spec"]["replicas"]
    name, annotations = metadata["name"], metadata.get("annotations", {})
    ready = min(status.get("readyReplicas", 0), target)
    replicas = Replicas(ready=ready, starting=target - ready, target=target)
    known = {field: getattr(metrics, field) for field in metrics.model_fields_set}  # an age that is left out is 0
    pool = PoolStatus(spec=spec, replicas=replicas, **known)
    policy, state = load_policy(json.loads(annotations[POLICY])), json.loads(annotations.get(STATE, "null"))
    decision = policy.decide(Snapshot(at_s=at_s, traffic=traffic, pools={name: pool}), state)
    marks = {} if decision.state is None else {STATE: decision.state.model_dump_json()}
    patch: dict[str, Any] = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": marks}}
    for action in decision.actions:
        if isinstance(action, ScaleTo):
            patch["spec"] = {"replicas": action.replicas}
    return decision, patch


def scale_deployments(
    observe: Observe, interval_s: float = 15.0, spec: PoolSpec = AGGREGATED, registry: Any = None
) -> None:
    """Register the handlers of the operator.

    Args:
        observe: Says what is known of a Deployment.
        interval_s: Seconds between two decisions. Default 15.
        spec: What a replica is. Default an aggregated one with a GPU.
        registry: The registry of kopf. Default kopf's own.
    """
    deployments: dict[str, Mapping[str, Any]] = {}
    tasks: list[asyncio.Task[None]] = []

    def scale(deployment: Mapping[str, Any]) -> None:
        metadata = deployment["metadata"]
        if "deletionTimestamp" in metadata:
            return
        decision, patch = decided(deployment, *observe(metadata["name"]), time.time(), spec)
        LOG.info("%s: %s", metadata["name"], decision.explain())
        client.AppsV1Api().patch_namespaced_deployment(metadata["name"], metadata["namespace"], patch)

    async def scale_all() -> None:
        while True:
            for name, deployment in list(deployments.items()):
                try:
                    await asyncio.to_thread(scale, deployment)
                except Exception as error:
                    LOG.warning("%s: %s", name, error)
            await asyncio.sleep(interval_s)

    @kopf.on.startup(registry=registry)
    async def begin(**_: Any) -> None:
        config.load_config()
        tasks.append(asyncio.create_task(scale_all()))

    @kopf.on.event("deployments", registry=registry)
    def watch(event: Mapping[str, Any], body: kopf.Body, patch: kopf.Patch, name: str, **_: Any) -> None:
        metadata = body["metadata"]
        if event["type"] != "DELETED" and metadata.get("labels", {}).get(LABEL) == "enabled":
            deployments[name] = body
        elif deployments.pop(name, None) and event["type"] != "DELETED" and STATE in metadata.get("annotations", {}):
            patch.metadata.annotations[STATE] = None
