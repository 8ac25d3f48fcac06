"""Arrivals are what left by every door and what is inside, or unknown: never low."""

from __future__ import annotations

import pytest

from dynamo_planner.core.snapshot import Observation, Role
from dynamo_planner.sources import ScrapeSource
from dynamo_planner.sources.aggregation.arrivals import Flow, UncountedError, arrivals_of
from tests.support.sources.farm import Farm, Vllm


def observe(farm: Farm, *pages: str, role: Role = "aggregated", every_s: float = 10.0) -> Observation:
    source = ScrapeSource({"chat": farm.urls("w")}, {"chat": role})
    for turn, page in enumerate(pages):
        farm.pages = {"w": page}
        observation = source.observe(1000 + every_s * turn)
    return observation


@pytest.mark.parametrize("given_up", [0.2, 0.5, 1.0])
def test_requests_that_clients_of_vllm_give_up_have_had_a_first_token(farm: Farm, given_up: float) -> None:
    """20 come in a second; the end of those that are given up is not counted. If some wait, there may be more."""
    for waiting in (0, 5):
        pages = [
            Vllm(done=int(200 * turn * (1 - given_up)), ttft_s=(0.3,) * 200 * turn, running=30, waiting=waiting).page()
            for turn in range(4)
        ]
        observation = observe(farm, *pages)
        assert observation.traffic.requests_per_s == pytest.approx(20, rel=0.02)
        more = observation.missing.get("traffic.requests_per_s.at_least", "")
        assert ("before a first token are not counted" in more) == bool(waiting)


def test_what_first_tokens_show_within_the_noise_counts_but_for_prefills_of_before(farm: Farm) -> None:
    """117 ended and 14 more run: 131 of 149. Of 147 first tokens 3 + 29 / 5 may be of requests that came before."""
    pages = [
        Vllm(ttft_s=(0.1,) * 100, done=85, running=15).page(),
        Vllm(ttft_s=(0.1,) * 247, done=202, running=29).page(),
    ]
    assert observe(farm, *pages).traffic.requests_per_s == pytest.approx((147 - 8.8) / 10)


def test_without_aborts_completions_and_what_is_inside_count(farm: Farm) -> None:
    """First tokens run ahead of completions while the batch fills; nothing is counted twice."""
    pages = [
        Vllm(ttft_s=(0.3,) * 4, running=4).page(),
        Vllm(done=30, ttft_s=(0.3,) * 64, running=34, waiting=6).page(),
    ]
    assert observe(farm, *pages).traffic.requests_per_s == pytest.approx((30 + 30 + 6) / 10)


def test_a_preempted_request_that_waits_again_is_no_arrival(farm: Farm) -> None:
    pages = [
        Vllm(ttft_s=(0.3,) * 50, done=10, running=40).page(),
        Vllm(ttft_s=(0.3,) * 60, done=20, running=10, waiting=30, preempted=30).page(),
    ]
    assert observe(farm, *pages).traffic.requests_per_s == pytest.approx(1)


def test_a_queue_that_is_given_up_makes_arrivals_unknown(farm: Farm) -> None:
    observation = observe(farm, Vllm(running=5, waiting=90).page(), Vllm(running=5, done=20).page())
    assert observation.traffic.requests_per_s is None
    assert "a frontend would count them (w)" in observation.missing["traffic.requests_per_s"]


def test_a_queue_that_fills_hides_no_queue_that_was_given_up(farm: Farm) -> None:
    """80 come, 60 of which wait and are given up, and 100 come: 180 over 20 s, of which the totals show 120."""
    pages = [
        Vllm(ttft_s=(0.3,) * 10, done=10).page(),
        Vllm(ttft_s=(0.3,) * 30, done=30, waiting=60).page(),
        Vllm(ttft_s=(0.3,) * 50, done=50).page(),
        Vllm(ttft_s=(0.3,) * 70, done=70, waiting=60).page(),
    ]
    observation = observe(farm, *pages)
    assert observation.traffic.requests_per_s is None
    assert "60 requests fewer are inside, 20 ended" in observation.missing["traffic.requests_per_s"]


