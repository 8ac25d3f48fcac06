"""A model on steady replicas and on cheaper ones that can be taken away: the cheapest mix for a demand that moves."""

from dynamo_planner import PoolSpec, PoolStatus, Profile, Sla, Snapshot, Stabilization, Traffic
from dynamo_planner.fleet import MixPolicy, PoolHardware

profile = Profile.bundled("llama31-70b_h100_vllm_tp4")
policy = MixPolicy(
    pools={
        "steady": PoolHardware(profile=profile),
        "spot": PoolHardware(profile=profile, spot=True, lost_per_h=0.5),
    },
    sla=Sla(ttft_ms=1800, itl_ms=55),
    on_demand=0.5,
) | Stabilization(down_window_s=300)
costs, replicas, state = {"steady": 10.4, "spot": 4.2}, {"steady": 2, "spot": 0}, None
for minute, rate in enumerate([10, 10, 25, 40, 40, 40, 25, 10, 10, 10, 10, 10]):
    pools = {
        name: PoolStatus(
            spec=PoolSpec(role="aggregated", gpus=4, cost=cost, startup_s=120, min_replicas=0, max_replicas=6),
            replicas=replicas[name],
        )
        for name, cost in costs.items()
    }
    traffic = Traffic(requests_per_s=rate, window_s=60, isl=1000, osl=200)
    decision = policy.decide(Snapshot(at_s=60.0 * minute, traffic=traffic, pools=pools), state)
    state = decision.state
    replicas |= decision.targets
    cost = sum(costs[name] * count for name, count in replicas.items())
    weights = {name: round(share, 2) for name, share in decision.routing_weights.items()}
    print(f"minute {minute}: {rate} requests/s, {replicas} for {cost:.1f} an hour, weights {weights}")
