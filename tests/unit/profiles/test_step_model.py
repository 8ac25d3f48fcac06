"""Step costs learned from live pools, and the profile that is drawn from them."""

from __future__ import annotations

import pytest

from dynamo_planner import Dist, PoolSpec, PoolStatus, Replicas, Traffic
from dynamo_planner.core.metrics import StageTimes
from dynamo_planner.profiles import Profile
from dynamo_planner.profiles.learned_profile import LearnedEngine, learned_fields
from dynamo_planner.profiles.observed_steps import MeanRequest, observed_steps
from dynamo_planner.profiles.step_model import StepModel, StepSample
from dynamo_planner.profiles.steps import StepCosts

HOUR_S = 3600.0
REQUEST = MeanRequest(prompt_tokens=1000, prompt_cv2=0.0, output_tokens=200, context=1100)


def pool(role: str, **seen: object) -> PoolStatus:
    return PoolStatus.model_validate({"spec": PoolSpec(role=role), "replicas": Replicas(ready=2), **seen})


def test_one_observation_sets_the_scale_and_the_common_shape_the_rest() -> None:
    costs = StepModel().plus(StepSample(20.0, prefill_tokens=240, sampled=100), 60).costs()
    # 240 prompt tokens take as long as an empty step: 10 ms each.
    assert costs.base_ms == pytest.approx(10)
    assert costs.ms_per_prefill_token == pytest.approx(10 / 240)
    assert costs.ms_per_request == pytest.approx(10 / 260)
    assert costs.ms_per_kv_token == pytest.approx(10 / 300_000)


def test_a_known_cache_says_what_a_kv_token_costs() -> None:
    model = StepModel().plus(StepSample(10.0, sampled=100), 60)
    assert model.costs(cache_tokens=500_000).ms_per_kv_token == pytest.approx(10 / (0.4 * 500_000))


@pytest.mark.parametrize("name", ["llama31-8b_h100_vllm_tp1", "llama31-70b_h100_vllm_tp4"])
def test_a_day_of_changing_batches_is_the_measured_curve(name: str) -> None:
    measured, model = Profile.bundled(name), StepModel()
    for batch in (4, 16, 48, 24, 8) * 4:
        step_ms = float(measured.step_ms(0, batch, 1100 * batch))
        model = model.faded(600).plus(StepSample(step_ms, requests=batch, kv_tokens=1100 * batch, sampled=1000), 600)
    cache = measured.decode.max_kv_tokens
    costs = model.costs(cache)
    for batch in (4, 20, 60):
        step_ms = float(measured.step_ms(0, batch, 1100 * batch))
        assert costs.step_ms(0, batch, 1100 * batch) == pytest.approx(step_ms, rel=0.06)
    assert model.fit(cache).error(StepSample(0, requests=60, kv_tokens=66_000)) < 0.06


def test_costs_are_never_negative() -> None:
    model = StepModel()
    for batch in (1, 64):  # steps that seem to be quicker the more requests there are
        model = model.plus(StepSample(20 - batch / 8, requests=batch, kv_tokens=1000 * batch, sampled=1000), 4 * HOUR_S)
    costs = model.costs()
    assert min(costs.model_dump().values()) >= 0
    assert costs.step_ms(0, 64, 64_000) >= costs.step_ms(0, 1, 1000)


def test_what_is_no_longer_observed_returns_to_the_shape() -> None:
    model = StepModel()
    for batch in (1, 64):
        model = model.plus(StepSample(10 + batch, requests=batch, kv_tokens=100 * batch, sampled=1000), 4 * HOUR_S)
    far = StepSample(0, requests=128, kv_tokens=12_800)
    assert model.costs().step_ms(0, 128, 12_800) > 100
    later = model.faded(24 * HOUR_S).plus(StepSample(11, requests=1, kv_tokens=100, sampled=1000), HOUR_S)
    assert later.costs().step_ms(0, 128, 12_800) < 30
    assert later.fit().error(far) > 2 * model.fit().error(far)


def test_nothing_is_said_out_of_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was observed"):
        StepModel().costs()


def test_a_decode_pool_shows_its_step_by_the_itl() -> None:
    (seen,) = observed_steps(pool("decode", running=20), Traffic(itl_ms=Dist(mean=9, count=50)), REQUEST, 5, 2048)
    assert seen == StepSample(9.0, 1.0, 0.0, requests=10, kv_tokens=11_000, sampled=50)


def test_a_prefill_pool_shows_a_prompt_alone() -> None:
    stages = StageTimes(prefill_ms=Dist(mean=44, count=30), queue_ms=Dist(mean=5))
    (seen,) = observed_steps(pool("prefill", stages=stages), Traffic(), REQUEST, 5, 2048)
    # A prompt of 1000 tokens costs as much as 1000 + 1000**2 / 60,000 of short ones.
    assert tuple(seen) == pytest.approx((40.5, 1.0, 1000 + 1000**2 / 60_000, 0.0, 0.0, 30))
    waiting = StageTimes(prefill_ms=Dist(mean=44), queue_ms=Dist(mean=23))
    assert observed_steps(pool("prefill", stages=waiting), Traffic(), REQUEST, 5, 2048) == ()


def test_an_aggregated_pool_shows_steps_with_the_prompts_of_others() -> None:
    stages = StageTimes(prefill_ms=Dist(mean=100, count=30), queue_ms=Dist(mean=5))
    status = pool("aggregated", running=20, stages=stages)
    itl, prefill = observed_steps(status, Traffic(itl_ms=12), REQUEST, 4, 2010)
    # The other 9 requests bring 1016.67 / 200 = 5.08 prompt tokens with each token.
    assert tuple(itl) == pytest.approx((12.0, 1.0, 9 * 5.08333, 10.0, 11_000.0, 1.0))
    # 4 a second bring 0.4 prompts in 100 ms, which share the step.
    assert tuple(prefill) == pytest.approx((100.0, 1, 1.4 * 1016.6667, 10.0, 11_000.0, 30.0))
    *_, chunked = observed_steps(status, Traffic(itl_ms=12), REQUEST, 4, 560)
    # 1000 tokens are two chunks of 550 beside 10 requests, with room for another 100.
    assert tuple(chunked) == pytest.approx((100.0, 2, 1100, 20.0, 22_000.0, 30.0))


def test_a_learned_profile_says_what_its_costs_say() -> None:
    costs = StepCosts(base_ms=6, ms_per_prefill_token=0.02, ms_per_request=0.02, ms_per_kv_token=2e-5)
    engine = LearnedEngine(costs, batch=64, kv_tokens=200_000)
    profile = Profile(**learned_fields(engine, engine, aggregated=True, gpus=2))
    assert profile.max_batch == pytest.approx(64)
    assert profile.decode.max_kv_tokens == 200_000
    assert profile.decode_points.gpus == 2
    for batch, context in ((1, 100), (20, 1000), (64, 2500), (6, 30_000)):
        step_ms = costs.step_ms(0, batch, batch * context)
        assert profile.step_ms(0, batch, batch * context) == pytest.approx(step_ms, rel=0.01)
    assert profile.prefill.ttft_ms(6000) == pytest.approx(6 + 0.02 * (6000 + 6000**2 / 60_000), rel=0.02)
    assert profile.step_ms(512, 20, 20_000) == pytest.approx(costs.step_ms(512 + 512**2 / 60_000, 20, 20_000), rel=0.02)
