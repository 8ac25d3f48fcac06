"""What SlaPolicy learns of its engines, judged by exact simulations of queues that share nothing with its formulas."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import pytest

from dynamo_planner import PoolSpec, PoolStatus, Replicas, Snapshot, Traffic
from dynamo_planner.core.metrics import Dist
from dynamo_planner.policies.sla import LearnedCapacity
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.capacity import EngineEvidence
from dynamo_planner.policies.sla.correction import Correction
from dynamo_planner.policies.sla.lengths import ObservedLengths, learned
from dynamo_planner.policies.sla.sliding_maximum import SlidingMaximum, largest, with_requirement
from dynamo_planner.policies.sla.tick import Engine, Tick
from dynamo_planner.sizing import Load
from tests.support.sla_service import PROFILE

WINDOW_S = 30.0
SERVICE_S = 0.2


def simulated(
    servers: int, load: float, slower: float, seed: int, hours: float = 1.0
) -> list[tuple[float, float, float]]:
    """Per window: arrivals per second, the mean TTFT in ms of those that were served, and the queue at its end.

    Poisson arrivals, log-normal service of a squared coefficient of variation of 1, first come, first served.
    """
    rng = np.random.default_rng(seed)
    rate = load * servers / SERVICE_S
    arrival_s = np.cumsum(rng.exponential(1 / rate, int(rate * 3600 * hours)))
    service_s = slower * SERVICE_S * rng.lognormal(-0.5 * np.log(2), np.sqrt(np.log(2)), len(arrival_s))
    free = [0.0] * servers
    start_s = np.empty_like(arrival_s)
    for i, (arrival, service) in enumerate(zip(arrival_s.tolist(), service_s.tolist(), strict=True)):
        start_s[i] = max(free[0], arrival)
        heapq.heapreplace(free, start_s[i] + service)
    ttft_ms = 1000 * (start_s + service_s - arrival_s)
    windows: list[tuple[float, float, float]] = []
    for end_s in np.arange(WINDOW_S, arrival_s[-1], WINDOW_S):
        came = (arrival_s > end_s - WINDOW_S) & (arrival_s <= end_s)
        done = came & (start_s + service_s <= end_s)
        queued = int(((arrival_s <= end_s) & (start_s > end_s)).sum())
        windows.append((came.sum() / WINDOW_S, float(ttft_ms[done].mean()) if done.any() else 0.0, queued))
    return windows


LINEAR = PROFILE.replace(prefill_points=PROFILE.prefill_points.replace(isl=(10, 1000, 40_000), ttft_ms=(2, 200, 8000)))
"""A profile with 0.2 ms for each prompt token."""


def learned_of(servers: int, load: float, slower: float, offset_ms: float = 0.0, itl_ms: float | None = None) -> Any:
    """What is learned in an hour from the TTFT, without stage times."""
    capacity, state = LearnedCapacity(), None
    for number, (rate, ttft_ms, queued) in enumerate(simulated(servers, load, slower, seed=1)):
        at_s = WINDOW_S * number
        traffic = Traffic(requests_per_s=rate, ttft_ms=(ttft_ms and ttft_ms + offset_ms) or None, itl_ms=itl_ms)
        pool = PoolStatus(spec=PoolSpec(role="prefill"), replicas=servers)
        snapshot = Snapshot(at_s=at_s, traffic=traffic, pools={"prefill": pool})
        tick = Tick("prefill", pool, Replicas(ready=servers), snapshot, 1.0, Engine(), 60.0)
        work = Load.of(rate, Dist(mean=1000, cv2=1), 200)
        arrivals = ArrivalWindow(at_s, rate, WINDOW_S, WINDOW_S)
        state = capacity.learn(state, EngineEvidence(tick, queued, arrivals, work, LINEAR))
    return capacity.estimate(state, tick, 0.0, LINEAR)


@pytest.mark.parametrize("servers", [1, 4, 16])
@pytest.mark.parametrize("load", [0.2, 0.5, 0.7])
def test_waiting_does_not_change_the_engine(servers: int, load: float) -> None:
    """At a load of 0.7 one server has a mean TTFT of 3.3 times the service time, and is none the slower for it."""
    assert learned_of(servers, load, slower=1.0).slowness == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("servers", [2, 8])
def test_engines_a_third_slower_than_profiled_are_found_out(servers: int) -> None:
    assert learned_of(servers, 0.5, slower=1.3).slowness == pytest.approx(1.3, rel=0.1)


def test_a_ttft_makes_engines_faster_only_where_it_leaves_no_other_reading() -> None:
    """Prompts of 140 ms, not 200, and 60 ms to the first token look like prompts of 200 ms with nothing after them:
    these are sized for. Without the 60 ms the TTFT is less than the profiled prompt alone, and the engine is faster."""
    found = learned_of(4, 0.3, slower=0.7, offset_ms=60, itl_ms=40)
    assert (found.slowness, found.offset_ms) == (1, pytest.approx(0, abs=8))
    assert learned_of(4, 0.3, slower=0.7, itl_ms=40).slowness == pytest.approx(0.7, rel=0.1)


@pytest.mark.parametrize("slower", [1.0, 1.4])
def test_the_first_step_of_decode_is_no_slow_prefill(slower: float) -> None:
    """With an ITL of 40 ms the first token comes 60 ms after the prompt, that is 1.5 steps; 0.2 s are the prompt's."""
    found = learned_of(4, 0.3, slower, offset_ms=60.0, itl_ms=40.0)
    assert found.slowness == pytest.approx(slower, rel=0.06)
    assert found.offset_ms == pytest.approx(60, rel=0.15)


