"""A Kubernetes operator in one timer: every labelled Deployment is scaled by the policy in its annotation.

Run with ``kopf run --standalone -n NAMESPACE kopf_operator.py``. The policy is JSON in the annotation
``dynamo-planner/policy``; what it remembers is kept in ``dynamo-planner/state``, so that a restarted operator goes on
where it was. ``PROMETHEUS`` is the base URL of a Prometheus server, ``INTERVAL_S`` the time between two decisions.
"""

import json
import os
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

import kopf

from dynamo_planner import PoolSpec, PoolStatus, Replicas, Snapshot, Traffic, load_policy

POLICY, STATE = "dynamo-planner/policy", "dynamo-planner/state"
PROMETHEUS = os.environ.get("PROMETHEUS", "http://prometheus.monitoring:9090")
INTERVAL_S = float(os.environ.get("INTERVAL_S", "15"))


@kopf.timer("deployments", interval=INTERVAL_S, sharp=True, labels={"dynamo-planner": "enabled"})
def scale(
    spec: Mapping[str, Any],
    status: Mapping[str, Any],
    annotations: Mapping[str, str],
    name: str,
    patch: kopf.Patch,
    logger: Any,
    **_: Any,
) -> None:
    ready = status.get("readyReplicas", 0)
    target = spec["replicas"]
    pool = PoolStatus(
        spec=PoolSpec(role="aggregated"),
        replicas=Replicas(ready=min(ready, target), starting=max(0, target - ready), target=target),
        queued=ask(f'sum(vllm:num_requests_waiting{{deployment="{name}"}})'),
        kv_usage=ask(f'avg(vllm:kv_cache_usage_perc{{deployment="{name}"}})'),
    )
    traffic = Traffic(requests_per_s=ask(f'sum(rate(gateway_requests_total{{deployment="{name}"}}[1m]))'))
    snapshot = Snapshot(at_s=time.time(), traffic=traffic, pools={name: pool})

    decision = load_policy(json.loads(annotations[POLICY])).decide(snapshot, json.loads(annotations.get(STATE, "null")))

    logger.info(decision.explain())
    if decision.state is not None:
        patch.metadata.annotations[STATE] = decision.state.model_dump_json()
    for action in decision.actions:
        patch.spec["replicas"] = action.replicas


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
