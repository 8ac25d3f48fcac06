"""Three policies, a trace and a cluster to try them on."""

from __future__ import annotations

from dynamo_planner import HpaLaw, Policy, Sla, Stabilization, StaticLaw
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.generators import burst_and_lull

SLA = Sla(ttft_ms=2000, itl_ms=60, attainment=0.95)
TIMING = LinearTiming(base_ms=15, prefill_ms_per_token=0.2, kv_ms_per_token=5e-4)
CLUSTER = ClusterSetup.disaggregated(TIMING, prefill=2, decode=2, startup_s=20, max_replicas=8, kv_tokens=100_000)
TRACE = burst_and_lull(3, 9, seed=1, duration_s=300)
HPA = HpaLaw(
    prefill=({"name": "requests", "target": 1.0},), decode=({"name": "running", "target": 20},)
) | Stabilization(down_window_s=60)
POLICIES: dict[str, Policy] = {
    "hpa": HPA,
    "two": StaticLaw(replicas={"prefill": 2, "decode": 2}),
    "six": StaticLaw(replicas={"prefill": 6, "decode": 6}),
}
