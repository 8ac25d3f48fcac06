"""A Kubernetes operator with kopf: every labelled Deployment is scaled by the policy in its annotation.

Run with ``kopf run --standalone -n NAMESPACE kopf_operator.py``. The policy is JSON in the annotation
``dynamo-planner/policy`` of a Deployment with the label ``dynamo-planner: enabled``. ``PROMETHEUS`` is the base URL of
a Prometheus server, ``INTERVAL_S`` the time between two decisions.

This file says what is known of a Deployment, here of vLLM behind a gateway that counts requests. Watching, deciding and
patching are in ``dynamo_planner.integrations.kopf``.
"""

import json
import os
import urllib.parse
import urllib.request

from dynamo_planner import PoolMetrics, Traffic
from dynamo_planner.integrations.kopf import scale_deployments

PROMETHEUS = os.environ.get("PROMETHEUS", "http://prometheus.monitoring:9090")
INTERVAL_S = float(os.environ.get("INTERVAL_S", "15"))


def observe(name: str) -> tuple[Traffic, PoolMetrics]:
    traffic = Traffic(
        requests_per_s=ask(f'sum(rate(gateway_requests_total{{deployment="{name}"}}[1m]))'),
        window_s=60,
        queued=0,  # this gateway keeps none
        isl=mean("vllm:request_prompt_tokens", name),
        osl=mean("vllm:request_generation_tokens", name),
    )
    metrics = PoolMetrics(
        queued=ask(f'sum(vllm:num_requests_waiting{{deployment="{name}"}})'),
        kv_usage=ask(f'avg(vllm:kv_cache_usage_perc{{deployment="{name}"}})'),
    )
    return traffic, metrics


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


scale_deployments(observe, INTERVAL_S)