def test_of_a_long_queue_a_few_first_tokens_too_many_tell(farm: Farm) -> None:
    """120 more wait; of 42 first tokens 30 requests ended: 12 were given up after it, and more may have been before."""
    pages = [
        Vllm(ttft_s=(0.3,) * 100, done=95, running=5, waiting=200).page(),
        Vllm(ttft_s=(0.3,) * 142, done=125, running=5, waiting=320).page(),
    ]
    observation = observe(farm, *pages)
    assert observation.traffic.requests_per_s == pytest.approx((42 + 120) / 10)
    assert "traffic.requests_per_s.at_least" in observation.missing


def test_what_many_workers_lose_a_little_of_each_is_seen_together(farm: Farm) -> None:
    """Each of 12 workers has given up two requests after their first token, which by itself is noise."""
    names = [f"w{number}" for number in range(12)]
    source = ScrapeSource({"chat": farm.urls(*names)}, {"chat": "aggregated"})
    for turn in range(2):
        farm.pages = dict.fromkeys(names, Vllm(ttft_s=(0.3,) * 2 * turn).page())
        observation = source.observe(1000 + 10 * turn)
    assert observation.traffic.requests_per_s == pytest.approx(2.4)


def sglang(ended: int, aborted: int | None = None, running: int = 8, waiting: int = 0, **queues: int) -> str:
    lines = [f"sglang:num_running_reqs {running}", f"sglang:num_queue_reqs {waiting}"]
    lines += [f"sglang:num_requests_total {ended}"]
    lines += [] if aborted is None else [f"sglang:num_aborted_requests_total {aborted}"]
    return "\n".join([*lines, *(f"sglang:num_{name}_reqs {value}" for name, value in queues.items()), ""])


def test_requests_that_clients_of_sglang_give_up_while_they_wait(farm: Farm) -> None:
    pages = [sglang(10 + 4 * turn, 7 + 80 * turn, waiting=50) for turn in range(4)]
    assert observe(farm, *pages).traffic.requests_per_s == pytest.approx(8.4)


def test_where_it_is_unclear_which_are_counted_twice_it_is_unknown(farm: Farm) -> None:
    observation = observe(farm, *(sglang(60 * turn, 50 * turn) for turn in range(4)))
    assert observation.traffic.requests_per_s is None
    assert "150 requests were given up" in observation.missing["traffic.requests_per_s"]


def test_a_release_without_a_counter_of_aborts(farm: Farm) -> None:
    assert observe(farm, sglang(0), sglang(50, waiting=10)).traffic.requests_per_s == pytest.approx(6)


@pytest.mark.parametrize(
    ("role", "queues"),
    [
        ("aggregated", {"grammar_queue": 40}),
        ("prefill", {"grammar_queue": 10, "prefill_bootstrap_queue": 20, "prefill_inflight_queue": 10}),
        ("decode", {"grammar_queue": 10, "decode_prealloc_queue": 10, "decode_transfer_queue": 20}),
    ],
)
def test_wherever_a_request_waits_it_has_arrived(farm: Farm, role: Role, queues: dict[str, int]) -> None:
    before = sglang(0, **dict.fromkeys(queues, 0))
    observation = observe(farm, before, sglang(20, **queues), role=role)
    assert observation.pools["chat"].traffic is not None
    assert observation.pools["chat"].traffic.requests_per_s == pytest.approx(6)


def test_noise_of_one_step_is_no_door() -> None:
    assert arrivals_of(Flow(ended=40, inside=-41, running=2)) == -1, (
        "a worker of a pool; the pool's sum is not negative"
    )
    assert arrivals_of(Flow(ended=40, inside=0, first_tokens=43, waiting=0, preemptions=0)) == 40
    assert arrivals_of(Flow(ended=40, inside=None)) is None
    with pytest.raises(UncountedError):
        arrivals_of(Flow(ended=40, inside=-50))
