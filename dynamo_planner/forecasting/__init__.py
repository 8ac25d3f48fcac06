"""Arrival-rate forecasts with calibrated quantiles. Pure: state in and state out, no clock, no randomness."""

from dynamo_planner.forecasting.experts import (
    DEFAULT_EXPERTS,
    Arima,
    Constant,
    Expert,
    Prophet,
    Seasonal,
    Step,
    Trend,
)
from dynamo_planner.forecasting.forecast import Forecast
from dynamo_planner.forecasting.forecaster import Forecaster
from dynamo_planner.forecasting.rate_forecaster import RateForecast, RateForecaster
from dynamo_planner.forecasting.state import ForecastState

__all__ = [
    "DEFAULT_EXPERTS",
    "Arima",
    "Constant",
    "Expert",
    "Forecast",
    "ForecastState",
    "Forecaster",
    "Prophet",
    "RateForecast",
    "RateForecaster",
    "Seasonal",
    "Step",
    "Trend",
]
