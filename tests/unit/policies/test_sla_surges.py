"""SlaPolicy and steps in the load: what is certain is seen at the first look, and a step is no burstiness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner import Traffic
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.burstiness import Slots, certain_rate, pattern
from dynamo_planner.policies.sla.level_steps import dispersion_of, steps_in
from dynamo_planner.policies.sla.workload import RecentWorkload
from tests.support.sla_service import Service

WINDOW_S = 30.0


def planned(service: Service, rate: float) -> float:
    """What prefill is planned for after a window of 30 s at this rate."""
    decision = service.see(rate, window_s=WINDOW_S)
    (reason,) = [each for each in decision.reasons if each.code == "DemandForecast" and each.pool == "prefill"]
    value = reason.values["now"]
    assert isinstance(value, float)
    return value


def test_a_step_is_answered_at_the_first_look() -> None:
    """From 5 to 50 requests/s: ten seconds later a window of 30 s shows 20, and half as much again is planned for."""
    service = Service()
    for _ in range(60):
        planned(service, 5.0)
    assert planned(service, 20.0) == pytest.approx(30, rel=0.05)
    assert planned(service, 35.0) > 40
    assert service.target("prefill") == 4  # and 1 is what 5 requests/s need


def test_a_burst_within_chance_is_none() -> None:
    service = Service()
    for _ in range(60):
        planned(service, 5.0)
    assert planned(service, 5.8) < 12  # 74 requests in ten seconds, and 50 before: within the forecast's quantile


def test_what_is_certain_by_hand() -> None:
    step = ArrivalWindow(at_s=0, requests_per_s=20, window_s=30, elapsed_s=10)
    assert certain_rate(step, 5.0, 5.0, 1.0) == 30  # (500 - 3 sqrt(500)) / 10 = 43, at most 1.5 * 20
    assert certain_rate(step, 18.0, 18.0, 1.0) == pytest.approx(24 - 3 * 240**0.5 / 10)  # 240 in 10 s
    assert certain_rate(step, 18.0, 18.0, 4.0) == pytest.approx(20 - 3 * (4 * 20 / 30) ** 0.5)  # bursty: the window
    assert certain_rate(step, None, 0.0, 1.0) == pytest.approx(20 - 3 * (20 / 30) ** 0.5)


@given(before=st.floats(0, 1e4), after=st.floats(0, 1e4), elapsed_s=st.floats(0.1, 120), usual=st.floats(0, 1e4))
def test_it_is_never_more_than_half_as_much_again_as_a_window_shows(
    before: float, after: float, elapsed_s: float, usual: float
) -> None:
    window = ArrivalWindow(0.0, after, WINDOW_S, elapsed_s)
    assert 0 <= certain_rate(window, before, usual, 1.0) <= 1.5 * after


def counts_of(*parts: tuple[int, float], dispersion: float = 1.0) -> np.ndarray:
    """Counts with these means, each so many times; Poisson with gamma-distributed rates where they are dispersed."""
    rng = np.random.default_rng(5)
    means = np.concatenate([np.full(number, mean) for number, mean in parts])
    if dispersion > 1:
        means = rng.gamma(means / (dispersion - 1), dispersion - 1)
    return rng.poisson(means).astype(float)


def test_dispersion_by_hand() -> None:
    """Of 20 and 24: 16 / 44 = 0.364. The jump to 400, (376)**2 / 424 = 333, counts as 10.8."""
    steady = np.array([20.0, 24.0] * 9)
    assert dispersion_of(steady) == pytest.approx(16 / 44)
    assert dispersion_of(np.append(steady, 400.0)) == pytest.approx((17 * 16 / 44 + 10.8) / 18)


@pytest.mark.parametrize("dispersion", [1.0, 6.0])
def test_a_change_of_level_is_no_burstiness(dispersion: float) -> None:
    """10 to 200 requests in 5 s and back, with and without bursts: the dispersion is that beside the steps."""
    counts = counts_of((80, 10), (80, 200), (80, 10), dispersion=dispersion)
    steps = steps_in(counts, 12, dispersion_of(counts))
    assert [place for place in (80, 160) if min(abs(step - place) for step in steps) <= 1] == [80, 160]
    assert dispersion_of(counts, steps) == pytest.approx(dispersion, rel=0.3)


def test_a_step_a_moment_ago_is_none_either() -> None:
    """Five slots after a step from 10 to 200 the path about the level stays within what chance makes of counts."""
    counts = counts_of((67, 10), (5, 200))
    found = pattern(Slots(5.0, 0.0, number=72, rates=tuple((counts / 5).tolist())), 60.0, None)
    assert found.dispersion < 1.5
    assert found.path.max() < 2.5  # 25 where 10 are the mean; with one mean for both sides of the step it is 4


def test_a_burst_of_twenty_seconds_stays_a_burst() -> None:
    """Four slots of 5 s at ten times the rate, every five minutes: what is shorter than a minute is sized for."""
    counts = counts_of(*[(56, 10), (4, 100)] * 4)
    found = pattern(Slots(5.0, 0.0, number=240, rates=tuple((counts / 5).tolist())), 60.0, None)
    assert found.path.max() > 2


def test_slots_longer_than_the_level_say_nothing_of_bursts() -> None:
    rates = tuple(10.0 + 8 * (number % 2) for number in range(24))
    assert pattern(Slots(300.0, 0.0, number=24, rates=rates), 60.0, None).dispersion == 1


def long_windows(rate: Callable[[float], float], reported: Callable[[float], float]) -> float:
    """The dispersion that is planned with after windows of 600 s, read every 10 s for half an hour."""
    workload, state = RecentWorkload(), None
    for at_s in range(10, 1801, 10):
        traffic = Traffic(isl=1000, osl=100, arrival_dispersion=reported(at_s))
        state = workload.observe(state, traffic, ArrivalWindow(at_s, rate(at_s), 600.0, 10.0))
    load = workload.load(state, 10.0, Traffic(), 60.0)
    assert load is not None
    return load.arrivals.dispersion


def test_of_windows_longer_than_the_level_the_last_counts() -> None:
    """40 requests/s until 1,210 s and none after, in windows of 600 s read every 10 s. Each such window is one slot,
    and the last one ends at 1,210 s; the window that ends at 1,510 s is half empty: 20."""
    workload, state = RecentWorkload(), None
    for at_s in range(10, 1511, 10):
        arrivals = ArrivalWindow(at_s, 40 - max(at_s - 1210, 0) / 15, 600.0, 10.0)
        state = workload.observe(state, Traffic(isl=1000, osl=100), arrivals)
    assert workload.recent_per_s(state, 60.0) == pytest.approx(20)


def test_a_level_that_changes_within_a_long_window_is_no_burstiness() -> None:
    """40 requests/s, and 5 from 1,500 s on: counts of 10 s within the window vary by 136 times their mean halfway."""

    def rate(at_s: float) -> float:
        return 40 - 35 * max(at_s - 1500, 0) / 600

    assert long_windows(rate, lambda at_s: 1.0 if at_s <= 1500 else 136.0) == 1
    assert long_windows(lambda _: 40.0, lambda at_s: 1.0 if at_s <= 1500 else 9.0) == 9
