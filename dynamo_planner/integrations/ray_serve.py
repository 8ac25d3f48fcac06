"""Any policy of this library as the autoscaling policy of a Ray Serve deployment.

In the Serve configuration (Ray 2.55 and newer), with ``dynamo-planner`` installed on the head node::

    autoscaling_config:
      min_replicas: 1
      max_replicas: 8
      upscale_delay_s: 0    # the policy's own guards smooth; Serve's delays would come on top
      downscale_delay_s: 0
      policy:
        policy_function: "dynamo_planner.integrations.ray_serve:RayServePolicy"
        policy_kwargs:
          policy: [{"kind": "sla", "ttft_ms": 500, "itl_ms": 25, "profile": "llama31-8b_h100_vllm_tp1"}]
          gpus: 1

Serve counts requests and knows no tokens. What a policy needs beyond that, a replica reports: it defines
``record_autoscaling_stats`` and returns some of ``requests_per_s`` (its own arrivals), ``isl``, ``osl``, ``ttft_ms``,
``itl_ms`` and ``kv_usage`` (means of its own requests). SlaPolicy needs the first three. Rates are added;
means are weighted with the rates, where they are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamo_planner.config.policies import load_policy
from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.snapshot import PoolSpec, PoolStatus, Replicas, Snapshot

POOL = "replicas"
MEANS = ("isl", "osl", "ttft_ms", "itl_ms")


class RayServePolicy:
    """Called by Serve with its ``AutoscalingContext``; returns the replicas and the state that Serve hands back.

    Args:
        policy: The policy as data, or the path of its file.
        gpus: GPUs per replica. Default 1.
        startup_s: Seconds that a replica takes to start. Default 120.
    """

    def __init__(self, policy: Any, gpus: int = 1, startup_s: float = 120.0) -> None:
        self.policy = load_policy(policy)
        self.gpus, self.startup_s = gpus, startup_s

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        snapshot = snapshot_of(ctx, self.gpus, self.startup_s)
        decision = self.policy.decide(snapshot, (ctx.policy_state or {}).get("dynamo_planner"))
        state = decision.state.model_dump(mode="json") if decision.state else None
        return decision.targets.get(POOL, ctx.target_num_replicas), {"dynamo_planner": state}


def snapshot_of(ctx: Any, gpus: int, startup_s: float = 120.0) -> Snapshot:
    """What Serve and the replicas of a deployment report."""
    reported: Mapping[str, Mapping[Any, float]] = ctx.aggregated_metrics or {}
    rates = reported.get("requests_per_s", {})
    ready, target, queued = ctx.current_num_replicas, ctx.target_num_replicas, ctx.total_queued_requests
    spec = PoolSpec(
        role="aggregated",
        gpus=gpus,
        min_replicas=ctx.capacity_adjusted_min_replicas,
        max_replicas=ctx.capacity_adjusted_max_replicas,
        startup_s=startup_s,
    )
    pool = PoolStatus(
        spec=spec,
        replicas=Replicas(ready=ready, starting=max(0, target - ready), target=target),
        queued=queued,
        running=None if queued is None else max(0.0, ctx.total_num_requests - queued),
        kv_usage=_mean(reported.get("kv_usage", {}), {}),
    )
    traffic = Traffic.model_validate(
        {
            "requests_per_s": sum(rates.values()) if rates else None,
            "queued": queued,
            **{name: _mean(reported.get(name, {}), rates) for name in MEANS},
        }
    )
    return Snapshot(at_s=ctx.current_time, traffic=traffic, pools={POOL: pool})


def _mean(values: Mapping[Any, float], weights: Mapping[Any, float]) -> float | None:
    """The mean over replicas, weighted where they have weights; ``None`` where none reports."""
    own = {replica: weights.get(replica, 0.0) for replica in values}
    total = sum(own.values())
    if not values or not total:
        return sum(values.values()) / len(values) if values else None
    return sum(own[replica] * value for replica, value in values.items()) / total
