"""Any policy of this library as a Ray Serve autoscaling policy, built from JSON keyword arguments.

In the Serve configuration (Ray 2.55 and newer), with ``dynamo-planner`` installed on the head node::

    autoscaling_config:
      min_replicas: 1
      max_replicas: 8
      upscale_delay_s: 0    # the policy's own guards smooth; Serve's delays would come on top
      downscale_delay_s: 0
      policy:
        policy_function: "my_module:RayServePolicy"
        policy_kwargs:
          policy: [{"kind": "load", "adjustment_interval_s": 30}, {"kind": "stabilization"}]
          gpus: 2

A replica that defines ``record_autoscaling_stats`` and returns ``{"kv_usage": 0.7}`` gives the policy its KV usage.
"""

from collections.abc import Mapping
from typing import Any

from dynamo_planner import PoolSpec, PoolStatus, Replicas, Snapshot, Traffic, load_policy

POOL = "replicas"


class RayServePolicy:
    """Called by Serve with its ``AutoscalingContext``; returns the replicas and the state that Serve hands back."""

    def __init__(self, policy: Any, gpus: int = 1) -> None:
        self.policy = load_policy(policy)
        self.gpus = gpus

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        decision = self.policy.decide(snapshot_of(ctx, self.gpus), (ctx.policy_state or {}).get("dynamo_planner"))
        state = decision.state.model_dump(mode="json") if decision.state else None
        return decision.targets.get(POOL, ctx.target_num_replicas), {"dynamo_planner": state}


def snapshot_of(ctx: Any, gpus: int) -> Snapshot:
    """What Serve knows of a deployment. It counts requests, and knows the KV usage only where replicas report it."""
    reported: Mapping[Any, float] = (ctx.aggregated_metrics or {}).get("kv_usage", {})
    ready, target, queued = ctx.current_num_replicas, ctx.target_num_replicas, ctx.total_queued_requests
    spec = PoolSpec(
        role="aggregated",
        gpus=gpus,
        min_replicas=ctx.capacity_adjusted_min_replicas,
        max_replicas=ctx.capacity_adjusted_max_replicas,
    )
    pool = PoolStatus(
        spec=spec,
        replicas=Replicas(ready=ready, starting=max(0, target - ready), target=target),
        queued=queued,
        running=None if queued is None else max(0.0, ctx.total_num_requests - queued),
        kv_usage=sum(reported.values()) / len(reported) if reported else None,
    )
    return Snapshot(at_s=ctx.current_time, traffic=Traffic(queued=queued), pools={POOL: pool})
