"""The environment of Gymnasium passes that library's own check, and its wrappers."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics

from dynamo_planner import Profile, Sla
from dynamo_planner.evaluation import ScalingEnv
from dynamo_planner.evaluation.gymnasium_env import GymnasiumEnv
from dynamo_planner.simulator import ClusterSetup
from dynamo_planner.workloads import poisson


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Box observation space maximum value is infinity")
def test_gymnasium_accepts_it() -> None:
    profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
    setup = ClusterSetup.disaggregated(profile, prefill=1, decode=1, startup_s=20, max_replicas=4)
    trace = poisson(requests_per_s=2, duration_s=40, seed=1)
    env = GymnasiumEnv(ScalingEnv(setup, trace, sla=Sla(ttft_ms=500, itl_ms=25)))
    check_env(env, skip_render_check=True)
    wrapped = RecordEpisodeStatistics(FlattenObservation(env))
    wrapped.reset(seed=3)
    for _ in range(4):
        observation, _, terminated, _, info = wrapped.step(np.array([2, 3]))
    assert terminated
    assert dict(zip(env.names, observation, strict=True))["decode.target"] == 3
    assert info["episode"]["l"] == 4
