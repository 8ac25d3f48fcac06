"""Your own controller in 50 lines: metrics in, replicas and the reason out. The loop is yours, the policy a function.

``Service`` stands in for yours: half an hour of simulated time in which the load rises from 5 to 40 requests/s and
falls again. Replace ``observe`` by your metrics, ``scale`` by your infrastructure, and ``for tick in range(60)`` by
``while True`` and a sleep. ``examples/kubernetes/controller.py`` is such a controller for a Deployment.
"""

import math

from dynamo_planner import GpuBudget, PoolSpec, PoolStatus, Replicas, SlaPolicy, Snapshot, State, Traffic

POOL = PoolSpec(role="aggregated", gpus=1, min_replicas=1, max_replicas=16, startup_s=60)
policy = SlaPolicy(ttft_ms=500, itl_ms=25, attainment=0.99, profile="llama31-8b_h100_vllm_tp1") | GpuBudget(max_gpus=16)


class Service:
    """What you have already: metrics of the last 30 s, and replicas that take a minute to start."""

    ready, started_s = 2, ()

    def observe(self, at_s):
        requests_per_s = 5 + 35 * math.sin(math.pi * at_s / 1800) ** 2
        self.ready += sum(at_s - start_s >= 60 for start_s in self.started_s)
        self.started_s = tuple(start_s for start_s in self.started_s if at_s - start_s < 60)
        replicas = Replicas(ready=self.ready, starting=len(self.started_s), starting_since_s=self.started_s)
        return requests_per_s, replicas

    def scale(self, at_s, replicas):
        more = replicas - self.ready - len(self.started_s)
        self.started_s += (at_s,) * more  # none where it is negative
        self.ready += min(more, 0)


service, state = Service(), None
for tick in range(60):
    at_s = 30.0 * tick
    requests_per_s, replicas = service.observe(at_s)
    snapshot = Snapshot(
        at_s=at_s,
        traffic=Traffic(requests_per_s=requests_per_s, isl=3000, osl=250, window_s=30),  # unknown is None, never 0
        pools={"workers": PoolStatus(spec=POOL, replicas=replicas, queued=0)},
    )
    decision = policy.decide(snapshot, state)
    for action in decision.actions:
        sized = next(reason.message for reason in decision.reasons if reason.code == "Sized")
        print(f"{at_s / 60:4.1f} min: {action.expected} -> {action.replicas} replicas. {sized}")
        service.scale(at_s, action.replicas)
    state = State.model_validate_json(decision.state.model_dump_json())  # a value: keep it in a file or an annotation

print(f"\nThe last decision in full:\n{decision.explain()}")
