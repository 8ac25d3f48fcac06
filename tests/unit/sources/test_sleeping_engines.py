"""An engine that sleeps answers, and is no capacity."""

from __future__ import annotations

from dynamo_planner.core.metrics import PoolMetrics
from dynamo_planner.sources import ScrapeSource
from tests.support.sources.farm import Farm, Vllm


def state(awake: int, engine: str = "0") -> tuple[str, ...]:
    labels = f'engine="{engine}",model_name="tiny"'
    return (
        f'vllm:engine_sleep_state{{{labels},sleep_state="awake"}} {awake}',
        f'vllm:engine_sleep_state{{{labels},sleep_state="weights_offloaded"}} {1 - awake}',
        f'vllm:engine_sleep_state{{{labels},sleep_state="discard_all"}} 0',
    )


def observe(farm: Farm, **workers: Vllm) -> tuple[PoolMetrics, dict[str, str]]:
    farm.pages = {name: worker.page() for name, worker in workers.items()}
    observation = ScrapeSource({"chat": farm.urls(*workers)}, {"chat": "aggregated"}).observe(1000)
    return observation.pools["chat"], dict(observation.missing)


def test_a_worker_that_sleeps_lowers_the_coverage_and_no_mean(farm: Farm) -> None:
    busy, asleep = Vllm(kv=0.8, running=30, waiting=4, more=state(1)), Vllm(kv=0, more=state(0))
    pool, missing = observe(farm, a=busy, b=asleep, c=busy.but(kv=0.6))
    assert pool.kv_usage == 0.7
    assert (pool.running, pool.queued) == (60, 8)
    assert pool.coverage == 2 / 3
    assert "asleep" in missing["pools.chat.workers.b"]
    assert "pools.chat.workers.a" not in missing


def test_a_pool_that_sleeps_is_no_empty_one(farm: Farm) -> None:
    pool, missing = observe(farm, a=Vllm(kv=0, more=state(0)))
    assert pool.coverage == 0
    assert pool.kv_usage is None
    assert missing["pools.chat.kv_usage"] == "all of its workers are asleep"


def test_one_of_two_engines_of_a_worker_sleeps(farm: Farm) -> None:
    pool, missing = observe(farm, a=Vllm(kv=0.5, more=(*state(1), *state(0, "1"))))
    assert pool.coverage == 0.5
    assert "pools.chat.workers.a" not in missing
