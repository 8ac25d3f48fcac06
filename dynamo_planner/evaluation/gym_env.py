"""The simulated cluster as an environment to train policies in, in the style of Gymnasium.

No package is needed: ``reset`` and ``step`` have Gymnasium's signatures. In :class:`ScalingEnv` an observation is a
snapshot, and an action the replicas of pools by name; in :class:`ArrayScalingEnv` both are arrays within spaces.

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
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.decision import ScaleTo
from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import Sla, Snapshot
from dynamo_planner.runtime.snapshot_builder import merge
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.trace import Trace

UNKNOWN = -1.0
"""An unknown number in an array; every known one is at least 0."""

MOST_REPLICAS = 1024
"""The most replicas of a pool whose spec has no limit."""

SERVICE_NUMBERS = ("requests_per_s", "queued", "isl", "osl", "ttft_ms", "itl_ms")
POOL_NUMBERS = ("ready", "starting", "draining", "target", "queued", "running", "kv_usage")
"""What an array observes of the service, as means, and then of each pool."""


@dataclass(frozen=True, eq=False)
class Box:
    """A space of arrays between bounds, with the attributes of Gymnasium's.

    Args:
        names: what each number of an array is.
        low: the least values, in the shape of an array.
        high: the greatest values.
    """

    names: tuple[str, ...]
    low: NDArray[Any]
    high: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array."""
        return self.low.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of an array's numbers."""
        return self.low.dtype

    def contains(self, array: NDArray[Any]) -> bool:
        """Whether an array is within the space."""
        fits = array.shape == self.shape and np.can_cast(array.dtype, self.dtype)
        return bool(fits and np.all((self.low <= array) & (array <= self.high)))


class ScalingEnv:
    """One episode is a trace, and a step ``interval_s`` of it.

    The reward of a step is minus its GPU-hours, and minus ``price_of_a_miss`` for each request that finished in it (or
    was dropped) without meeting the SLA. At the end, a request that has not finished is a miss too.

    Args:
        setup: the cluster.
        trace: the requests of an episode.
        sla: the targets.
        interval_s: the length of a step in seconds; 10 by default.
        price_of_a_miss: what a miss costs, in GPU-hours; 0.01 by default.
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
        self.setup = setup
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
        self._cluster = SimulatedCluster(self.setup, self._trace, seed=seed or 0)
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
        spec = self.setup.pools[pool].spec if pool in self.setup.pools else None
        wanted = int(replicas)
        if spec is not None:
            wanted = max(wanted, spec.min_replicas)
            wanted = wanted if spec.max_replicas is None else min(wanted, spec.max_replicas)
        return ScaleTo(pool=pool, replicas=wanted)

    def _snapshot(self) -> Snapshot:
        cluster = self.cluster
        executor = cluster.executor
        metrics = cluster.source.observe(cluster.now_s)
        return merge(cluster.now_s, executor.pools, executor.observe(), metrics, knobs=executor.knobs)


class ArrayScalingEnv:
    """A :class:`ScalingEnv` of arrays, for libraries that learn from numbers.

    It needs no package. For an environment of Gymnasium, with its spaces, take
    :class:`~dynamo_planner.evaluation.gymnasium_env.GymnasiumEnv` (extra ``gym``).

    Args:
        env: the environment whose snapshots and actions become arrays.

    >>> from dynamo_planner import Profile
    >>> from dynamo_planner.workloads.generators import poisson
    >>> setup = ClusterSetup.aggregated(Profile.bundled("llama31-8b_h100_vllm_tp1"), replicas=1, max_replicas=4)
    >>> env = ArrayScalingEnv(ScalingEnv(setup, poisson(5, 60, seed=1), sla=Sla(ttft_ms=500, itl_ms=25)))
    >>> env.action_space.names, env.action_space.low.tolist(), env.action_space.high.tolist()
    (('workers',), [1], [4])
    >>> observation, _ = env.reset(seed=7)
    >>> dict(zip(env.observation_space.names, observation.tolist(), strict=True))["workers.ready"]
    1.0
    """

    def __init__(self, env: ScalingEnv) -> None:
        self.env = env
        specs = {name: pool.spec for name, pool in env.setup.pools.items()}
        most = [MOST_REPLICAS if spec.max_replicas is None else spec.max_replicas for spec in specs.values()]
        low, high = np.array([spec.min_replicas for spec in specs.values()]), np.array(most)
        names = (*SERVICE_NUMBERS, *(f"{pool}.{name}" for pool in specs for name in POOL_NUMBERS))
        bounds = np.full((2, len(names)), [[UNKNOWN], [np.inf]], np.float32)
        self.action_space = Box(tuple(specs), low, high)
        self.observation_space = Box(names, bounds[0], bounds[1])

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode; see :meth:`ScalingEnv.reset`."""
        snapshot, information = self.env.reset(seed=seed, options=options)
        return self._array(snapshot), information

    def step(self, action: NDArray[np.integer[Any]]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Scale the pools to these counts, in the order of ``action_space.names``; see :meth:`ScalingEnv.step`."""
        replicas = dict(zip(self.action_space.names, action.tolist(), strict=True))
        snapshot, reward, terminated, truncated, information = self.env.step(replicas)
        return self._array(snapshot), reward, terminated, truncated, information

    def _array(self, snapshot: Snapshot) -> NDArray[np.float32]:
        numbers = [getattr(snapshot.traffic, name) for name in SERVICE_NUMBERS]
        for pool in self.action_space.names:
            status = snapshot.pools[pool]
            numbers += [getattr(status.replicas, name) for name in POOL_NUMBERS[:4]]
            numbers += [getattr(status, name) for name in POOL_NUMBERS[4:]]
        known = [number.mean if isinstance(number, Dist) else number for number in numbers]
        return np.array([UNKNOWN if number is None else number for number in known], np.float32)
