"""A Kubernetes operator in one loop: every labelled Deployment is scaled by the policy in its annotation.

Run with ``kopf run --standalone -n NAMESPACE kopf_operator.py``. The policy is JSON in the annotation
``dynamo-planner/policy`` of a Deployment with the label ``dynamo-planner: enabled``. ``PROMETHEUS`` is the base URL of
a Prometheus server, ``INTERVAL_S`` the time between two decisions.

The only mark that it leaves is the annotation ``dynamo-planner/state``, what the policy remembers, so that a restarted
operator goes on where it was; it goes with the label. A timer or a daemon of kopf would put a finalizer on each
Deployment, and without the operator no one could delete them any more. So this one watches, and has a loop of its own.
"""

import asyncio
import json
import logging
import os
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import kopf
from kubernetes import client, config

from dynamo_planner import PoolSpec, PoolStatus, Replicas, Snapshot, Traffic, load_policy

POLICY, STATE = "dynamo-planner/policy", "dynamo-planner/state"
PROMETHEUS = os.environ.get("PROMETHEUS", "http://prometheus.monitoring:9090")
INTERVAL_S = float(os.environ.get("INTERVAL_S", "15"))

logger = logging.getLogger("kopf_operator")
deployments: dict[str, Mapping[str, Any]] = {}
tasks: list[asyncio.Task[None]] = []


@kopf.on.startup()
async def begin(**_: Any) -> None:
    config.load_config()
    tasks.append(asyncio.create_task(scale_all()))


@kopf.on.event("deployments")
def watch(event: Mapping[str, Any], body: kopf.Body, patch: kopf.Patch, name: str, **_: Any) -> None:
    metadata = body["metadata"]
    if event["type"] != "DELETED" and metadata.get("labels", {}).get("dynamo-planner") == "enabled":
        deployments[name] = body
    elif deployments.pop(name, None) and event["type"] != "DELETED" and STATE in metadata.get("annotations", {}):
        patch.metadata.annotations[STATE] = None


async def scale_all() -> None:
    while True:
        for name, deployment in list(deployments.items()):
            try:
                await asyncio.to_thread(scale, deployment)
            except Exception as error:
                logger.warning("%s: %s", name, error)
        await asyncio.sleep(INTERVAL_S)


def scale(deployment: Mapping[str, Any]) -> None:
    metadata, status, target = deployment["metadata"], deployment.get("status", {}), deployment["spec"]["replicas"]
    if "deletionTimestamp" in metadata:
        return
    name, annotations = metadata["name"], metadata.get("annotations", {})
    ready = status.get("readyReplicas", 0)
    pool = PoolStatus(
        spec=PoolSpec(role="aggregated"),
        replicas=Replicas(ready=min(ready, target), starting=max(0, target - ready), target=target),
        queued=ask(f'sum(vllm:num_requests_waiting{{deployment="{name}"}})'),
        kv_usage=ask(f'avg(vllm:kv_cache_usage_perc{{deployment="{name}"}})'),
    )
    traffic = Traffic(
        requests_per_s=ask(f'sum(rate(gateway_requests_total{{deployment="{name}"}}[1m]))'),
        window_s=60,
        queued=0,  # this gateway keeps none
        isl=mean("vllm:request_prompt_tokens", name),
        osl=mean("vllm:request_generation_tokens", name),
    )
    snapshot = Snapshot(at_s=time.time(), traffic=traffic, pools={name: pool})

    decision = load_policy(json.loads(annotations[POLICY])).decide(snapshot, json.loads(annotations.get(STATE, "null")))

    logger.info(decision.explain())
    patch: dict[str, Any] = {"metadata": {"resourceVersion": metadata["resourceVersion"], "annotations": {}}}
    if decision.state is not None:
        patch["metadata"]["annotations"][STATE] = decision.state.model_dump_json()
    for action in decision.actions:
        patch["spec"] = {"replicas": action.replicas}
    client.AppsV1Api().patch_namespaced_deployment(name, metadata["namespace"], patch)


def mean(histogram: str, deployment: str) -> float | None:
    """The mean of a histogram of vLLM over the last five minutes, which SlaPolicy needs of lengths."""
    total, count = (f'sum(rate({histogram}_{part}{{deployment="{deployment}"}}[5m]))' for part in ("sum", "count"))
    return ask(f"{total} / {count}")


def ask(query: str) -> float | None:
    """One number from Prometheus, or ``None`` where it has none: unknown, never 0."""
    try:
        with urllib.request.urlopen(
            f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=5
        ) as answer:
            result = json.load(answer)["data"]["result"]
        return float(result[0]["value"][1]) if result else None
    except (OSError, ValueError, LookupError):
        return None