def test_an_overload_teaches_nothing_wrong() -> None:
    """Twice the load that it can carry: the backlog is not taken for a slow engine."""
    assert learned_of(4, 2.0, slower=1.0).slowness == 1


def test_an_overload_shows_what_full_replicas_do_and_no_more_than_half_as_slow() -> None:
    """Two replicas complete 4 requests/s each where the sizing says 0.2 s of work for each, 5 a second: 1.25 times."""
    capacity, state = LearnedCapacity(), None
    for number in range(20):
        pool = PoolStatus(spec=PoolSpec(role="prefill"), replicas=2, queued=100, running=10)
        snapshot = Snapshot(at_s=30 * number, traffic=Traffic(requests_per_s=8, window_s=30), pools={"prefill": pool})
        tick = Tick("prefill", pool, Replicas(ready=2), snapshot, 1.0, Engine(), 60.0)
        arrivals, work = ArrivalWindow(30.0 * number, 8.0, 30.0, 30.0), Load.of(8, 1000, 200)
        evidence = EngineEvidence(tick, 100.0, arrivals, work, LINEAR, lambda: (0.2, 1.0))
        state = capacity.learn(state, evidence)
    assert capacity.estimate(state, tick, 100.0, LINEAR).slowness == pytest.approx(1.25, rel=0.02)
    assert state is not None
    joined = state._replace(ready=1)  # the second gets none of what waits, so that the first alone completes 8 a second
    assert capacity.learn(joined, evidence).busy == state.busy
    much = state._replace(busy=state.busy._replace(seen=3 * state.busy.expected))
    assert capacity.estimate(much, tick, 100.0, LINEAR).slowness == pytest.approx(1.5, rel=0.02)


def test_queues_at_both_ends_of_a_window_of_ten_minutes_are_chance() -> None:
    """One replica that is half idle, 23 a second by the sizing and 12 that come: three that wait every 10 minutes say
    nothing of its speed."""
    capacity, state = LearnedCapacity(), None
    for number in range(20):
        pool = PoolStatus(spec=PoolSpec(role="prefill"), replicas=1, queued=3, running=1)
        traffic = Traffic(requests_per_s=12, window_s=600)
        snapshot = Snapshot(at_s=600 * number, traffic=traffic, pools={"prefill": pool})
        tick = Tick("prefill", pool, Replicas(ready=1), snapshot, 1.0, Engine(), 60.0)
        arrivals = ArrivalWindow(600.0 * number, 12.0, 600.0, 600.0)
        evidence = EngineEvidence(tick, 3.0, arrivals, Load.of(12, 1000, 200), LINEAR, lambda: (1 / 23, 1.0))
        state = capacity.learn(state, evidence)
    assert capacity.estimate(state, tick, 3.0, LINEAR).slowness == 1


