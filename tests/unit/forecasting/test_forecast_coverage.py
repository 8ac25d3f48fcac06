"""Is the 0.9 quantile one? A light version of benchmarks/forecast_quality.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from dynamo_planner.forecasting import Constant, Forecaster, Seasonal
from tests.support.paths import DATA

pytestmark = pytest.mark.slow  # statistics of hours

STEP_S = 5.0
WARM_UP = 720


def judged(forecaster: Forecaster, rates: Sequence[float], horizon_s: float) -> tuple[float, float, list[float]]:
    """The share under the 0.9 quantile after an hour, its pinball loss, and the shares in each third of the time."""
    lead = int(horizon_s / STEP_S) + 1
    state, quantiles = None, []
    for number, rate in enumerate(rates, 1):
        state = forecaster.update(state, number * STEP_S, rate, STEP_S)
        forecast = forecaster.forecast(state, number * STEP_S, horizon_s)
        assert forecast is not None
        quantiles.append(forecast.quantile(0.9))
    made, outcome = np.array(quantiles)[WARM_UP:-lead], np.array(rates)[WARM_UP + lead :]
    under = outcome <= made
    loss = np.maximum(0.9 * (outcome - made), -0.1 * (outcome - made)).mean()
    return float(under.mean()), float(loss), [float(part.mean()) for part in np.array_split(under, 3)]


@pytest.mark.parametrize("horizon_s", [30.0, 300.0])
@pytest.mark.parametrize("name", ["servegen_mmid_day4_x0.004", "azure2024_conv_tue_x0.2_recon"])
def test_coverage_on_four_hours_of_a_trace(name: str, horizon_s: float) -> None:
    with np.load(DATA / "traces" / "arrivals_per_5s.npz") as data:
        counts = data[name]
    rates = [float(count) / STEP_S for count in counts]
    share, loss, thirds = judged(Forecaster(), rates, horizon_s)
    _, last_value, _ = judged(Forecaster(experts=(Constant(half_life_s=0),)), rates, horizon_s)
    assert 0.88 <= share <= 0.92
    assert all(0.85 <= third <= 0.95 for third in thirds)
    assert loss < last_value


@pytest.mark.parametrize(
    ("rate_per_s", "low", "high"),
    [
        (8.0, 0.88, 0.92),
        (1.0, 0.87, 0.93),
        (0.3, 0.86, 0.95),  # Poisson(1.5): a whole number has 0.809 or 0.934 at or under it, so 0.9 takes turns
        (0.02, 0.9, 1.0),  # Poisson(0.1): 0.905 of the intervals have no arrival at all
    ],
)
def test_coverage_at_low_counts(
    poisson: Callable[..., list[float]], rate_per_s: float, low: float, high: float
) -> None:
    share, _, _ = judged(Forecaster(), poisson(np.full(5000, rate_per_s)), 30)
    assert low <= share <= high


def test_coverage_of_bursty_counts(poisson: Callable[..., list[float]]) -> None:
    """Negative binomial counts of mean 20 and variance 120, drawn as Poisson counts of gamma rates."""
    rates = np.random.default_rng(8).gamma(4, 1, size=6000)
    share, _, thirds = judged(Forecaster(), poisson(rates), 120)
    assert 0.88 <= share <= 0.92
    assert all(0.86 <= third <= 0.94 for third in thirds)


def test_coverage_under_a_daily_swing(poisson: Callable[..., list[float]]) -> None:
    hours = np.arange(8000) * 4 * STEP_S / 3600
    share, _, thirds = judged(Forecaster(), poisson(6 - 5 * np.cos(hours * np.pi / 12)), 300)
    assert 0.88 <= share <= 0.92
    assert all(0.86 <= third <= 0.94 for third in thirds)


def test_a_rush_at_the_same_time_each_period_is_foreseen(poisson: Callable[..., list[float]]) -> None:
    """Every four hours the rate jumps from 2 to 10 for 20 minutes. Before the third time, the seasonal expert is
    trusted, and five minutes ahead more is expected than before the first."""
    hours = np.arange(3 * 2880) * STEP_S / 3600
    rates = poisson(2 + 8 * ((hours % 4 > 2) & (hours % 4 < 2.33)))
    experts = (Constant(half_life_s=480), Seasonal(period_s=4 * 3600, slots=48))
    forecaster, state, expected = Forecaster(experts=experts, horizons_s=(300.0,)), None, []
    for number, rate in enumerate(rates, 1):
        state = forecaster.update(state, number * STEP_S, rate, STEP_S)
        if number % 2880 == 1400:
            forecast = forecaster.forecast(state, number * STEP_S, 300)
            assert forecast is not None
            expected.append(forecast.root**2)
    assert state is not None
    assert state.tracks[0].weights[1] > 0.6
    assert expected[2] > 1.5 * expected[0]
