"""The simulated cluster as an environment of Gymnasium (extra ``gym``), for its wrappers and learners.

>>> from dynamo_planner import Profile, Sla
>>> from dynamo_planner.simulator.setup import ClusterSetup
>>> from dynamo_planner.workloads.generators import poisson
>>> setup = ClusterSetup.aggregated(Profile.bundled("llama31-8b_h100_vllm_tp1"), replicas=1, max_replicas=4)
>>> env = GymnasiumEnv(ScalingEnv(setup, poisson(5, 60, seed=1), sla=Sla(ttft_ms=500, itl_ms=25)))
>>> env.action_space
MultiDiscrete([4], start=[1])
>>> observation, _ = env.reset(seed=7)
>>> observation.shape, observation in env.observation_space
((13,), True)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.evaluation.gym_env import ArrayScalingEnv, ScalingEnv

with needs_extra("gym"):
    import gymnasium
    from gymnasium import spaces

Observation = NDArray[np.float32]
Action = NDArray[np.int64]


class GymnasiumEnv(gymnasium.Env[Observation, Action]):
    """A :class:`~dynamo_planner.evaluation.ScalingEnv` with Gymnasium's spaces.

    An observation is an array of floats, in the order of ``names``, where -1 stands for unknown. An action is the
    replicas of each pool, in the order of ``pools``, from the least to the most of their specs. An episode without a
    seed takes the next one of Gymnasium's generator, so that no two are alike.

    Args:
        env: the environment whose snapshots and actions become arrays.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # as its base class has it

    def __init__(self, env: ScalingEnv) -> None:
        self._arrays = ArrayScalingEnv(env)
        observed, acted = self._arrays.observation_space, self._arrays.action_space
        self.names, self.pools = observed.names, acted.names
        self.observation_space = spaces.Box(observed.low, observed.high, dtype=np.float32)
        self.action_space = spaces.MultiDiscrete(acted.high - acted.low + 1, start=acted.low)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; ``options`` may hold another ``trace``."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31))
        return self._arrays.reset(seed=drawn, options=options)

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Scale the pools to these counts, and let ``interval_s`` pass."""
        return self._arrays.step(np.asarray(action))
