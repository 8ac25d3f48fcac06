"""Slots of past arrivals, what of a window is certain, and the pattern of the slots, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.burstiness import (
    Pattern,
    Slots,
    certain_rate,
    counted,
    dispersion,
    pattern,
    recent_rate,
    steady_dispersion,
)


def test_a_window_is_a_slot_of_its_own_and_counts_once() -> None:
    first = counted(None, 100.0, 4.0, 30.0)
    assert first == Slots(30.0, 100.0, number=1, rates=(4.0,))
    assert counted(first, 122.0, 9.0, 30.0) == first  # it begins at 92 s, more than a quarter of it before 100 s
    assert counted(first, 122.5, 9.0, 30.0) == Slots(30.0, 122.5, number=2, rates=(4.0, 9.0))
    assert counted(first, 200.0, 9.0, 45.0) == Slots(30.0, 200.0, number=2, rates=(4.0, 9.0))
    assert counted(first, 200.0, 9.0, 45.5) == Slots(45.5, 200.0, number=1, rates=(9.0,))  # over 1.5 times as long


def test_short_windows_fill_a_slot_of_five_seconds() -> None:
    """Two of 2 s are 4 s, which is as near to 5 s as three of them."""
    open_ = counted(None, 2.0, 3.0, 2.0)
    assert open_ == Slots(5.0, 2.0, open_s=2.0, open_count=6.0)
    assert counted(open_, 4.0, 5.0, 2.0) == Slots(5.0, 4.0, number=1, rates=(16 / 4,))


def test_old_slots_are_dropped_twelve_at_a_time() -> None:
    slots, kept = None, []
    for number in range(1, 373):
        slots = counted(slots, 5.0 * number, float(number), 5.0)
        kept.append(len(slots.rates))
    assert slots is not None
    assert (kept[359], kept[370], kept[371]) == (360, 371, 360)
    assert slots.rates[0] == 13.0


def test_the_recent_rate_is_that_of_the_slots_of_a_level() -> None:
    slots = Slots(30.0, 120.0, number=4, rates=(1.0, 2.0, 3.0, 4.0))
    assert [recent_rate(slots, over_s) for over_s in (10, 44, 46, 60, 90, 999)] == [4, 4, 3.5, 3.5, 3, 2.5]
    assert recent_rate(None, 60) == recent_rate(Slots(30.0, 0.0), 60) == 0.0


@pytest.mark.parametrize(
    ("rate", "before", "usual", "elapsed_s", "certain"),
    [
        (
            20,
            18,
            5,
            10,
            20 - 3 * (20 / 30) ** 0.5,
        ),  # 60 more and 50 of the usual ones: (110 - 3 sqrt(110)) / 10 is less
        (20, 18, 40, 10, 24 - 3 * 240**0.5 / 10),  # what left the window was no more than 18 a second
        (20, 5, 5, 30, 20 - 3 * (20 / 30) ** 0.5),  # all of the window is new
        (0.1, 0.1, 0.1, 10, 0.0),  # 3 requests may be chance
        (2, 20, 20, 10, 2 - 3 * (2 / 30) ** 0.5),  # a fall is no surge
    ],
)
def test_what_is_certain_of_a_window(
    rate: float, before: float, usual: float, elapsed_s: float, certain: float
) -> None:
    assert certain_rate(ArrivalWindow(0, rate, 30, elapsed_s), before, usual, 1.0) == pytest.approx(certain)


@pytest.mark.parametrize(
    ("before", "reported", "rate", "elapsed_s", "found"),
    [
        (1.0, 9.0, 39.4, 10, 1.0),  # 600 * 0.6 = 360 requests are more than 3 sqrt(2 * 40 * 10) = 85
        (1.0, 9.0, 39.9, 10, 9.0),  # and 60 are not
        (1.0, 9.0, 40.6, 10, 1.0),
        (0.1, 9.0, 39.85, 10, 1.0 * 0.1),  # 90, where a dispersion of less than 1 counts as 1
        (20.0, 9.0, 39.4, 10, 9.0),  # 3 sqrt(20 * 2 * 40 * 10) = 379
        (1.0, 9.0, 39.4, 1e6, 9.0),  # no more than the window is new: 3 sqrt(2 * 40 * 600) = 657
        (None, 9.0, 39.4, 10, 9.0),
        (1.0, None, 39.4, 10, 1.0),
    ],
)
def test_a_dispersion_is_not_believed_while_the_level_moves(
    before: float | None, reported: float | None, rate: float, elapsed_s: float, found: float
) -> None:
    assert steady_dispersion(before, reported, ArrivalWindow(0, rate, 600, elapsed_s), 40.0) == found
    assert steady_dispersion(None, reported, ArrivalWindow(0, rate, 600, elapsed_s), 40.0) == reported


def test_the_pattern_of_slots() -> None:
    """30 and 36 requests in turn: (6**2) / (30 + 36), and a mean of two slots, of one at the beginning."""
    slots = Slots(30.0, 360.0, number=12, rates=(1.0, 1.2) * 6)
    found = pattern(slots, 60.0, 5.0)
    path = np.array([1.0, 1.2 / 1.1, *[1 / 1.1, 1.2 / 1.1] * 5])
    assert [found.dispersion, found.slot_s] == pytest.approx([36 / 66, 30.0])
    assert found.path == pytest.approx(path / path.mean())
    assert dispersion(slots, 60.0, 5.0) == pytest.approx(36 / 66)
    assert found.at(7.0).requests_per_s == 7.0
    # two more slots are not looked at before there are twelve more
    later = slots._replace(number=14, rates=(*slots.rates, 9.0, 9.0))
    assert dispersion(later, 60.0, 5.0) == pytest.approx(36 / 66)


def test_slots_of_few_requests_are_taken_together() -> None:
    """3 and 0 requests a slot: 1.5 on average, so that three are taken together for 4; 36 slots make twelve."""
    slots = Slots(30.0, 1080.0, number=36, rates=(0.1, 0.0, 0.1, 0.0, 0.1, 0.0) * 6)
    found = pattern(slots, 600.0, None)
    assert (found.slot_s, len(found.path)) == (90.0, 12)  # 6 and 3 in turn
    assert found.dispersion == pytest.approx(9 / 9)
    assert pattern(slots._replace(number=24, rates=slots.rates[:24]), 600.0, 2.0) == Pattern(2.0)  # too few of them


@pytest.mark.parametrize(("reported", "found"), [(None, 1.0), (0.3, 1.0), (4.0, 4.0)])
def test_without_slots_what_is_reported_counts(reported: float | None, found: float) -> None:
    long = Slots(91.0, 1092.0, number=12, rates=(1.0, 1.2) * 6)  # over 1.5 times the level
    for slots in (None, long):
        assert pattern(slots, 60.0, reported) == Pattern(found)
        assert dispersion(slots, 60.0, reported) == found
