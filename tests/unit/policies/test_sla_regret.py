"""For how long replicas are kept where requests were late without them. Numbers are worked by hand."""

from __future__ import annotations

import pytest

from dynamo_planner.policies.sla.regret import MAX_HOLD_S, REGRET_HALF_LIFE_S, Shortage, followed


def after(*ticks: tuple[float, float, float]) -> Shortage:
    """The shortages after ticks of (time, missing share, late seconds), with windows of 30 s."""
    shortage = None
    for at_s, missing, late_s in ticks:
        shortage = followed(shortage, at_s, missing, late_s, 30)
    assert shortage is not None
    return shortage


def test_a_shortage_is_worth_ten_times_what_was_late_over_what_was_missing() -> None:
    """4 of 12 missing, then 2 of 12; 20 s of traffic late in all: 10 * 20 / (1 / 3) = 600 s, also when it is over."""
    surge = (0.0, 1 / 3, 10.0), (10.0, 1 / 6, 5.0), (20.0, 0.0, 5.0)
    assert after(*surge).worth_s() == pytest.approx(600)
    assert after(*surge, (120.0, 0.0, 0.0)).worth_s() == pytest.approx(600)
    assert after(*surge, (120.0, 0.0, 0.0), (120 + REGRET_HALF_LIFE_S, 0.0, 0.0)).worth_s() == pytest.approx(300)


def test_what_is_late_while_nothing_is_missing_is_worth_nothing() -> None:
    assert after((0.0, 0.0, 10.0), (10.0, 0.0, 10.0)).worth_s() == 0
    late = after((0.0, 0.5, 1.0), (70.0, 0.0, 9.0), (140.0, 0.0, 9.0))  # two windows later: no more of the shortage
    assert late.worth_s() == pytest.approx(20, rel=0.01)


def test_a_second_shortage_counts_where_it_is_worse() -> None:
    """1 s at a half is 20 s; 3 s at a quarter 120 s."""
    assert after((0.0, 0.5, 1.0), (100.0, 0.0, 0.0), (200.0, 0.25, 3.0)).worth_s() == pytest.approx(120)
    assert after((0.0, 0.25, 3.0), (100.0, 0.0, 0.0), (200.0, 0.5, 1.0)).worth_s() == pytest.approx(120, rel=0.01)


def test_a_pool_that_cannot_get_its_replicas_holds_for_two_hours_at_most() -> None:
    assert after(*[(10.0 * tick, 0.5, 10.0) for tick in range(1000)]).worth_s() == MAX_HOLD_S
