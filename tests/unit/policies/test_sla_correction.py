"""How much of what is observed of engines is believed. Numbers are worked by hand."""

from __future__ import annotations

import math

import pytest

from dynamo_planner.policies.sla.correction import Correction, Mean, PromptQueue
from dynamo_planner.profiles.observed_steps import prompts_alone_ms


@pytest.mark.parametrize(
    ("requests", "ratio", "factor"),
    [
        (100, 2.0, 2 ** (100 / 150)),  # the profile weighs as much as 50 requests
        (50, 0.5, 0.5**0.5),
        (1e9, 1.03, 1.0),  # within 3 % of the profile
        (1e9, 1.2, 1.2),
        (1e9, 10.0, 4.0),  # a fault of the metrics counts as 4 times
    ],
)
def test_a_correction_goes_by_how_many_requests_say_so(requests: float, ratio: float, factor: float) -> None:
    assert Correction(requests, seen=ratio * requests, expected=requests).factor(8) == pytest.approx(factor)


def test_a_mean_has_a_prior_of_50_requests_and_fades_in_10_minutes() -> None:
    mean = Mean().with_sample(20.0, 150, 10)
    assert mean.value(40.0) == pytest.approx((150 * 20 + 50 * 40) / 200)
    assert mean.with_sample(30.0, 25, 600) == Mean(75 + 25, 75 * 20 + 25 * 30)
    assert Correction(100, 200, 100).with_sample(3.0, 1.0, 10, 600) == Correction(60, 130, 60)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("log_ratio", "logs", "part"),
    [(0.055, (0.03, 0.08), 0.5), (0.04, (0.03, 0.08), 0.2), (0.08, (0.03, 0.08), 1.0), (0.2, (0.16, 0.3), 2 / 7)],
)
def test_a_correction_counts_on_a_line_between_two_ratios(
    sign: int, log_ratio: float, logs: tuple[float, float], part: float
) -> None:
    seen = math.exp(sign * log_ratio)
    assert Correction(150, 150 * seen, 150).factor(4.0, logs) == pytest.approx(math.exp(sign * 0.75 * part * log_ratio))


def test_a_correction_stays_within_its_limit_and_fades_as_it_is_told() -> None:
    for ratio, factor in ((3.0, 1.5), (1 / 3, 1 / 1.5)):
        assert Correction(1e9, ratio * 1e9, 1e9).factor(1.5) == pytest.approx(factor)
    assert Correction(100, 0.0, 100).factor(4.0) == Correction(100, 100, 0.0).factor(4.0) == 1.0
    assert Correction(100, 200, 100).with_sample(3.0, 1.0, 10, 60, half_life_s=30) == Correction(35, 80, 35)


def test_a_queue_that_several_replicas_share() -> None:
    """0.1 s at 30/s keep four busy for three quarters: 0.1 (1 + 1.2 / 2 * 0.75**2.1623 / (4 * 0.25))."""
    queue = PromptQueue(service_s=0.1, variation=1.2, rate=30.0, replicas=4.0)
    assert queue.utilisation == pytest.approx(0.75)
    assert queue.ttft_s(1.0) == pytest.approx(0.1 * (1 + 0.6 * 0.75 ** (10**0.5 - 1)))
    assert queue.ttft_s(2.0) == pytest.approx(0.2 * (1 + 0.6 * 0.999 ** (10**0.5 - 1) / (4 * 0.001)))  # cut off
    assert queue.slowness(queue.ttft_s(0.6)) == pytest.approx(0.6, abs=0.001)
    assert queue.slowness(1e9) == pytest.approx(4 / 3, abs=0.001)  # all of the time
    idle = PromptQueue(service_s=0.1, variation=1.2, rate=1.0, replicas=4.0)
    assert idle.slowness(1e9) == pytest.approx(4.0, abs=0.002)  # a fault of the metrics


def test_the_time_in_the_queue_that_is_in_that_of_steps() -> None:
    assert prompts_alone_ms(44, 5) == pytest.approx(44 - 0.7 * 5)
    assert prompts_alone_ms(44, 22) is not None
    assert prompts_alone_ms(44, 23) is None  # a backlog


def test_a_queue_of_prompts_is_that_of_mm1_and_back() -> None:
    """0.1 s at 5/s keep one replica busy for half of the time: ``0.1 / (1 - 0.5)``."""
    queue = PromptQueue(service_s=0.1, variation=2.0, rate=5.0, replicas=1.0)
    assert queue.utilisation == 0.5
    assert queue.ttft_s(1.0) == pytest.approx(0.2)
    assert queue.slowness(queue.ttft_s(1.3)) == pytest.approx(1.3, abs=0.001)
    assert queue.explained(queue.ttft_s(1.3)) == pytest.approx(1.3, abs=0.001)
    assert queue.explained(0.15) == 1  # less waiting than one at a time: several in a step
    assert queue.explained(0.08) == pytest.approx(0.8)
