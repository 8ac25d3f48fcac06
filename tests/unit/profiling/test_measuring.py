"""Measuring in simulated time: what a burst says, which one comes next, and that the profile is that of the engine."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynamo_planner.profiles import Profile, ProfileError
from dynamo_planner.profiling.answer_checks import check_answers
from dynamo_planner.profiling.capacity import kv_capacity
from dynamo_planner.profiling.engine import Answer, Answers, Burst, Limits, ProfilingError, Prompt, Stop
from dynamo_planner.profiling.experiments import Domain, staircase
from dynamo_planner.profiling.fit import Smoothed, smoothed_itl
from dynamo_planner.profiling.measured import Measured
from dynamo_planner.profiling.plan import Experiment
from dynamo_planner.profiling.readings import DecodeReading, PromptReading, readings
from dynamo_planner.profiling.session import Goal, measure
from dynamo_planner.profiling.simulated import NoisyTiming, SimulatedEngine
from dynamo_planner.profiling.stream_events import take
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming, ProfileTiming

LIMITS = EngineLimits(max_num_seqs=32, max_num_batched_tokens=1024, kv_tokens=60_000)
LAW = LinearTiming(base_ms=10, prefill_ms_per_token=0.05, kv_ms_per_token=1e-4)
DOMAIN = Domain(max_isl=8000, max_context=8000, max_batch=32, kv_tokens=60_000, step_tokens=1024)


def session(engine: SimulatedEngine, domain: Domain, minutes: float, told: Limits) -> Measured:
    *_, last = measure(engine, domain, Goal(minutes=minutes, error=0.0), Measured(limits=told))
    assert last.next is None
    assert last.why
    return last.measured


def test_a_staircase_reads_the_steps_of_its_engine() -> None:
    steps = staircase(DOMAIN, 500, 8, lambda batch, _: np.full(len(batch), 0.01))
    answers = SimulatedEngine(LAW, LIMITS, offset_s=0.02).run(steps.burst(DOMAIN))
    found = readings(answers, 1024)
    assert [reading.batch for reading in found.decode] == [1, 2, 4, 8]
    for reading in found.decode:
        assert reading.itl_ms == pytest.approx(10 + 1e-4 * reading.batch * reading.context, rel=0.002)
    assert {reading.prefill_tokens for reading in found.mixed} >= {1016, 254, 15}
    for mixed in found.mixed:
        alone = 10 + 1e-4 * mixed.batch * mixed.context
        assert mixed.step_ms == pytest.approx(alone + 0.05 * mixed.prefill_tokens, rel=0.01)


def test_the_fullest_batch_is_read_where_it_takes_much_longer_than_the_others() -> None:
    steep = LinearTiming(base_ms=10, prefill_ms_per_token=0.05, kv_ms_per_token=2e-3)
    steps = staircase(DOMAIN, 4000, 12, lambda batch, context: (10 + 2e-3 * batch * context) / 1000)
    full = readings(SimulatedEngine(steep, LIMITS).run(steps.burst(DOMAIN)), 1024).decode[-1]
    assert full.batch == 12
    assert full.itl_ms == pytest.approx(10 + 2e-3 * 12 * full.context, rel=0.01)


def test_batches_that_are_slower_than_expected_are_read_all_the_same() -> None:
    steps = staircase(
        DOMAIN, 500, 8, lambda batch, _: np.full(len(batch), 0.002)
    )  # the engine takes five times as long
    found = readings(SimulatedEngine(LAW, LIMITS).run(steps.burst(DOMAIN)), 1024)
    assert [reading.batch for reading in found.decode] == [1, 2, 4, 8]


def test_a_step_that_is_often_long_counts_and_one_that_is_seldom_so_does_not() -> None:
    def smoothed(long: int) -> Smoothed:
        times = [16.0 if number % 24 < long else 10.0 for number in range(0, 24 * 7, 7)]
        return smoothed_itl([[(2, 300 + number, ms)] for number, ms in enumerate(times)])

    often, once = smoothed(3), smoothed(1)
    assert np.mean(often.rows[:, 2]) == pytest.approx(10 * 1.6 ** (3 / 24), rel=0.02)
    assert often.error.p95 > 0.2
    assert once.rows[:, 2] == pytest.approx(10, rel=0.01)


def test_few_staircases_are_not_enough_to_be_sure() -> None:
    engine = SimulatedEngine(LAW, LIMITS)
    told = Measured(limits=Limits(kv_tokens=60_000, max_num_batched_tokens=1024))
    *_, last = measure(engine, DOMAIN, Goal(minutes=5.0, error=0.5), told)
    assert last.why == "every curve is within 50 %"
    assert len(last.measured.decode) == 8


def test_an_engine_that_is_too_slow_for_the_time_is_told() -> None:
    slow = LinearTiming(base_ms=3000, prefill_ms_per_token=0.05, kv_ms_per_token=0)
    with pytest.raises(ProfilingError, match="no decode step could be read, though the first requests were given 10 s"):
        session(SimulatedEngine(slow, LIMITS), DOMAIN, 0.3, Limits())


def test_tokens_that_were_kept_back_during_a_long_step_leave_it_one_step() -> None:
    answer = Answer(isl=8, sent_s=0.0)
    for number in range(1, 18):
        take({"timings": {"predicted_n": number}}, answer, 0.1 * number)
    take({"timings": {"predicted_n": 20}}, answer, 3.7)  # two tokens of 0.1 s, and one of 1.8 s
    assert np.diff(answer.token_s)[-3:] == pytest.approx([0.1, 0.1, 1.8])


def test_the_offset_is_without_the_tokens_of_the_shortest_prompt() -> None:
    prompts = (PromptReading(16, 56.0), PromptReading(64, 140.0), PromptReading(128, 280.0))
    measured = Measured(prompts=prompts, decode=((DecodeReading(1, 100.0, 8.0), DecodeReading(2, 100.0, 12.0)),))
    assert measured.offset_ms == pytest.approx(56 - 15 * 2 - 8)


def test_streams_that_are_buffered_and_engines_that_hang_are_told() -> None:
    experiment = Experiment(Burst((Prompt(100, 60),) * 2), "ITL of up to 2 requests of 100 tokens", 1.0)
    at_once = [Answer(isl=100, sent_s=0.0, first_s=0.8, last_s=0.8, tokens=60, token_s=[0.8] * 60) for _ in range(2)]
    with pytest.raises(ProfilingError, match="the 60 tokens of an answer came at once"):
        check_answers(experiment, Answers(at_once, []), DOMAIN)
    silent = [Answer(isl=100, sent_s=0.0) for _ in range(2)]
    with pytest.raises(ProfilingError, match="no token came in the time given"):
        check_answers(experiment, Answers(silent, [], stopped=True), DOMAIN)


def test_tokens_in_packets_and_pauses_do_not_change_an_itl() -> None:
    times = [0.01 * (5 * (k // 5)) + (0.2 if k > 31 else 0.0) for k in range(60)]  # five at a time, and once a pause
    answer = Answer(isl=100, sent_s=-0.5, first_s=times[0], last_s=times[-1], tokens=60, token_s=times)
    (reading,) = readings(Answers([answer], []), None).decode
    assert reading.batch == 1
    assert reading.itl_ms == pytest.approx(10, rel=0.15)


@pytest.mark.slow
def test_a_minute_knows_an_aggregated_engine() -> None:
    truth = Profile.bundled("llama31-8b_h100_vllm_tp1")
    limits = EngineLimits(max_num_seqs=64, max_num_batched_tokens=2048, kv_tokens=432_992)
    timing = NoisyTiming(ProfileTiming(profile=truth), noise=0.02, outliers=0.005)
    engine = SimulatedEngine(timing, limits, offset_s=0.02, jitter_s=0.0005)
    domain = Domain(max_isl=16_000, max_context=16_000, max_batch=64, kv_tokens=432_992, step_tokens=2048)
    measured = session(engine, domain, 1.0, Limits(kv_tokens=432_992, max_num_batched_tokens=2048))
    profile = measured.profile()
    assert engine.busy_s < 75
    assert measured.offset_ms == pytest.approx(20, abs=5)
    batch, context = np.array([1, 2, 5, 12, 30, 60, 60]), np.array([700, 9000, 2000, 600, 3000, 400, 1500])
    itl = np.abs(profile.decode.step_ms(batch, context) / truth.decode.step_ms(batch, context) - 1)
    assert np.median(itl) < 0.03
    assert itl.max() < 0.1
    tokens, beside = np.array([64, 200, 500, 900, 1500, 1900]), np.array([1, 8, 3, 20, 40, 60])
    steps = [each.step_ms(tokens, beside, beside * 1500) for each in (profile, truth)]
    assert np.median(np.abs(steps[0] / steps[1] - 1)) < 0.05
    ends = measured.errors
    assert ends["itl"].p95 < 0.1
    assert ends["ttft"].median < 0.05


def test_the_halves_of_a_disaggregated_service_are_joined() -> None:
    prefill = session(
        SimulatedEngine(LAW, EngineLimits(max_num_batched_tokens=16_384), role="prefill", offset_s=0.015),
        DOMAIN.replace(role="prefill", step_tokens=None),
        0.1,
        Limits(),
    )
    with pytest.raises(ProfileError, match="0 batches were measured"):
        prefill.profile()
    decode = session(
        SimulatedEngine(LAW, LIMITS, role="decode"), DOMAIN.replace(role="decode"), 0.3, Limits(kv_tokens=60_000)
    )
    profile = decode.joined(prefill).profile()
    assert profile.decode.max_kv_tokens == 60_000
    assert profile.decode.step_ms(10, 2000) == pytest.approx(12, rel=0.02)
    assert profile.prefill.ttft_ms(4000) == pytest.approx(10 + 200, rel=0.02)
    assert decode.joined(prefill).offset_ms == pytest.approx(15, abs=2)


class Dying(SimulatedEngine):
    """An engine that dies after so many prompts on an idle engine."""

    lives = math.inf

    def run(self, burst: Burst, stop: Stop | None = None) -> Answers:
        answers = super().run(burst, stop)
        self.lives -= len(answers.chain)
        if self.lives < 0:
            for answer in answers.chain[int(self.lives) :]:
                answer.first_s, answer.failure = math.nan, "cannot connect"
            raise ProfilingError("it is dead", answers)
        return answers


def test_an_engine_that_dies_among_the_first_prompts_leaves_those_that_it_answered() -> None:
    engine, told = Dying(LAW, LIMITS), Measured(limits=Limits(kv_tokens=60_000, max_num_batched_tokens=1024))
    engine.lives = 6 + 3 * 5 + 1  # to warm up, and five lengths three times
    left = told
    with pytest.raises(ProfilingError, match="it is dead"):
        for progress in measure(engine, DOMAIN, Goal(minutes=0.3), told):
            left = progress.measured
    asked = list(left.ttfts)
    assert len(asked) == 6
    assert not left.decode
    assert left.spent_s > 0
    resumed = next(measure(SimulatedEngine(LAW, LIMITS), DOMAIN, Goal(minutes=0.3), left))
    assert resumed.next is not None
    assert resumed.next.purpose == "TTFT of 6 prompts up to 8000 tokens"
    assert min(prompt.isl for prompt in resumed.next.burst.chain) > max(asked)
    *_, last = measure(SimulatedEngine(LAW, LIMITS), DOMAIN, Goal(minutes=0.3), left)
    assert last.measured.profile().prefill.ttft_ms(4000) == pytest.approx(4 * 10 + 200, rel=0.05)


def test_a_capacity_that_is_not_told_is_found() -> None:
    found = kv_capacity(SimulatedEngine(LAW, LIMITS), max_context=8000, max_batch=64)
    assert found == pytest.approx(60_000, rel=0.05)
    assert kv_capacity(SimulatedEngine(LAW, LIMITS), max_context=2000, max_batch=8) is None


def test_an_engine_that_holds_less_than_it_says() -> None:
    engine = SimulatedEngine(LAW, LIMITS.replace(max_num_seqs=8))
    with pytest.raises(ProfilingError, match=r"only 8 of 31 ran at once.*--max-concurrency 8"):
        session(engine, DOMAIN, 1.0, Limits(kv_tokens=60_000, max_num_batched_tokens=1024))


class Hasty(SimulatedEngine):
    """An engine that ends answers when it likes to."""

    def run(self, burst: Burst, stop: Stop | None = None) -> Answers:
        answers = super().run(burst, stop)
        for answer in answers.together:
            answer.tokens = min(answer.tokens, 3)
        return answers


def test_answers_that_end_early_are_no_figures() -> None:
    with pytest.raises(ProfilingError, match=r"4 of 4 answers ended early, the first after 3 of \d+ tokens"):
        session(Hasty(LAW, LIMITS), DOMAIN, 1.0, Limits(kv_tokens=60_000, max_num_batched_tokens=1024))


def test_an_experiment_that_never_ends_is_ended() -> None:
    def stop(now_s: float, _: object) -> bool:
        return now_s > 1.0

    engine = SimulatedEngine(LAW, LIMITS)
    steps = staircase(DOMAIN, 500, 32, lambda batch, _: np.full(len(batch), 0.01)).burst(DOMAIN)
    answers = engine.run(steps, stop)
    assert answers.stopped
    assert any(math.isnan(answer.last_s) for answer in answers.together)
    assert not math.isnan(engine.run(steps).together[0].last_s)


def test_what_was_measured_survives_json() -> None:
    engine = SimulatedEngine(LAW, LIMITS)
    measured = session(engine, DOMAIN, 0.2, Limits(kv_tokens=60_000, max_num_batched_tokens=1024))
    assert Measured.model_validate_json(measured.model_dump_json()) == measured
