"""What each expert makes of a few samples, worked by hand from its formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from dynamo_planner.forecasting import Constant, Expert, Seasonal, Step, Trend
from dynamo_planner.forecasting.experts.base import Memory
from dynamo_planner.forecasting.experts.refit import Refit

SAMPLES = ((5.0, 5.0, 3.0), (20.0, 5.0, 6.0), (2.0, 10.0, 4.0))
"""Seconds since the one before, seconds covered, and the root: the second has a gap before it, and of the third only
2 s are new. In the end they are 22, 2 and 0 s old, and weigh 5, 5 and 2 s less what they have aged."""


def fed(expert: Expert, samples: Sequence[tuple[float, float, float]], begin_s: float = 0.0) -> Memory:
    memory, at_s = expert.start(), begin_s
    for elapsed_s, span_s, root in samples:
        at_s += elapsed_s
        memory = expert.update(memory, at_s, elapsed_s, span_s, root)
    return memory


def test_the_constant_expert_weighs_by_what_is_new_and_by_age() -> None:
    first, second, third = 5 * 2 ** (-22 / 60), 5 * 2 ** (-2 / 60), 2.0
    mean = (3 * first + 6 * second + 4 * third) / (first + second + third)
    assert fed(Constant(half_life_s=60), SAMPLES) == pytest.approx((mean, first + second + third))
    assert fed(Constant(half_life_s=0), SAMPLES) == (4.0, 0.0)


@pytest.mark.parametrize(("half_life_s", "ages_s"), [(60.0, (22.0, 2.0, 0.0)), (5.0, (22.0, 2.0, 0.0))])
def test_the_trend_expert_fits_a_line_by_weighted_least_squares(half_life_s: float, ages_s: tuple[float, ...]) -> None:
    weights = [new * 2 ** (-age / half_life_s) for new, age in zip((5, 5, 2), ages_s, strict=True)]
    total, roots = sum(weights), (3.0, 6.0, 4.0)
    age = sum(w * a for w, a in zip(weights, ages_s, strict=True)) / total
    root = sum(w * r for w, r in zip(weights, roots, strict=True)) / total
    variance = sum(w * (a - age) ** 2 for w, a in zip(weights, ages_s, strict=True)) / total
    covariance = sum(w * (a - age) * (r - root) for w, a, r in zip(weights, ages_s, roots, strict=True)) / total
    slope = -covariance / max(variance, (half_life_s / math.log(2)) ** 2)
    expert = Trend(half_life_s=half_life_s, damping_s=30)
    level = root + slope * age
    full = slope * 30 / math.log(2)  # what a slope that halves every 30 s adds in the end
    expected = [level, level + full / 2, level + 0.75 * full]
    assert expert.ahead(fed(expert, SAMPLES), 22, [0, 30, 60]) == pytest.approx(expected)


def test_a_trend_counts_in_full_only_where_its_samples_are_well_spread() -> None:
    """Roots of 9, 6 and 3, 40, 20 and 0 s old, weigh 1/16, 1/4 and 1 with a half-life of 10 s: 40/7 s old on average,
    with a variance of 120, less than (10 / ln 2)**2 = 208."""
    expert = Trend(half_life_s=10, damping_s=1e9)
    slope = -0.15 * (17600 / 147) / (10 / math.log(2)) ** 2
    level = 3 + (0.15 + slope) * 40 / 7
    memory = fed(expert, [(20.0, 5.0, 9.0), (20.0, 5.0, 6.0), (20.0, 5.0, 3.0)])
    assert expert.ahead(memory, 60, [0, 10, 1000]) == pytest.approx([level, level + 10 * slope, 0.0], rel=1e-6)
    # 1000 / 16 s that are 40 s old, and 40 s: a variance of 381
    memory = fed(expert, [(1000.0, 1000.0, 9.0), (40.0, 60.0, 3.0)])
    assert expert.ahead(memory, 1040, [0, 10, 1000]) == pytest.approx([3.0, 1.5, 0.0], rel=1e-6)
    assert Trend().ahead(Trend().start(), 0, [0, 60]) == [0.0, 0.0]


STEPS = (
    # root; then level, weight, mean squared deviation, samples, the sum upwards, and the samples in that
    (2.0, (2.0, 5.0, 0.0, 1.0, 0.0, 0.0, 0.0)),
    (2.2, (2.1, 10.0, 0.02, 2.0, 2.25, 11.0, 5.0)),  # counts for 3 less 0.75; of no deviation before any is much
    (2.0, (2.06667, 15.0, 0.016667, 3.0, 0.792893, 21.0, 10.0)),  # -0.1 / sqrt(0.02) = -0.7071
    (4.0, (2.55, 20.0, 0.946944, 4.0, 3.042893, 41.0, 15.0)),
    (4.0, (2.84, 25.0, 1.178056, 5.0, 3.782956, 61.0, 20.0)),  # 1.45 / 0.97311 = 1.49006
    (6.0, (3.366667, 30.0, 2.645980, 6.0, 5.944386, 91.0, 25.0)),  # 3.16 / 1.08538 = 2.91143
    (8.0, (131 / 30, 30.0, 5.334808, 7.0, 0.0, 0.0, 0.0)),  # over 6: the mean of the six since the sum was zero
)


def test_the_step_expert_sums_deviations_up_to_an_alarm_either_way() -> None:
    for sign, centre in ((1.0, 0.0), (-1.0, 20.0)):
        expert = Step(half_life_s=1e9)
        memory = expert.start()
        for number, (root, (level, *rest)) in enumerate(STEPS, 1):
            memory = expert.update(memory, 5.0 * number, 5, 5, centre + sign * root)
            spread, sums = memory[2:4], memory[4:7] if sign > 0 else memory[7:]
            assert memory[0] == pytest.approx(centre + sign * level, abs=1e-5)
            assert memory[1] == pytest.approx(rest[0], abs=1e-4)
            assert spread == pytest.approx(rest[1:3], abs=1e-5)
            assert sums[0] == pytest.approx(rest[3], abs=1e-4)
            values = rest[4] if sign > 0 else centre * rest[5] - rest[4]
            assert sums[1:] == pytest.approx((values, rest[5]))


@pytest.mark.parametrize(("root", "alarm"), [(4.0, 2.25), (0.5, 2.25)])
def test_a_sum_that_is_just_the_threshold_is_no_alarm(root: float, alarm: float) -> None:
    samples = [(5.0, 5.0, 2.0), (5.0, 5.0, root)]
    assert fed(Step(threshold=alarm, half_life_s=1e9), samples)[0] == pytest.approx((2 + root) / 2)
    assert fed(Step(threshold=alarm - 1e-9, half_life_s=1e9), samples)[0] == root


def test_the_level_of_the_step_expert_ages_and_its_spread_too() -> None:
    expert = Step(half_life_s=10)
    memory = fed(expert, [(5.0, 5.0, 2.0), (10.0, 5.0, 2.2), (2.0, 10.0, 2.2)])
    second, third = 2 + 5 / 7.5 * 0.2, 7.5 * 2**-0.2 + 2  # levels and weights: 5 / 2 + 5, and 2 s of it are new
    assert memory[:2] == pytest.approx((second + 2 / third * (2.2 - second), third))
    # after many samples one weighs 1 - 2**(-1 / 350) in the mean squared deviation
    memory = expert.update((2.0, 100.0, 0.04, 1000.0, *(0.0,) * 6), 5, 5, 5, 2.1)
    assert memory[2] == pytest.approx(0.04 + (1 - 2 ** (-1 / 350)) * (0.01 - 0.04))


SEASON = Seasonal(period_s=40, slots=4, half_life_s=1e9, gain=0.5)


def test_the_seasonal_expert_keeps_the_mean_of_each_slot() -> None:
    """Slots of 10 s, each visited by a sample that covers half of it: just enough."""
    first = [(10.0, 5.0, root) for root in (1.0, 2.0, 3.0, 4.0)]
    memory = fed(SEASON, first, begin_s=-5.0)
    assert memory == pytest.approx((2.5, 20.0, 3.0, 20.0, 5.0, 1.0, 2.0, 3.0, -1.0))
    memory = fed(SEASON, [*first, (10.0, 5.0, 3.0), (10.0, 5.0, 3.0)], begin_s=-5.0)
    assert memory[5:] == pytest.approx((1 + 0.5 * (3 - 1), 2.0, 3.0, 4.0))
    assert fed(SEASON, [(10.0, 4.9, 1.0), (10.0, 4.9, 2.0)], begin_s=-5.0)[5:] == (-1.0,) * 4
    twice = [(4.0, 4.0, 1.0), (4.0, 4.0, 3.0), (10.0, 5.0, 9.0)]  # 8 of 10 s, in equal parts
    assert fed(SEASON, twice)[5] == pytest.approx(2.0)
    # a sample belongs to the slot of the middle of what is new in it: 9 of 12 s after 0, and 8 s after 0
    assert [fed(SEASON, [(elapsed_s, 12.0, 1.0)], begin_s=begin_s)[2] for elapsed_s, begin_s in ((12, 0), (4, 9))] == [
        0.0,
        1.0,
    ]


def test_the_level_of_the_seasonal_expert_ages() -> None:
    memory = fed(SEASON.replace(half_life_s=10), [(5.0, 5.0, 2.0), (10.0, 5.0, 5.0)])
    assert memory[:2] == pytest.approx((2 + 5 / 7.5 * 3, 7.5))


@pytest.mark.parametrize(
    ("at_s", "after_s", "root"),
    [
        (35.0, 20.0, 1.5),  # now is 25 s, the middle of the third slot, 4; and 15 s are 2: half of the level
        (35.0, 25.0, 2.25),  # 20 s are halfway from 2 to 4
        (35.0, 10.0, 1.5),  # 1 would be a quarter: no less than half
        (25.0, 0.0, 6.0),  # from 2 to 4
        (25.0, 10.0, 3.0),
        (25.0, 15.0, 2.25),  # 40 s are halfway from the last to the first
        (15.0, 10.0, 6.0),  # from 1 to 4: no more than twice
        (15.0, 5.0, 6.0),  # 3
        (15.0, 0.0, 6.0),  # 2
        (15.0, 27.0, 3.9),  # 2 s are seven tenths of the way from 2 to 1, the middle of the first slot
    ],
)
def test_the_seasonal_expert_carries_the_level_along_the_shape(at_s: float, after_s: float, root: float) -> None:
    memory = (3.0, 10.0, 0.0, 0.0, 0.0, 1.0, 2.0, 4.0, 2.0)
    assert SEASON.ahead(memory, at_s, [after_s]) == pytest.approx([root])


def test_where_the_shape_is_unknown_the_level_stands() -> None:
    memory = (3.0, 10.0, 0.0, 0.0, 0.0, 1.0, 2.0, -1.0, 2.0)
    # now is 12 s, 1.7; 22 s are between a known slot and an unknown one, and 45 s the middle of the first
    assert SEASON.ahead(memory, 22.0, [0.0, 23.0]) == [3.0, pytest.approx(3 / 1.7)]
    assert SEASON.ahead(memory, 35.0, [20.0]) == [3.0]
    assert SEASON.ahead((3.0, 10.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0, 2.0), 17.0, [0.0]) == [3.0]  # nothing to go by


class Given(Refit, kind="given"):
    """Stands for a library's model: three steps, from what it was given."""

    path: tuple[float, ...] = (2.0, 4.0, 8.0)
    steps: int = 3

    def fit(self, times_s: Sequence[float], roots: Sequence[float | None]) -> Sequence[float]:
        assert times_s[-1] == times_s[0] + 60 * (len(roots) - 1)
        CALLS.append((times_s[0], tuple(roots)))
        return self.path


