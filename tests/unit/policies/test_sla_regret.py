"""For how long replicas are kept where requests were late without them. Numbers are worked by hand."""

from __future__ import annotations

import pytest

from dynamo_planner.policies.sla.regret import MAX_HOLD_S, REGRET_HALF_LIFE_S, Shortage, followed

SURGE = (0.0, 1 / 3, 10.0), (10.0, 1 / 6, 5.0), (20.0, 0.0, 5.0), (120.0, 0.0, 0.0)
"""4 of 12 missing, then 2 of 12; 20 s of traffic late in all: worth 10 * 20 / (1 / 3) = 600 s."""


def after(*ticks: tuple[float, float, float], since: Shortage | None = None) -> Shortage:
    """The shortages after ticks of (time, missing share, late seconds), with windows of 30 s."""
    shortage = since
    for at_s, missing, late_s in ticks:
        shortage = followed(shortage, at_s, missing, late_s, 30)
    assert shortage is not None
    return shortage


def test_a_shortage_is_worth_ten_times_what_was_late_over_what_was_missing() -> None:
    assert after(*SURGE).worth_s == pytest.approx(600, rel=0.01)
    assert after(*SURGE, (120 + REGRET_HALF_LIFE_S, 0.0, 0.0)).worth_s == pytest.approx(300, rel=0.01)


def test_one_surge_keeps_nothing() -> None:
    assert after(*SURGE[:2]).kept_s() == 0
    assert after(*SURGE).kept_s() == 0


def test_a_surge_that_comes_again_within_what_it_was_worth_keeps_replicas() -> None:
    """Let go at 200 s, and late again from 700 s on: to keep them for 600 s would have paid."""
    gone = after(*SURGE).let_go(200.0)
    again = after((700.0, 0.5, 1.0), since=gone)
    assert again.kept_s() == pytest.approx(600, rel=0.02)
    assert after((700.0, 0.5, 1.0), (900.0, 0.0, 0.0), since=gone).kept_s() == pytest.approx(600, rel=0.03)


@pytest.mark.parametrize(
    ("why", "at_s", "late_s", "let_go_s"),
    [
        ("it comes later", 900.0, 1.0, 200.0),
        ("nothing is late", 700.0, 0.0, 200.0),
        ("it only goes on", 300.0, 1.0, None),
    ],
)
def test_another_surge_keeps_nothing_where(why: str, at_s: float, late_s: float, let_go_s: float | None) -> None:
    before = after(*SURGE) if let_go_s is None else after(*SURGE).let_go(let_go_s)
    assert after((at_s, 0.5, late_s), since=before).kept_s() == 0, why


def test_what_is_late_while_nothing_is_missing_is_worth_nothing() -> None:
    assert after((0.0, 0.0, 10.0), (10.0, 0.0, 10.0)).worth_s == 0
    late = after((0.0, 0.5, 1.0), (70.0, 0.0, 9.0), (140.0, 0.0, 9.0))  # two windows later: no more of the shortage
    assert late.worth_s == pytest.approx(20, rel=0.01)


def test_a_second_shortage_counts_where_it_is_worse() -> None:
    """1 s at a half is 20 s; 3 s at a quarter 120 s."""
    mild, bad, over = (0.5, 1.0), (0.25, 3.0), (0.0, 0.0)
    assert after((0.0, *mild), (100.0, *over), (200.0, *bad), (300.0, *over)).worth_s == pytest.approx(120, rel=0.01)
    assert after((0.0, *bad), (100.0, *over), (200.0, *mild), (300.0, *over)).worth_s == pytest.approx(120, rel=0.02)


def test_what_a_shortage_is_worth_is_two_hours_at_most() -> None:
    short = [(10.0 * tick, 0.5, 10.0) for tick in range(1000)]
    assert after(*short, (10100.0, 0.0, 0.0)).worth_s == MAX_HOLD_S
