"""A closed loop on simulated time: the ``Planner`` of production, with a toy cluster as its source and its executor.

The cluster is a fluid queue, good enough to watch a policy act; it is not an engine model.
"""

import math
from collections.abc import Mapping, Sequence

from dynamo_planner import (
    Action,
    LoadPolicy,
    Observation,
    Outcome,
    Planner,
    PoolMetrics,
    PoolSpec,
    Replicas,
    ScaleTo,
    Stabilization,
    Traffic,
)

SLOTS, SERVICE_S, STARTUP_S = 20, 10.0, 30.0


class ToyCluster:
    """Workers that each hold 20 running requests of 10 s, and take 30 s to start. It is an executor."""

    pools: Mapping[str, PoolSpec] = {"workers": PoolSpec(role="aggregated", max_replicas=10, startup_s=STARTUP_S)}

    def __init__(self) -> None:
        self.now_s = self.inside = self.worker_s = 0.0
        self.launched_s = [-STARTUP_S]

    def advance(self, at_s: float) -> None:
        while self.now_s < at_s:
            self.inside += requests_per_s(self.now_s) - min(self.inside, self.room()) / SERVICE_S
            self.worker_s += len(self.launched_s)
            self.now_s += 1

    def room(self) -> int:
        return SLOTS * (len(self.launched_s) - len(self.starting()))

    def starting(self) -> tuple[float, ...]:
        return tuple(launch for launch in self.launched_s if launch > self.now_s - STARTUP_S)

    def observe(self) -> Mapping[str, Replicas]:
        starting = self.starting()
        ready = len(self.launched_s) - len(starting)
        return {"workers": Replicas(ready=ready, starting=len(starting), starting_since_s=starting)}

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        for action in actions:
            if isinstance(action, ScaleTo):
                more = action.replicas - len(self.launched_s)
                self.launched_s = [*self.launched_s, *[self.now_s] * more][: action.replicas]
        return tuple(Outcome(action=action, status="applied") for action in actions)


class ToyMetrics:
    """What the workers of the cluster would report. It is a source."""

    def __init__(self, cluster: ToyCluster) -> None:
        self.cluster = cluster

    def observe(self, at_s: float) -> Observation:
        room, inside = self.cluster.room(), self.cluster.inside
        seen = PoolMetrics(queued=max(0.0, inside - room), kv_usage=min(1.0, inside / room))
        return Observation(traffic=Traffic(requests_per_s=requests_per_s(at_s)), pools={"workers": seen})


def requests_per_s(at_s: float) -> float:
    return 5 + 4 * math.sin(2 * math.pi * at_s / 3600)


cluster = ToyCluster()
policy = LoadPolicy(adjustment_interval_s=30) | Stabilization(down_window_s=120)
planner = Planner(policy, ToyMetrics(cluster), cluster, interval_s=10, clock=lambda: cluster.now_s)
peak = 0
for tick in range(1, 361):
    cluster.advance(10.0 * tick)
    step = planner.step()
    peak = max(peak, len(cluster.launched_s))
    if step.decision.actions:
        print(f"{cluster.now_s:5.0f} s  {requests_per_s(cluster.now_s):.1f} req/s  {step.decision.explain()}")
print(f"an hour took {cluster.worker_s / 3600:.1f} worker-hours; as many as the peak all along would be {peak}")
