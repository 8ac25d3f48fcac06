"""The experts that fit a model of another library; Prophet's fits run in a process of their own."""

from __future__ import annotations

import logging

import pytest

from dynamo_planner.forecasting import Arima, Forecaster, ForecastState, Prophet


@pytest.mark.parametrize("kind", [Arima, Prophet])
def test_a_slow_rise_is_followed_and_the_state_is_json(kind: type[Arima] | type[Prophet]) -> None:
    pytest.importorskip({"Arima": "statsmodels", "Prophet": "prophet"}[kind.__name__])
    logging.getLogger("cmdstanpy").disabled = True
    forecaster = Forecaster(experts=(kind(interval_s=120, window=20),))
    state = None
    for number in range(1, 181):
        rate = 4 + number / 20 + (number * 7 % 5 - 2) / 4
        state = forecaster.update(state, 10.0 * number, rate, 10)
    assert state is not None
    forecast = forecaster.forecast(state, 1800, 300)
    assert forecast is not None
    assert forecast.quantile(0.5) == pytest.approx(4 + 210 / 20, rel=0.15)
    again = ForecastState.model_validate_json(state.model_dump_json())
    assert forecaster.update(again, 1810, 13.0, 10) == forecaster.update(state, 1810, 13.0, 10)
