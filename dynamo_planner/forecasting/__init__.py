"""Forecasting: what the load will be, and how sure that is. Pure: state in and state out, no clock, no randomness."""

from dynamo_planner.forecasting.experts import DEFAULT_EXPERTS
from dynamo_planner.forecasting.experts.arima import Arima
from dynamo_planner.forecasting.experts.constant import Constant
from dynamo_planner.forecasting.experts.expert import Expert
from dynamo_planner.forecasting.experts.prophet import Prophet
from dynamo_planner.forecasting.experts.seasonal import Seasonal
from dynamo_planner.forecasting.experts.step import Step
from dynamo_planner.forecasting.experts.trend import Trend
from dynamo_planner.forecasting.forecast import Forecast
from dynamo_planner.forecasting.forecaster import Forecaster, ForecastState

__all__ = [
    "DEFAULT_EXPERTS",
    "Arima",
    "Constant",
    "Expert",
    "Forecast",
    "ForecastState",
    "Forecaster",
    "Prophet",
    "Seasonal",
    "Step",
    "Trend",
]
