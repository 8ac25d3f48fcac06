"""Experts: the point forecasts that a forecaster weighs."""

from dynamo_planner.forecasting.experts.arima import Arima
from dynamo_planner.forecasting.experts.base import Expert
from dynamo_planner.forecasting.experts.constant import Constant
from dynamo_planner.forecasting.experts.prophet import Prophet
from dynamo_planner.forecasting.experts.seasonal import Seasonal
from dynamo_planner.forecasting.experts.step import Step
from dynamo_planner.forecasting.experts.trend import Trend

__all__ = ["DEFAULT_EXPERTS", "Arima", "Constant", "Expert", "Prophet", "Seasonal", "Step", "Trend"]

DEFAULT_EXPERTS = (
    Constant(half_life_s=480),
    Constant(half_life_s=3600),
    Step(),
    Trend(),
    Seasonal(),
)
"""The experts of a forecaster that names none."""
