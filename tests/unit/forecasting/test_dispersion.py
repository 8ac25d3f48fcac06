"""How bursty arrivals are said to be."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from dynamo_planner.forecasting import Dispersion, DispersionState


def seen(counts: npt.ArrayLike, span_s: float = 5.0, dispersion: Dispersion | None = None) -> DispersionState | None:
    state = None
    for number, count in enumerate(np.asarray(counts).tolist(), 1):
        state = (dispersion or Dispersion()).update(state, number * span_s, count / span_s, span_s)
    return state


def test_poisson_is_one_at_every_scale() -> None:
    state = seen(np.random.default_rng(1).poisson(20, size=4000))
    for scale_s in (10, 30, 60, 300):
        index = Dispersion().at(state, scale_s)
        assert index == pytest.approx(1.0, abs=0.3)


def test_regular_arrivals_are_zero() -> None:
    assert Dispersion().at(seen([20] * 500), 60) == pytest.approx(0.0, abs=1e-9)


def test_negative_binomial_is_its_variance_over_its_mean() -> None:
    """Poisson counts of gamma(4) x 5 rates: mean 20, variance 20 + 4 x 25 = 120; sums of such keep the ratio."""
    draw = np.random.default_rng(2)
    counts = draw.poisson(draw.gamma(4, 5, size=6000))
    assert Dispersion().at(seen(counts), 10) == pytest.approx(6.0, rel=0.25)


def test_a_slow_swing_of_the_rate_is_no_burst() -> None:
    at_s = np.arange(17_280) * 5
    counts = np.random.default_rng(3).poisson(40 - 30 * np.cos(at_s * 2 * np.pi / 86_400))
    assert np.var(counts) / np.mean(counts) > 8
    assert Dispersion().at(seen(counts), 60) == pytest.approx(1.0, abs=0.3)


def test_bursts_of_minutes_show_at_the_scale_of_minutes() -> None:
    at_s = np.arange(8000) * 5
    counts = np.random.default_rng(4).poisson(np.where(at_s // 300 % 2, 40, 10))
    state = seen(counts)
    short, long = Dispersion().at(state, 10), Dispersion().at(state, 300)
    assert short and long
    assert short < 4
    assert long > 100


def test_between_scales_it_is_between() -> None:
    state = seen(np.random.default_rng(5).poisson(np.repeat([10, 40] * 200, 12)))
    values = [Dispersion().at(state, scale_s) for scale_s in (1, 10, 25, 60)]
    assert values[0] == values[1]
    assert values == sorted(values, key=lambda value: value or 0)


def test_nothing_seen_and_nothing_arrived_are_unknown() -> None:
    assert Dispersion().at(None, 60) is None
    assert Dispersion().at(seen([20]), 60) is None
    assert Dispersion().at(seen([0] * 500), 60) is None


def test_missing_overlapping_and_late_samples_are_ignored() -> None:
    state = seen([20] * 20)
    for at_s, rate in ((200.0, None), (200.0, math.nan), (102.0, 9.0), (100.0, 9.0), (50.0, 9.0)):
        assert Dispersion().update(state, at_s, rate, 5) is state


def test_counts_across_a_gap_are_not_compared() -> None:
    dispersion = Dispersion(scales_s=(5,))
    state = seen([20] * 50, dispersion=dispersion)
    for number in range(50):
        state = dispersion.update(state, 4000 + 5 * number, 40.0, 5)
    assert dispersion.at(state, 5) == pytest.approx(0.0, abs=1e-9)


def test_scales_shorter_than_the_span_learn_nothing() -> None:
    state = seen(np.random.default_rng(6).poisson(240, size=500), span_s=60)
    assert state is not None
    assert state.rows[0] == (0.0, 0.0, -1.0, 0.0, 0.0)
    assert Dispersion().at(state, 60) == pytest.approx(1.0, abs=0.3)


def test_what_is_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="rate_per_s must be at least 0"):
        Dispersion().update(None, 5, -1, 5)
    with pytest.raises(ValueError, match="scales_s must ascend"):
        Dispersion(scales_s=(60, 10))
