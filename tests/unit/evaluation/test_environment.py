"""The cluster as an environment: episodes, rewards, bounds."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner import Sla
from dynamo_planner.evaluation.gym_env import POOL_NUMBERS, SERVICE_NUMBERS, ArrayScalingEnv, ScalingEnv
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.generators import poisson

TIMING = LinearTiming(base_ms=10, prefill_ms_per_token=0.1, kv_ms_per_token=0)
SETUP = ClusterSetup.aggregated(TIMING, 1, startup_s=15, gpus=2, max_replicas=3, kv_tokens=50_000)


def env(ttft_ms: float = 1000.0) -> ScalingEnv:
    return ScalingEnv(SETUP, poisson(4, 95, seed=1), sla=Sla(ttft_ms=ttft_ms, itl_ms=100), price_of_a_miss=1.0)


def test_an_episode_pays_for_gpus_and_ends_with_the_trace() -> None:
    made = env()
    snapshot, _ = made.reset(seed=1)
    assert snapshot.at_s == 0 and snapshot.pools["workers"].replicas is not None
    rewards, ends = [], []
    for _ in range(10):
        snapshot, reward, terminated, truncated, information = made.step({"workers": 9})
        rewards.append(reward)
        ends.append(terminated)
        assert not truncated
    assert ends == [False] * 9 + [True]
    assert snapshot.at_s == 95
    assert rewards[3] == pytest.approx(-2 * 3 * 10 / 3600)  # three workers of two GPUs, at most, for ten seconds
    unfinished = information["missed"]
    assert sum(rewards) == pytest.approx(-made.cluster.gpu_seconds() / 3600 - unfinished)


def test_misses_are_paid_once() -> None:
    made = env(ttft_ms=1.0)
    made.reset()
    missed = sum(made.step({})[4]["missed"] for _ in range(10))
    assert missed == len(made.cluster.trace)


def test_another_episode_is_the_same_with_the_same_seed() -> None:
    made = env()
    runs = []
    for _ in range(2):
        made.reset(seed=3)
        runs.append([made.step({"workers": replicas})[1] for replicas in (1, 2, 3, 1)])
    assert runs[0] == runs[1]


def test_there_is_no_step_before_an_episode() -> None:
    with pytest.raises(RuntimeError, match=r"call reset\(\) first"):
        env().step({"workers": 1})


def test_arrays_are_within_their_spaces_and_act_alike() -> None:
    arrays, plain = ArrayScalingEnv(env()), env()
    assert arrays.observation_space.shape == (len(SERVICE_NUMBERS) + len(POOL_NUMBERS),)
    assert arrays.action_space.contains(np.array([1])) and not arrays.action_space.contains(np.array([4]))
    observation, _ = arrays.reset(seed=1)
    plain.reset(seed=1)
    assert arrays.observation_space.contains(observation)
    assert observation[0] == -1  # nothing has been measured yet
    for _ in range(4):
        observation, reward, *_ = arrays.step(np.array([3]))
        snapshot, same_reward, *_ = plain.step({"workers": 3})
        assert arrays.observation_space.contains(observation)
        assert reward == same_reward
    numbers = dict(zip(arrays.observation_space.names, observation.tolist(), strict=True))
    assert snapshot.traffic.requests_per_s is not None and snapshot.traffic.isl is not None
    assert numbers["requests_per_s"] == pytest.approx(snapshot.traffic.requests_per_s)
    assert numbers["isl"] == pytest.approx(snapshot.traffic.isl.mean)
    assert (numbers["workers.ready"], numbers["workers.target"]) == (3, 3)
