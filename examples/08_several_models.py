"""Two models on eight GPUs: chat has the priority, batch a floor, and what batch does not use is lent."""

from dynamo_planner import LoadPolicy, PoolSpec, PoolStatus, Snapshot, Traffic
from dynamo_planner.fleet import Budget, Fleet, Member

policy = LoadPolicy(adjustment_interval_s=30)
fleet = Fleet(
    models={
        "chat": Member(policy=policy, priority=1),
        "batch": Member(policy=policy, floor={"gpu": 4}),
    },
    budgets={"gpu": Budget(total=8)},
)
replicas, state = {"chat": 2, "batch": 2}, None
for minute, queued in enumerate([{"chat": 0, "batch": 0}, {"chat": 90, "batch": 0}, {"chat": 90, "batch": 90}] * 4):
    snapshots = {}
    for name, count in replicas.items():
        pool = PoolStatus(
            spec=PoolSpec(role="aggregated", min_replicas=1),
            replicas=count,
            queued=queued[name],
            running=20 * count,
            kv_usage=0.9 if queued[name] else 0.4,
        )
        snapshots[name] = Snapshot(at_s=60.0 * minute, traffic=Traffic(requests_per_s=5), pools={"workers": pool})
    decision = fleet.decide(snapshots, state)
    state = decision.state
    replicas = {name: own.targets.get("workers", replicas[name]) for name, own in decision.decisions.items()}
    print(f"minute {minute}: {replicas}")
    print("\n".join(f"  {line}" for line in decision.explain().splitlines()))
