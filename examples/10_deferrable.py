"""A batch with a deadline on the pool of a chat: it fills what is idle, and two pools would take more GPU-hours."""

import numpy as np

from dynamo_planner import ClusterSetup, Dist, Profile, Sla, SlaPolicy
from dynamo_planner.evaluation import deferrable_backtest
from dynamo_planner.fleet import DeferrablePolicy, rates_in_time
from dynamo_planner.simulator.gateway import Job
from dynamo_planner.sizing import Load, PercentileSizing
from dynamo_planner.workloads.generators import LogNormalLengths, following
from dynamo_planner.workloads.rate_curves import diurnal

DURATION_S, BATCH = 1800.0, 15_000
profile, sla = Profile.bundled("llama31-70b_h100_vllm_tp4"), Sla(ttft_ms=1800, itl_ms=55)
chat = following(diurnal(16, 1.7, DURATION_S), duration_s=DURATION_S, seed=1)
random = np.random.default_rng(2)
prompts, answers = LogNormalLengths(median=1200, mean=1500), LogNormalLengths(median=240, mean=300)
batch = Job(0.0, DURATION_S, prompts.draw(random, BATCH), answers.draw(random, BATCH))
cluster = ClusterSetup.aggregated(profile, replicas=2, startup_s=120)

alone = SlaPolicy(sla=sla, profile=profile)
shared = DeferrablePolicy(policy=alone, classes=("batch",), sla=sla, profile=profile)
chat_alone = deferrable_backtest(alone, chat, {}, cluster)
both = deferrable_backtest(shared, chat, {"batch": [batch]}, cluster)

# A pool of its own for the batch: replicas that are always as busy as targets of 100 ms a token allow, started at once.
load = Load.of(1.0, Dist(mean=float(batch.isl.mean())), Dist(mean=float(batch.osl.mean())))
per_s = rates_in_time(PercentileSizing(profile), load, Sla(ttft_ms=60_000, itl_ms=100), most=2)[2] / 2
own_pool = BATCH / per_s / 3600 * cluster.pools["workers"].spec.gpus
print(f"chat alone:      {chat_alone.interactive.attainment(sla):.2%} in time, {chat_alone.gpu_hours:.1f} GPU-hours")
print(f"batch alone:     {own_pool:.1f} GPU-hours at least")
print(f"both on a pool:  {both.interactive.attainment(sla):.2%} in time, {both.gpu_hours:.1f} GPU-hours")
print(f"{both.late['batch']} of {BATCH:,} requests of the batch are done after their deadline")
