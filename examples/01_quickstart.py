"""A decision without a cluster: what is seen goes in, what to do and why comes out."""

from dynamo_planner import GpuBudget, LoadPolicy, PoolSpec, PoolStatus, Snapshot, Stabilization, Traffic

policy = LoadPolicy(adjustment_interval_s=30) | Stabilization(down_window_s=300) | GpuBudget(max_gpus=12)


def seen(at_s: float, *, queued: float, kv_usage: float) -> Snapshot:
    """One prefill and one decode pool of two replicas each, on two GPUs a replica."""
    return Snapshot(
        at_s=at_s,
        traffic=Traffic(requests_per_s=12),
        pools={
            "prefill": PoolStatus(spec=PoolSpec(role="prefill", gpus=2), replicas=2, queued=queued),
            "decode": PoolStatus(spec=PoolSpec(role="decode", gpus=2), replicas=2, queued=0, kv_usage=kv_usage),
        },
    )


state = None
for tick in range(5):
    decision = policy.decide(seen(10 * tick, queued=3 * tick * tick, kv_usage=0.6 + 0.1 * tick), state)
    state = decision.state  # a value; state.model_dump_json() goes into a file, an annotation, a database
    print(f"--- after {10 * tick} s\n{decision.explain()}")
