"""The simulated cluster as an environment to train policies of one's own in, in the style of Gymnasium.

No package is needed: ``reset`` and ``step`` have Gymnasium's signatures, an observation is a snapshot, and an action
the wanted replicas of pools.

>>> from dynamo_planner import Profile
>>> from dynamo_planner.workloads.generators import poisson
>>> profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
>>> env = ScalingEnv(
...     ClusterSetup.aggregated(profile, replicas=1, startup_s=20, max_replicas=4),
...     poisson(requests_per_s=5, duration_s=60, seed=1),
...     sla=Sla(ttft_ms=500, itl_ms=25),
... )
>>> snapshot, _ = env.reset(seed=7)
>>> snapshot, reward, terminated, truncated, info = env.step({"workers": 2})
>>> snapshot.pools["workers"].replicas.starting, round(reward, 6), terminated
(1, -0.005556, False)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamo_planner.core.decision import ScaleTo
from dynamo_planner.core.snapshot import Sla, Snapshot
from dynamo_planner.runtime.snapshot_builder import merge
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.trace import Trace


class ScalingEnv:
    """One episode is a trace, and a step ``interval_s`` of it.

    The reward of a step is minus its GPU-hours, and minus ``price_of_a_miss`` for each request that finished in it (or
    was dropped) without meeting the SLA. At the end, whatever has not finished is a miss too.
    """

    def __init__(
        self,
        setup: ClusterSetup,
        trace: Trace,
        *,
        sla: Sla,
        interval_s: float = 10.0,
        price_of_a_miss: float = 0.01,
    ) -> None:
        if not interval_s > 0:
            raise ValueError(f"interval_s must be a positive number of seconds, got {interval_s}")
        self._setup = setup
        self._trace = trace
        self._sla = sla
        self._interval_s = interval_s
        self._price = price_of_a_miss
        self._cluster: SimulatedCluster | None = None
        self._paid_s = 0.0
        self._missed = 0

    @property
    def cluster(self) -> SimulatedCluster:
        """The cluster of this episode. Raises ``RuntimeError`` before the first :meth:`reset`."""
        if self._cluster is None:
            raise RuntimeError("there is no episode yet: call reset() first")
        return self._cluster

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Snapshot, dict[str, Any]]:
        """Begin an episode; ``options`` may hold another ``trace``. Returns the first snapshot, and no information."""
        self._trace = (options or {}).get("trace", self._trace)
        self._cluster = SimulatedCluster(self._setup, self._trace, seed=seed or 0)
        self._paid_s, self._missed = 0.0, 0
        return self._snapshot(), {}

    def step(self, action: Mapping[str, int]) -> tuple[Snapshot, float, bool, bool, dict[str, Any]]:
        """Scale the pools to these counts, brought within their specs, and let ``interval_s`` pass.

        Returns the snapshot, the reward, whether the trace is over (``terminated``), that nothing else cuts an episode
        short (``truncated`` is False), and the ``gpu_seconds``, ``missed`` requests and ``outcomes`` of the step.
        """
        cluster = self.cluster
        outcomes = cluster.executor.apply([self._bounded(pool, replicas) for pool, replicas in action.items()])
        cluster.advance_to(min(cluster.elapsed_s + self._interval_s, self._trace.duration_s))
        terminated = cluster.elapsed_s >= self._trace.duration_s
        served = cluster.served()
        settled = (served.finished_s == served.finished_s) | served.dropped
        misses = ~served.meets(self._sla) if terminated else settled & ~served.meets(self._sla)
        missed, paid_s = int(misses.sum()), cluster.gpu_seconds()
        newly, gpu_seconds = missed - self._missed, paid_s - self._paid_s
        self._missed, self._paid_s = missed, paid_s
        reward = -gpu_seconds / 3600 - self._price * newly
        information = {"gpu_seconds": gpu_seconds, "missed": newly, "outcomes": outcomes}
        return self._snapshot(), reward, terminated, False, information

    def _bounded(self, pool: str, replicas: int) -> ScaleTo:
        spec = self._setup.pools[pool].spec if pool in self._setup.pools else None
        wanted = int(replicas)
        if spec is not None:
            wanted = max(wanted, spec.min_replicas)
            wanted = wanted if spec.max_replicas is None else min(wanted, spec.max_replicas)
        return ScaleTo(pool=pool, replicas=wanted)

    def _snapshot(self) -> Snapshot:
        cluster = self.cluster
        executor = cluster.executor
        seen = cluster.source.observe(cluster.now_s)
        return merge(cluster.now_s, executor.pools, executor.observe(), seen, knobs=executor.knobs)