def test_what_waits_for_decode_is_no_slow_prefill_and_no_offset() -> None:
    """A queue of 1,000 in front of decode makes TTFTs of 5 s: nothing is learned of prefill until it has passed."""
    capacity, state = LearnedCapacity(), None
    for number, queued in enumerate([0.0] * 10 + [1000.0] * 10):
        pools = {
            "prefill": PoolStatus(spec=PoolSpec(role="prefill"), replicas=2, queued=0, running=1),
            "decode": PoolStatus(
                spec=PoolSpec(role="decode"), replicas=2, queued=queued, stages={"first_token_ms": 20 + 5 * queued}
            ),
        }
        traffic = Traffic(requests_per_s=4, window_s=30, isl=1000, osl=200, itl_ms=10, ttft_ms=120 + 5 * queued)
        snapshot = Snapshot(at_s=30 * number, traffic=traffic, pools=pools)
        tick = Tick("prefill", pools["prefill"], Replicas(ready=2), snapshot, 1.0, Engine(), 60.0)
        arrivals = ArrivalWindow(30.0 * number, 4.0, 30.0, 30.0)
        state = capacity.learn(state, EngineEvidence(tick, 0.0, arrivals, Load.of(4, 1000, 200), LINEAR))
        if number == 9:
            calm = state
    assert state is not None and calm.offset.weight > 0
    assert (state.offset, state.speed) == (calm.offset, calm.speed)


def test_engines_within_three_percent_of_the_profile_are_taken_for_it() -> None:
    """At 1.0565 times, ``ln = 0.055`` is half the way from 0.03 to 0.08: half of it counts, and half of that is trusted
    after 50 requests: ``exp(0.01375)``."""
    assert Correction(1e9, 1.03, 1.0).factor(4) == 1
    assert Correction(50, 1.05654, 1.0).factor(4) == pytest.approx(1.01385, abs=1e-3)
    assert Correction(1e9, 1.3, 1.0).factor(4) == pytest.approx(1.3)
    assert Correction(1e9, 9.0, 1.0).factor(3) == 3


def test_the_spread_of_lengths_is_estimated_from_the_means_of_intervals() -> None:
    rng = np.random.default_rng(3)
    for cv2 in (0.3, 2.0):
        sigma = np.sqrt(np.log1p(cv2))
        lengths: ObservedLengths | None = None
        for drift in np.linspace(1, 2, 400):  # a slow drift is no spread
            sample = 800 * drift * rng.lognormal(-(sigma**2) / 2, sigma, rng.integers(5, 60))
            lengths = learned(lengths, Dist(mean=sample.mean(), count=len(sample)), len(sample), 10.0)
        assert lengths is not None
        estimate = lengths.estimated_cv2()
        assert estimate is not None
        assert estimate == pytest.approx((120 * cv2 + 20) / 140, rel=0.35)


@pytest.mark.parametrize(("elapsed_s", "count", "mean"), [(150, 5000, 590.9), (1500, 500, 550.0), (15, 500, 534.9)])
def test_lengths_keep_half_their_weight_over_150_s_or_500_requests_whichever_takes_longer(
    elapsed_s: float, count: float, mean: float
) -> None:
    """Of 1,000 requests with a mean of 500, half weigh in after 150 s; 5,000 of 600: (500 * 500 + 5000 * 600) / 5500.
    Half again after 500 requests, and 0.933 after 15 s."""
    before = learned(None, Dist(mean=500, count=1000), 0, 600.0)
    after = learned(before, Dist(mean=600, count=count), 0, elapsed_s)
    assert after is not None and after.mean == pytest.approx(mean, abs=0.1)


def test_lengths_that_are_told_are_taken_as_they_are() -> None:
    lengths = learned(None, Dist(mean=500, count=40, cv2=2.5, quantiles={0.5: 300, 0.9: 1200}), 40, 10.0)
    assert lengths is not None
    sized = lengths.lengths()
    assert sized.mean == pytest.approx(500, rel=0.02)
    assert not sized.assumed


def test_a_requirement_is_forgotten_after_the_hold_and_not_before() -> None:
    required: SlidingMaximum = ((0.0, 9.0),)
    for at_s in range(10, 250, 10):
        required = with_requirement(required, float(at_s), 3.0, window_s=240.0)
        assert largest(required) == (9.0 if at_s < 240 else 3.0)


def test_requirements_that_fall_tick_by_tick_are_kept_each_for_the_hold() -> None:
    """However fine the steps, a requirement counts for the hold and at most 1/24 longer; the memory stays small."""
    required: SlidingMaximum = ((0.0, 1000.0),)
    for tick in range(1, 2000):
        required = with_requirement(required, float(tick), 1000.0 - tick / 2, window_s=240.0)
        kept = largest(required)
        if tick > 240:
            assert 1000 - (tick - 240) / 2 - 6 <= kept <= 1000 - (tick - 251) / 2
    assert len(required) < 40