CALLS: list[tuple[float, tuple[float | None, ...]]] = []


def test_a_refitted_expert_gives_the_middles_of_its_intervals_and_goes_along_the_path() -> None:
    expert = Given(interval_s=60, window=6)
    CALLS.clear()
    samples = [(30.0, 30.0, root) for root in (5.0, 5.0, 2.0, 4.0, 7.0, 7.0)]
    memory = fed(expert, [*samples, (90.0, 30.0, 4.0), (60.0, 30.0, 5.0), (60.0, 30.0, 6.0)], begin_s=120.0)
    # intervals 2 to 4, the fifth without samples, and 6 and 7: means of 5, 3, 7, 4 and 5 from 150 s on
    assert CALLS[-1] == (150.0, (5.0, 3.0, 7.0, None, 4.0, 5.0))
    assert memory[:4] == (8.0, 180.0, 30.0, 480.0)
    # 30 s after 480 s is the middle of the first step, and what is before it or beyond the last stands
    assert expert.ahead(memory, 510.0, [-20, 0, 30, 60, 90, 120, 500]) == pytest.approx([2, 2, 3, 4, 6, 8, 8])
    bold = fed(Given(interval_s=60, window=6, path=(-1.0, 13.9, 99.0)), [*samples, *samples, *samples], begin_s=120.0)
    assert bold[-3:] == (0.0, 13.9, 14.0)  # not below nothing, and at most twice the largest mean of 7
