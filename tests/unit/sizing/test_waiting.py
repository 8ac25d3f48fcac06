"""Batched steps and the waiting for them, by hand: a step takes 10 ms and 0.1 ms for each token."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from dynamo_planner import Profile, Sla
from dynamo_planner.core.metrics import Dist
from dynamo_planner.profiles import PrefillCurve, PrefillPoints
from dynamo_planner.sizing import Arrivals, Load, PercentileSizing
from dynamo_planner.sizing.batching import Batching, PromptService, PromptSteps, in_chunks_s
from dynamo_planner.sizing.own_queue import waits_longer
from dynamo_planner.sizing.waiting import Service, late_shares

STEP_TOKENS = np.geomspace(10, 1000, 400)
STEP_S = (10 + 0.1 * STEP_TOKENS) / 1000


def test_a_step_computes_what_came_during_the_one_before() -> None:
    batching = Batching(np.full(4, 100.0), np.full(4, 0.020), STEP_TOKENS, STEP_S, within_s=0.08)
    # 5 tokens/ms: a step of 100 tokens takes 20 ms, in which 100 come. Grown to 300 it takes 40 ms, a third for each.
    service = batching.at(np.array([50.0]), np.array([0.180]))
    assert service.step_s[0] == pytest.approx(0.020, rel=1e-3)
    assert service.mean_s[0] == pytest.approx(0.040 / 3, rel=1e-3)
    # Steps of half the target, 40 ms, have 300 tokens, three prompts: 13.3 ms each. Two steps have two prompts.
    assert batching.least_s == pytest.approx(0.04 / 3, rel=0.01)
    ahead_s = 2 * 0.020 + 0.45 * (0.04 / 3) * np.sqrt(2 * 1 * 0.5) - 0.020
    assert service.left_s[0, 0] == pytest.approx(0.180 - ahead_s, rel=1e-2)


def test_prompts_one_at_a_time_and_then_with_batching() -> None:
    batching = Batching(np.full(4, 100.0), np.full(4, 0.020), STEP_TOKENS, STEP_S, within_s=0.2)
    both = PromptService(np.full(4, 0.020), np.full(4, 0.180), batching, step_s=0.005).at(np.array([50.0]))
    assert both.mean_s == pytest.approx([0.020, 0.040 / 3], rel=1e-3)
    assert both.left_s[0] == pytest.approx(0.175)
    assert both.step_s == pytest.approx([0.005, 0.020], rel=1e-3)


def test_a_prompt_of_several_chunks_takes_their_steps_and_no_less_than_was_measured() -> None:
    # 2300 tokens are two steps of 110 ms and one of 40 ms.
    assert in_chunks_s(np.array([2300.0, 300]), STEP_TOKENS, STEP_S) == pytest.approx([0.260, 0.040], rel=1e-3)
    curve = PrefillCurve(PrefillPoints(isl=[10, 100, 300, 1000, 2300], ttft_ms=[11, 20, 40, 110, 400]))
    alone_s, batching = PromptSteps(curve, 1000).prompts(np.array([2300.0, 300]), 2.0, within_s=10.0)
    assert alone_s == pytest.approx([0.800, 0.080], rel=0.01)
    # A full step takes 220 ms: 300 tokens take 300/1000 of it. Of 2300 tokens the last 300 share a step.
    assert batching.least_s == pytest.approx((0.800 - 0.080 + 0.066 + 0.066) / 2, rel=0.01)


def test_a_backlog_makes_a_replica_slower_where_full_steps_take_more_per_token() -> None:
    """Steps of 0.1 ms per token, and of up to twice that for the square: 1,000 tokens take 200 ms."""
    step_s = (0.1 * STEP_TOKENS + 0.1 * STEP_TOKENS**2 / 1000) / 1000
    batching = Batching(np.full(4, 100.0), np.full(4, 0.011), STEP_TOKENS, step_s, within_s=0.08)
    assert batching.least_s == pytest.approx(0.1 * 0.200, rel=1e-3)
    # 5 tokens/ms are done by the shortest steps; while prompts wait, a prompt of 100 tokens is a step by itself.
    assert batching.at(np.array([50.0]), np.array([0.180])).mean_s[0] == pytest.approx(0.011, rel=0.01)


@pytest.mark.parametrize(("left_s", "late"), [(0.0, 0.0), (-0.005, 0.25), (-0.015, 0.75), (-0.03, 1.0)])
def test_what_is_left_of_the_step_under_way_is_anything_up_to_all_of_it(left_s: float, late: float) -> None:
    service = Service(np.array([0.01]), np.array([0.0]), np.array([0.02]), np.full((1, 12), left_s))
    found = late_shares(Arrivals(1.0), np.array([50.0]), service, ("least_loaded",))
    assert found[0, 0] == pytest.approx(late, abs=1e-6)


def test_prompts_that_come_to_the_replica_with_the_fewest_requests_wait_longer_than_those_of_a_pool() -> None:
    twice = np.ones(2)
    service = Service(0.2 * twice, twice, 0.02 * twice, np.full((2, 12), 0.5))
    pooled, own = late_shares(Arrivals(30.0), np.array([5.0, 8]), service, ("least_loaded", "fewest_requests"))
    assert pooled[0] == own[0] == 1  # six replicas are busy
    assert pooled[1] < 0.02
    assert own[1] > 0.2


def test_the_path_is_what_replicas_lag_behind_by() -> None:
    # One slot of ten brings 30 requests of 0.1 s to one replica that does 10: it lags 2 s then, and 1 s, and none.
    path = np.array([0.0] * 7 + [3.0, 0.0, 0.0])
    arrivals = Arrivals(10.0, 1.0, 1.0, path)
    ones = np.ones(1)
    service = Service(0.1 * ones, 0 * ones, 1e-9 * ones, np.full((1, 12), 5.0))
    assert late_shares(arrivals, np.array([1.5]), service, ("least_loaded",))[0, 0] < 1e-3
    within = service._replace(left_s=np.full((1, 12), 0.9))
    # The requests of the burst find from no lag to (3 - 1.5) / 1.5 = 1 s of it: half of them count at its end.
    assert late_shares(arrivals, np.array([1.5]), within, ("least_loaded",))[0, 0] >= 0.5


def test_each_count_is_judged_as_if_it_were_the_only_one() -> None:
    arrivals = Arrivals(10.0, 1.0, 1.0, np.array([0.0] * 7 + [3.0, 0.0, 0.0]))

    def late(*counts: float) -> list[float]:
        ones = np.ones(len(counts))
        service = Service(0.1 * ones, 0 * ones, 1e-9 * ones, np.full((len(counts), 12), 0.5))
        return [float(share) for share in late_shares(arrivals, np.array(counts), service, ("least_loaded",))[0]]

    assert late(1.2, 1.5, 2.5) == pytest.approx([*late(1.2), *late(1.5), *late(2.5)])


@pytest.mark.parametrize(("isl", "low", "high"), [(4000, 1, 2), (16_000, 6, 9), (32_000, 11, 24)])
def test_a_pool_of_nearly_empty_replicas_is_no_set_of_single_queues(
    h100: Profile, isl: int, low: int, high: int
) -> None:
    """8 and 11 keep 99 % of the attainable ones in the simulated cluster; single queues took 73 and 305."""
    load = Load.of(2.0, Dist(mean=isl, cv2=1), Dist(mean=250, cv2=1))
    need = PercentileSizing(h100).replicas_for(load, Sla(ttft_ms=500, itl_ms=25), ("aggregated",))["aggregated"]
    assert low <= need.replicas <= high


def test_waiting_at_one_replica_is_the_exponential_of_the_docstring() -> None:
    # l = 5/s, s = 0.1 s, a = 0.5, I + c**2 = 2: u = 2 t, and the exponent (2 t)**2 / (2 5 2t 0.01 2) = 10 t.
    ones = np.ones(1)
    service = Service(0.1 * ones, ones, 1e-9 * ones, np.full((1, 12), 0.2))
    late = late_shares(Arrivals(5.0), ones, service, ("least_loaded",))[0, 0]
    assert late == pytest.approx(0.5 * np.exp(-2), rel=1e-6)


def test_the_transfer_takes_of_the_target_and_ranks_share_the_prompts() -> None:
    one = Profile.from_points(
        isl=[100, 1000, 10_000],
        ttft_ms=[20, 110, 1010],
        max_kv_tokens=1e6,
        batch=[1, 8, 64],
        context=[500] * 3,
        itl_ms=[5, 6, 9],
    )
    two = one.replace(prefill_points=one.prefill_points.replace(ranks=2))
    sla = Sla(ttft_ms=200, itl_ms=50)
    near, far = (Load.of(5, Dist(mean=1000, cv2=0), 100, kv_transfer_ms=each) for each in (80, 95))
    needs = [PercentileSizing(one).replicas_for(load, sla, ("prefill",))["prefill"] for load in (near, far)]
    assert [need.unattainable for need in needs] == [0.0, 1.0]
    shared = PercentileSizing(two).replicas_for(near, sla, ("prefill",))["prefill"]
    assert shared.load == pytest.approx(needs[0].load / 2)


def test_prompts_that_take_turns_wait_behind_long_ones_only() -> None:
    # Ten replicas of 10/s in turn: each has a prompt a second, regularly. One in ten takes 1.5 s, the others 0.1 s, so
    # that the one behind it waits for 0.5 s, and for longer behind two of them, which is one in a hundred.
    ones, shape = np.ones(1), np.array([0.1] * 9 + [1.5]) / 0.24
    longer = waits_longer(ones, 0.001 * ones, 0.24 * ones, shape, np.array([[0.3, 0.7, 1.2]]))
    assert longer[0] == pytest.approx([0.1, 0.02, 0.001], abs=0.012)
    # Those that come at any time do so during a long one, too: 0.138 and 0.016 of them, in a simulation.
    poisson = waits_longer(ones, ones, 0.24 * ones, shape, np.array([[0.3, 1.5]]))
    assert poisson[0] == pytest.approx([0.138, 0.016], abs=0.002)


def test_round_robin_takes_more_replicas_than_least_loaded_and_random_more_again(h100: Profile) -> None:
    load, sla = Load.of(60, Dist(mean=3000, cv2=1), 100), Sla(ttft_ms=800, itl_ms=30)
    counts = [
        PercentileSizing(h100, routing=routing).replicas_for(load, sla, ("prefill",))["prefill"].replicas
        for routing in ("least_loaded", "round_robin", "random")
    ]
    assert counts[0] < counts[1] < counts[2] < 4 * counts[0]


def test_a_replica_with_a_queue_gets_fewer_prompts_the_fewer_requests_decode_beside_it() -> None:
    # One replica, 5/s of 0.1 s: ten prompts ahead take 1 s. Of b = 20 and itself, I + c**2 = 2 + 1 + 1 = 4: a factor of
    # exp(-1 / (0.1**2 21 4)) = 0.304; of b = 0 nothing comes while it has a prompt, exp(-(0.1 + 2 0.9) / (0.1 4)).
    ones = np.ones(1)
    service = Service(0.1 * ones, ones, 1e-9 * ones, np.full((1, 12), 1.0))
    ask = partial(late_shares, Arrivals(5.0), ones, service, ("fewest_requests",))
    open_queue, many, none = ask()[0, 0], ask(beside=20 * ones)[0, 0], ask(beside=0 * ones)[0, 0]
    assert many / open_queue == pytest.approx(np.exp(-1 / 0.84))
    assert none / open_queue == pytest.approx(np.exp(-1.9 / 0.4))
