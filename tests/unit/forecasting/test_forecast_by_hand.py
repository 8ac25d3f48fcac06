"""Calibration and quantiles, a few outcomes at a time, worked by hand from the formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dynamo_planner.forecasting import Constant, Forecast, Forecaster, ForecastState, Trend
from dynamo_planner.forecasting.calibration import Calibration, LearningRates, is_due, settle
from dynamo_planner.forecasting.forecast import over_window

LEARNING = LearningRates(weights=3.0, share=0.01, spread=0.02, scores=0.0015, judged=0.9, levels=(0.5, 0.9))
Z90 = 1.2815516
PENDING = (100.0, 3.0, 0.5, 2.8, 3.4)
"""A forecast for the interval from 100 s on: the root, its standard error, and the roots of two experts."""


def track(*pending: tuple[float, ...], settled: float = 0.0) -> Calibration:
    return Calibration(settled, (0.5, 0.5), (0.04, 0.16), 0.25, (0.0, Z90), pending)


def after(calibration: Calibration, began_s: float = 100.0, root: float = 3.6, *, idle: bool = False) -> Calibration:
    return settle(calibration, began_s, 2.0, 160.0, root, idle, LEARNING)


@pytest.mark.parametrize(
    ("settled", "in_flight", "rate", "score_rate"),
    [
        (0.0, 1, 1.0, 1 / 21),
        (4.0, 1, 0.2, 1 / 25),
        (99.0, 1, 0.02, 1 / 120),  # 1 / 100 is less than the rate of errors
        (9999.0, 2, 0.02, 0.0015),
    ],
)
def test_an_outcome_teaches_errors_weights_and_scores(
    settled: float, in_flight: int, rate: float, score_rate: float
) -> None:
    """The root is 3.6 where 3.0 was expected, with a standard error of 0.5, and 2.8 and 3.4 by the experts."""
    pending = [(PENDING[0] + 50 * number, *PENDING[1:]) for number in range(in_flight)]
    found = after(track(*pending, settled=settled))
    assert (found.settled, found.pending) == (settled + 1, tuple(pending))
    assert found.spread == pytest.approx(0.25 + rate * (0.6**2 - 0.25))
    assert found.spreads == pytest.approx((0.04 + rate * (0.8**2 - 0.04), 0.16 + rate * (0.2**2 - 0.16)))
    # losses at the 0.9 quantile of each: 2.8 + 1.28 * 0.2 was passed, and 3.4 + 1.28 * 0.4 was not
    losses = 0.9 * (0.8 - Z90 * 0.2), 0.1 * (Z90 * 0.4 - 0.2)
    odds = math.exp(-3.0 / in_flight / 0.5 * (losses[0] - losses[1]))
    first = 0.005 + 0.99 * odds / (1 + odds)
    assert found.weights == pytest.approx((first, 1 - first), rel=1e-5)
    # 3.6 is over the median, 3.0, and under the 0.9 quantile, 3 + 1.28 * 0.5; densities there are 0.39894 and 0.17550
    scores = score_rate * 0.5 / 0.398942, Z90 - score_rate * 0.1 / 0.175498
    assert found.scores == pytest.approx(scores, rel=1e-5)
    assert after(track(*pending, settled=settled), idle=True).scores == (0.0, Z90)


def test_an_outcome_that_is_just_the_quantile_is_under_it() -> None:
    found = after(track((100.0, 3.0, 0.5, 3.0, 3.0)), root=3.0)
    assert found.scores[0] == pytest.approx(-0.5 / 0.398942 / 21, rel=1e-5)


@pytest.mark.parametrize(
    ("began_s", "pending", "learned", "scored", "left"),
    [
        (102.0, (100.0, 200.0), True, True, (100.0, 200.0)),  # within the tolerance of 2 s
        (98.0, (100.0, 200.0), True, True, (100.0, 200.0)),
        (102.5, (100.0, 200.0), False, True, (100.0, 200.0)),  # and within 160 / 16 s for scores
        (110.0, (100.0, 200.0), False, True, (100.0, 200.0)),
        (90.0, (100.0, 200.0), False, True, (100.0, 200.0)),
        (110.5, (100.0, 200.0), False, False, (200.0,)),  # no outcome came for it
        (89.5, (100.0, 200.0), False, False, (100.0, 200.0)),  # its time has not come
        (104.0, (100.0, 110.0), False, True, (100.0, 110.0)),  # the nearer one
        (105.0, (100.0, 110.0), False, True, (110.0,)),
        (105.5, (100.0, 110.0), False, True, (110.0,)),
        (121.0, (100.0, 110.0, 120.0), True, True, (120.0,)),
    ],
)
def test_an_outcome_is_that_of_the_forecast_for_the_nearest_time(
    began_s: float, pending: tuple[float, ...], learned: bool, scored: bool, left: tuple[float, ...]
) -> None:
    before = track(*((at_s, *PENDING[1:]) for at_s in pending))
    found = after(before, began_s)
    assert (found.settled == 1, found.scores != before.scores) == (learned, scored)
    assert tuple(forecast[0] for forecast in found.pending) == left


def test_without_a_forecast_nothing_is_learned() -> None:
    assert after(track()) == track()


def test_sixteen_forecasts_at_most_are_pending() -> None:
    assert is_due(track(), 100, 160)
    assert [is_due(track(PENDING), begins_s, 160) for begins_s in (109.9, 110.0)] == [False, True]


@pytest.mark.parametrize(
    ("level", "score"),
    [
        (0.5, 0.2),
        (0.75, 0.2 + 0.6744898 / Z90 * 1.2),  # between quantiles by those of a normal distribution
        (0.9, 1.4),
        (0.95, 1.4),  # 1.3 at 0.99 is no more than 1.4 at 0.9: neither is what is between them
        (0.999, 1.4 + 3.0902323 - 2.3263479),
        (0.1, 0.2 - Z90),
    ],
)
def test_scores_between_and_beyond_the_levels(level: float, score: float) -> None:
    forecast = Forecast(3.0, 0.5, levels=(0.5, 0.9, 0.99), scores=(0.2, 1.4, 1.3))
    assert forecast.score(level) == pytest.approx(score)
    assert forecast.quantile(level) == pytest.approx((3 + 0.5 * score) ** 2)
    assert Forecast(0.1, 0.5, (0.5, 0.9), (-3.0, 1.4)).quantile(0.3) == 0.0


@pytest.mark.parametrize(
    ("noise", "span_s", "window_s", "variance"),
    [
        (0.5, 5, 20, 0.15 + 0.025),  # of 0.25, 0.1 is count noise, of which a quarter is left
        (2.0, 5, 20, 0.1),  # all of it is count noise
        (0.5, 5, 1, 0.15 + 0.5),
        (50.0, 5, 1, 9.25),  # no more than the mean
    ],
)
def test_count_noise_averages_out_over_a_window(noise: float, span_s: float, window_s: float, variance: float) -> None:
    window = over_window(Forecast(3.0, 0.5, (0.5,), (0.0,)), noise, span_s, window_s)
    assert (window.error, window.root) == pytest.approx((math.sqrt(variance), math.sqrt(9.25 - variance)))


ONE = Forecaster(experts=(Constant(half_life_s=0),), horizons_s=(10.0,), levels=(0.5, 0.9))

SAMPLES: tuple[tuple[tuple[float, float, float], dict[str, float]], ...] = (
    # at_s, rate, span_s; then the usual time between samples, the usual span, and the count noise
    ((5, 4, 5), {"every_s": 5, "span_s": 5, "noise": 0.25, "samples": 1, "zeros": 0}),
    ((10, 9, 5), {"every_s": 5, "span_s": 5, "noise": 0.25 + (2.5 - 0.25) / 2, "samples": 2}),  # 1 / 2 * 5 s
    ((20, 4, 10), {"every_s": 5.25, "span_s": 5.25, "noise": 1.375 + (5 - 1.375) / 3}),  # 1 / 2 * 10 s
    # only 2 of 10 s are new: 1 / 2 * 10 s * 10 / 2
    ((22, 9, 10), {"every_s": 5.0875, "span_s": 5.4875, "noise": 2.583333 + (25 - 2.583333) / 4}),
    # after a gap of 38 s nothing is learned of count noise; it counts as three times the usual 5.0875 s
    ((60, 4, 10), {"every_s": 5.59625, "span_s": 5.713125, "noise": 8.1875}),
    ((70, 0, 10), {"noise": 8.1875 + (20 - 8.1875) / 6, "zeros": 1}),  # 4 / 2 * 10 s
    ((80, 0, 10), {"noise": 10.15625, "zeros": 2, "samples": 7}),  # a second zero says nothing more
    ((90, 1, 10), {"noise": 10.15625 + (5 - 10.15625) / 8, "zeros": 0, "samples": 8}),
    ((100, 4, 5), {"noise": 9.51171875 + (2.5 - 9.51171875) / 9}),  # what was not seen in between counts for nothing
)


def test_a_state_keeps_the_usual_times_and_the_noise_of_counts() -> None:
    state = None
    for sample, values in SAMPLES:
        state = ONE.update(state, *sample)
        assert state is not None
        assert {name: getattr(state, name) for name in values} == pytest.approx(values, rel=1e-6)


def test_forecasts_wait_for_their_outcome_and_settle() -> None:
    """With the last value as expert: 10 s after the sample at 10 s, of root 3, the root is 5."""
    state = None
    for at_s, rate in ((5, 4), (10, 9), (15, 9), (20, 16), (25, 25)):
        state = ONE.update(state, at_s, rate, 5)
    assert state is not None
    (calibration,) = state.tracks
    assert (calibration.settled, calibration.spread) == (1, (5 - 3) ** 2)
    assert [forecast[0] for forecast in calibration.pending] == [20, 25, 30, 35]
    last, error = calibration.pending[-1], math.sqrt(4.0)
    assert last == pytest.approx((35, 5, error, 5))
    first = calibration.pending[0]
    assert first[2] == pytest.approx(math.sqrt(1.375 / 5))  # the count noise of 5 s, before any outcome


TWO = Forecaster(experts=(Constant(half_life_s=0),) * 2, horizons_s=(10.0, 40.0), levels=(0.5, 0.9))


def remembered(noise: float = 0.25, **far: Any) -> ForecastState:
    near = Calibration(9.0, (0.75, 0.25), (0.0, 0.0), 0.09, (0.0, 1.2), ())
    other = Calibration(9.0, (0.25, 0.75), (0.0, 0.0), 0.25, (0.2, 1.6), ())
    return ForecastState(
        at_s=100.0,
        root=2.0,
        zeros=0.0,
        samples=50.0,
        span_s=5.0,
        every_s=5.0,
        noise=noise,
        kinds=("constant", "constant"),
        memories=((2.0, 0.0), (4.0, 0.0)),
        tracks=(near, other._replace(**far)),
    )


@pytest.mark.parametrize(
    ("state", "horizon_s", "root", "variance", "scores"),
    [
        (remembered(), 5.0, 2.5, 0.09, (0.0, 1.2)),  # 0.75 * 2 + 0.25 * 4
        (remembered(), 10.0, 2.5, 0.09, (0.0, 1.2)),
        (remembered(), 20.0, 3.0, 0.17, (0.1, 1.4)),  # halfway from 10 to 40 s by logarithms
        (remembered(), 40.0, 3.5, 0.25, (0.2, 1.6)),
        (remembered(), 100.0, 3.5, 0.25 + 60 * 0.16 / 30, (0.2, 1.6)),  # it grows by 0.16 in 30 s
        (remembered(), 1000.0, 3.5, 0.25 + 120 * 0.16 / 30, (0.2, 1.6)),  # up to four times the longest horizon
        (remembered(spread=0.06), 100.0, 3.5, 0.06, (0.2, 1.6)),  # and never falls
        (remembered(settled=0.0), 40.0, 3.5, 0.09, (0.2, 1.6)),  # none has settled there: as at the shorter one
        (remembered(noise=2.0), 10.0, 2.5, 0.4, (0.0, 1.2)),  # no less than count noise, 2 / 5
        (remembered(noise=99.0), 10.0, 2.5, 6.25, (0.0, 1.2)),  # which is no more than the root's square
    ],
)
def test_a_forecast_between_and_beyond_the_calibrated_horizons(
    state: ForecastState, horizon_s: float, root: float, variance: float, scores: tuple[float, float]
) -> None:
    forecast = TWO.forecast(state, 100.0, horizon_s)
    assert forecast is not None
    assert (forecast.root, forecast.error) == pytest.approx((root, math.sqrt(variance)))
    assert forecast.scores == pytest.approx(scores)
    assert TWO.forecast(state, 90.0, horizon_s) == forecast  # a time before the last sample counts as that
    later = TWO.forecast(state, 105.0, horizon_s - 5)
    assert later is not None and later.root == pytest.approx(root)


def test_a_window_is_forecast_at_its_middle_and_with_its_noise() -> None:
    state = remembered(noise=0.25)
    forecast = TWO.forecast(state, 100.0, 10.0, window_s=20.0)
    assert forecast is not None
    assert forecast.error == pytest.approx(math.sqrt(0.09 - 0.05 + 0.0125))  # 0.25 / 5 of it becomes 0.25 / 20
    assert forecast.mean == pytest.approx(2.5**2 + 0.09)


def test_forecasts_are_for_the_middle_of_their_window() -> None:
    """A trend of 0.01 a second from 2 at the last sample."""
    rising = Forecaster(experts=(Trend(damping_s=1e9),), horizons_s=(10.0,), levels=(0.5, 0.9))
    calibration = Calibration(9.0, (1.0,), (0.0,), 0.09, (0.0, 1.2), ())
    state = remembered().replace(kinds=("trend",), memories=((1.0, 0.0, 1e6, 2.0, -1e4),), tracks=(calibration,))
    near, wide = rising.forecast(state, 100.0, 10.0), rising.forecast(state, 100.0, 10.0, window_s=40.0)
    assert near is not None and wide is not None
    assert near.root == pytest.approx(2 + 0.01 * (10 + 5 / 2))
    assert wide.mean == pytest.approx((2 + 0.01 * (10 + 40 / 2)) ** 2 + 0.09)
    grown = rising.update(state, 105.0, 4.2, 5)
    assert grown is not None
    (expected,) = rising.experts[0].ahead(grown.memories[0], 105.0, [10 + 5 / 2])
    assert grown.tracks[0].pending[-1][:2] == pytest.approx((115.0, expected))


def test_the_ends_of_what_is_accepted() -> None:
    assert ONE.update(None, 5, 4.0, 1e-3) is not None
    assert ONE.update(None, 5, 4.0, 1e9) is not None
    state = ONE.update(None, 5, 4.0, 5)
    assert ONE.forecast(state, 5, 0.0) is not None
    assert ONE.forecast(state, 5, 1e9, window_s=1e9) is not None
    for horizon_s, window_s in ((1.1e9, 5.0), (5.0, 1.1e9)):
        with pytest.raises(ValueError, match="must be"):
            ONE.forecast(state, 5, horizon_s, window_s)
    huge = ONE.update(None, 5, 1e300, 5)
    assert huge is not None and huge.root == pytest.approx(math.sqrt(1e15))
