"""The engine by example, against laws and against textbook queues."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
from dynamo_planner.simulator.engine.step_time import GridTiming, LinearTiming, Slowed, StepTiming

EXACT = LinearTiming(base_ms=125, prefill_ms_per_token=62.5, kv_ms_per_token=31.25)  # all sums exact in binary


def engine(timing: StepTiming = EXACT, *, seqs: int = 8, tokens: int = 64, kv: int = 1000) -> Engine:
    return Engine(EngineLimits(max_num_seqs=seqs, max_num_batched_tokens=tokens, kv_tokens=kv), timing)


def test_a_prefill_worker_serves_prompts_in_batches_up_to_the_token_budget() -> None:
    """Budget 64: 40 + 24 of the second prompt, then its other 16 with all of the third. 125 ms + 62.5 ms a token."""
    made = engine()
    requests = [made.submit(40, 1, 0.0) for _ in range(3)]
    made.advance(math.inf)
    ends = [0.125 + 64 * 0.0625, 2 * 0.125 + 120 * 0.0625, 2 * 0.125 + 120 * 0.0625]
    assert [request.finished_s for request in requests] == ends
    assert [request.scheduled_s for request in requests] == [0.0, 0.0, ends[0]]


def test_inter_token_latency_grows_with_batch_and_context() -> None:
    """Two prefilled requests of 10 tokens: step k reads 2 x (10 + k - 1) tokens of context."""
    made = engine()
    requests = [made.submit(10, 3, 0.0, cached=10) for _ in range(2)]
    steps = [0.125 + 0.03125 * 2 * (10 + k) for k in range(3)]
    made.advance(math.inf)
    assert [request.first_token_s for request in requests] == [steps[0]] * 2
    assert [request.finished_s for request in requests] == [sum(steps)] * 2


def test_chunked_prompts_share_each_step_with_decoding() -> None:
    """A prompt of 100 beside one decoding request and a budget of 64: chunks of 63 and 37, each step with a token."""
    made = engine(LinearTiming(base_ms=125, prefill_ms_per_token=62.5, kv_ms_per_token=0))
    decoding = made.submit(5, 50, 0.0, cached=5)
    made.advance(0.0)
    prompt = made.submit(100, 1, 0.0)
    first, second = 0.125 + 63 * 0.0625, 0.125 + 37 * 0.0625
    made.advance(first)
    assert made.generated(decoding) == 1
    made.advance(first + second)
    assert (prompt.first_token_s, made.generated(decoding)) == (first + second, 2)


def test_a_full_kv_cache_preempts_the_latest_and_computes_it_again() -> None:
    """20 tokens of cache, two requests of 8: after two tokens each they hold 20, and the third does not fit."""
    made = engine(kv=20)
    first, second = (made.submit(8, 10, 0.0, cached=8) for _ in range(2))
    kinds = [(event.kind, event.request) for event in made.advance(math.inf)]
    assert kinds == [
        ("first_token", first),
        ("first_token", second),
        ("preempted", second),
        ("finished", first),
        ("finished", second),
    ]
    assert (made.preemptions, second.preemptions, first.preemptions) == (1, 1, 0)
    assert made.recomputed_tokens == 8 + 3 - 1  # its context but for the token that had no KV yet


def test_who_waits_for_kv_keeps_its_place() -> None:
    made = engine(kv=100)
    big, blocked, small = made.submit(60, 20, 0.0), made.submit(60, 1, 0.0), made.submit(1, 1, 0.0)
    made.advance(math.inf)
    assert big.finished_s and blocked.scheduled_s == big.finished_s
    assert small.finished_s == blocked.finished_s


def test_slowed_takes_longer_in_proportion() -> None:
    for timing in (LinearTiming(), GridTiming(lambda p, b, kv: 1 + p + b + kv / 100, 50)):
        fast, slow = engine(timing), engine(Slowed(timing, 4))
        for made in (fast, slow):
            made.submit(50, 100, 0.0)
        (_, end), (_, slow_end) = fast.advance(math.inf), slow.advance(math.inf)
        assert slow_end.at_s == pytest.approx(4 * end.at_s)


def test_nothing_to_do_is_infinitely_far_away() -> None:
    made = engine()
    assert made.next_event_s() == made.next_step_s() == math.inf
    assert made.advance(5.0) == []
    made.submit(1, 1, 7.0)
    assert made.next_event_s() == 7.0 + 0.125 + 0.03125


def poisson(rate: float, count: int, seed: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate, count))


@pytest.mark.slow
@pytest.mark.parametrize("utilization", [0.3, 0.6, 0.8])
def test_a_single_prefill_slot_is_an_m_d_1_queue(utilization: float) -> None:
    """Pollaczek-Khinchine with a constant service time s: mean wait = rho s / (2 (1 - rho))."""
    service_s = 0.1
    made = engine(LinearTiming(base_ms=50, prefill_ms_per_token=1, kv_ms_per_token=0), seqs=1)
    requests = [made.submit(50, 1, float(at_s)) for at_s in poisson(utilization / service_s, 60_000, seed=7)]
    made.advance(math.inf)
    waits = [request.scheduled_s - request.arrival_s for request in requests]
    assert np.mean(waits) == pytest.approx(utilization * service_s / (2 * (1 - utilization)), rel=0.06)


@pytest.mark.slow
def test_decoding_without_limits_is_an_m_g_infinity_queue() -> None:
    """Steps of constant length and no limit: the number in the batch is Poisson with mean rate x osl x step, and half a
    step of waiting for the step in progress is all that a request waits."""
    made = engine(
        LinearTiming(base_ms=20, prefill_ms_per_token=0, kv_ms_per_token=0), seqs=10_000, tokens=10_000, kv=10**8
    )
    counts = []
    for at_s in poisson(40.0, 40_000, seed=3):
        made.submit(10, 50, float(at_s), cached=10)
        counts.append(made.running)
    assert np.mean(counts[1000:]) == pytest.approx(40.0 * 50 * 0.02, rel=0.03)
    assert np.var(counts[1000:]) == pytest.approx(40.0 * 50 * 0.02, rel=0.1)


@pytest.mark.parametrize(
    ("isl", "osl", "cached", "message"),
    [
        (0, 1, 0, r"isl \(0\)"),
        (1, 0, 0, r"osl \(0\)"),
        (5, 5, 6, r"cached \(6\)"),
        (5, 5, -1, r"cached \(-1\)"),
        (600, 402, 0, r"more than the KV cache holds \(1000\)"),
    ],
)
def test_a_request_that_can_never_be_served_is_refused(isl: int, osl: int, cached: int, message: str) -> None:
    made = engine()
    with pytest.raises(ValueError, match=message):
        made.submit(isl, osl, 0.0, cached)
    assert made.next_event_s() == math.inf


def test_time_only_goes_forward() -> None:
    made = engine()
    made.advance(5.0)
    for late in (4.9, math.nan):
        with pytest.raises(ValueError, match="time only goes forward"):
            made.submit(1, 1, late)
    assert made.waiting == 0


def test_limits_that_starve_a_request_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"max_num_batched_tokens \(8\) must be at least max_num_seqs \(9\)"):
        EngineLimits(max_num_seqs=9, max_num_batched_tokens=8)


@pytest.mark.parametrize("ms", [0.0, -1.0, math.nan, math.inf])
def test_a_profile_without_a_duration_is_refused(ms: float) -> None:
    made = engine(GridTiming(lambda prompts, decoding, kv: ms, 10))
    with pytest.raises(ValueError, match=r"step_ms\(0, 0, 0\) is"):
        made.submit(5, 5, 0.0)
        made.advance(1.0)
