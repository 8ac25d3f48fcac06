"""A backtest: half an hour of traffic, a simulated cluster, and the ``Planner`` of production between the two.

``examples/backtest.ipynb`` compares several policies on a trace of your own and draws the picture.
"""

from dynamo_planner import LoadPolicy, Planner, Profile, Sla, Stabilization
from dynamo_planner.simulator import ClusterSetup, SimulatedCluster
from dynamo_planner.workloads import burst_and_lull

sla = Sla(ttft_ms=2000, itl_ms=50)
trace = burst_and_lull(1, 6, seed=1, duration_s=1800)
profile = Profile.bundled("llama31-70b_h100_vllm_tp4")
setup = ClusterSetup.aggregated(profile, replicas=1, startup_s=60, max_replicas=8, kv_tokens=100_000)
cluster = SimulatedCluster(setup, trace, compiled=False)  # so short a run is not worth compiling
policy = LoadPolicy(adjustment_interval_s=30, decode_kv_up=0.3, decode_kv_down=0.12) | Stabilization(down_window_s=120)
planner = Planner(policy, cluster.source, cluster.executor, clock=lambda: cluster.now_s)

while not cluster.over:
    cluster.advance(10)
    step = planner.step()
    if step.decision.actions:
        print(f"{cluster.now_s:5.0f} s  {step.snapshot.traffic.requests_per_s:.1f} req/s  {step.decision.explain()}")

served, hours = cluster.served(), cluster.gpu_seconds() / 3600
print(f"{len(served)} requests, {served.attainment(sla):.1%} within the SLA, {hours:.1f} GPU-hours")
peak = max(count.ready + count.starting for count in cluster.timeline)
print(f"as many as the peak of {peak} workers all along would be {peak * 4 * cluster.elapsed_s / 3600:.1f} GPU-hours")
