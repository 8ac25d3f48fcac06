"""Prefill and decode apart: requests that skip prefill, and counts that cannot both be right."""

from __future__ import annotations

import pytest

from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources import ScrapeSource
from tests.support.sources.farm import Farm, Vllm


def observe(farm: Farm, prefill: list[Vllm | None], decode: list[Vllm]) -> Observation:
    """Three pages of a prefill worker, or of none, and of a decode worker, 10 s apart."""
    here = {"prefill": farm.urls("p") if prefill[0] else {}, "decode": farm.urls("d")}
    source = ScrapeSource(here, {"prefill": "prefill", "decode": "decode"})
    for turn, (before, after) in enumerate(zip(prefill, decode, strict=True)):
        farm.pages = {"d": after.page()}
        if before:
            farm.pages["p"] = before.page()
        observation = source.observe(1000 + 10 * turn)
    return observation


def through(per_turn: int, isl: float, **more: float) -> list[Vllm]:
    return [
        Vllm(done=per_turn * turn, isl=(isl,) * per_turn * turn, ttft_s=(0.1,) * per_turn * turn, **more)  # type: ignore[arg-type]
        for turn in range(3)
    ]


def test_requests_that_skip_prefill_are_counted_by_decode(farm: Farm) -> None:
    observation = observe(farm, [*through(20, 900)], through(200, 90))
    traffic = observation.traffic
    assert traffic.requests_per_s == pytest.approx(20)
    assert traffic.isl is not None
    assert traffic.isl.mean == pytest.approx(90)
    assert traffic.ttft_ms is None
    assert "prefill counts 2 requests/s and decode 20" in observation.missing["traffic.ttft_ms"]
    assert observation.pools["prefill"].traffic is not None
    assert observation.pools["prefill"].traffic.requests_per_s == pytest.approx(2)


def test_without_a_prefill_worker_decode_serves_all(farm: Farm) -> None:
    traffic = observe(farm, [None] * 3, through(100, 90)).traffic
    assert traffic.requests_per_s == pytest.approx(10)


def test_requests_that_pass_both_count_once(farm: Farm) -> None:
    observation = observe(farm, [*through(100, 900)], through(103, 900))
    assert observation.traffic.requests_per_s == pytest.approx(10.3), "the higher of two that agree"
    assert observation.traffic.ttft_ms is not None


def test_what_waits_for_prefill_has_not_come_to_decode(farm: Farm) -> None:
    """60 in a second come, prefill does 20: decode counts those."""
    waiting = [Vllm(done=200 * turn, waiting=400 * turn) for turn in range(3)]
    assert observe(farm, [*waiting], through(200, 90)).traffic.requests_per_s == pytest.approx(60)


def test_what_ends_between_the_two_makes_arrivals_unknown(farm: Farm) -> None:
    observation = observe(farm, [*through(300, 90)], through(30, 90))
    assert observation.traffic.requests_per_s is None
    assert "prefill counts 30 requests/s and decode 3" in observation.missing["traffic.requests_per_s"]


def test_decode_that_does_not_say_leaves_them_unknown(farm: Farm) -> None:
    fell = [Vllm(done=900), Vllm(done=800), Vllm(done=900)]
    observation = observe(farm, [*through(30, 90)], fell)
    assert observation.traffic.requests_per_s is None
    assert "those of decode are unknown" in observation.missing["traffic.requests_per_s"]
