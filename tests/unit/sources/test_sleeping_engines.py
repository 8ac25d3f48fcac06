"""An engine that sleeps answers, and is no capacity."""

from __future__ import annotations

from dynamo_planner.core.metrics import PoolMetrics
from dynamo_planner.sources import ScrapeSource
from tests.support.sources.farm import Farm, Vllm


def observe(farm: Farm, **workers: Vllm) -> tuple[PoolMetrics, dict[str, str]]:
    farm.pages = {name: worker.page() for name, worker in workers.items()}
    observation = ScrapeSource({"chat": farm.urls(*workers)}, {"chat": "aggregated"}).observe(1000)
    return observation.pools["chat"], dict(observation.missing)


def test_a_worker_that_sleeps_lowers_the_coverage_and_no_mean(farm: Farm) -> None:
    busy, asleep = Vllm(kv=0.8, running=30, waiting=4), Vllm(kv=0, awake=0)
    pool, missing = observe(farm, a=busy, b=asleep, c=busy.but(kv=0.6))
    assert pool.kv_usage == 0.7
    assert (pool.running, pool.queued) == (60, 8)
    assert (pool.coverage, pool.asleep, pool.kv_usage_max) == (2 / 3, 1, 0.8)
    assert "asleep" in missing["pools.chat.workers.b"]
    assert "pools.chat.workers.a" not in missing


def test_workers_that_say_nothing_of_sleep_leave_the_number_unknown(farm: Farm) -> None:
    other = "sglang:num_running_reqs 1\nsglang:num_queue_reqs 0\n"
    farm.pages = {"a": Vllm(awake=0).page(), "b": other}
    observation = ScrapeSource({"chat": farm.urls("a", "b")}, {"chat": "aggregated"}).observe(1000)
    assert (observation.pools["chat"].coverage, observation.pools["chat"].asleep) == (0.5, None)
    assert "SGLang has no metric of an engine that sleeps" in observation.missing["pools.chat.asleep"]


def test_a_pool_that_sleeps_is_no_empty_one(farm: Farm) -> None:
    pool, missing = observe(farm, a=Vllm(kv=0, awake=0))
    assert (pool.coverage, pool.asleep) == (0, 1)
    assert (pool.kv_usage, pool.kv_usage_max) == (None, None)
    assert missing["pools.chat.kv_usage"] == "all of its workers are asleep"


def test_one_of_two_engines_of_a_worker_sleeps(farm: Farm) -> None:
    second = 'vllm:engine_sleep_state{engine="1",model_name="tiny",sleep_state="awake"} 0'
    pool, missing = observe(farm, a=Vllm(kv=0.5, more=(second,)))
    assert (pool.coverage, pool.asleep) == (0.5, 0.5)
    assert "pools.chat.workers.a" not in missing
