"""Knobs first, replicas when knobs cannot help: ``together(KnobPolicy, SlaPolicy)`` on a simulated cluster.

The engines begin with a chunk of 8192 tokens, whose steps are far longer than the ITL target: a short answer beside a
long prompt misses it. The tuner tries the chunk whose step is as long as ITL may be: one worker
after the other is replaced, the targets hold, and ``SlaPolicy``, which sizes for the chunk that all of them have, needs
fewer.
"""

from dynamo_planner import KnobPolicy, Profile, SetKnob, Sla, SlaPolicy, together
from dynamo_planner.evaluation import backtest
from dynamo_planner.simulator import ClusterSetup
from dynamo_planner.workloads import poisson

sla = Sla(ttft_ms=1500, itl_ms=30)
profile = Profile.bundled("llama31-70b_h100_vllm_tp4")
trace = poisson(requests_per_s=12, duration_s=1800, seed=1)
cluster = ClusterSetup.aggregated(
    profile,
    replicas=8,
    startup_s=60,
    max_replicas=20,
    max_num_batched_tokens=8192,
)
replicas = SlaPolicy(sla=sla, profile=profile)
policies = {
    "replicas alone": replicas,
    "knobs and replicas": together(KnobPolicy(sla=sla, profile=profile, engine="vllm"), replicas),
}
report = backtest(policies, trace, cluster, sla=sla)

for name, run in report.runs.items():
    print(f"{name}: {run.score.attainment:.2%} within the SLA, {run.score.gpu_hours:.2f} GPU-hours of workers")
tuned = report.runs["knobs and replicas"]
for decision in tuned.decisions:
    if any(isinstance(action, SetKnob) for action in decision.actions):
        print(f"\n{decision.at_s - tuned.start_s:.0f} s\n{decision.explain()}")
