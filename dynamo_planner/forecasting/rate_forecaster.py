"""The base class of forecasters: what turns the arrivals of each window into quantiles of the rate at any horizon."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Protocol

from pydantic import SerializeAsAny

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.node import Node


class RateForecast(Protocol):
    """The predicted distribution of a mean rate."""

    @property
    def mean(self) -> float:
        """The expected rate."""

    def quantile(self, level: float) -> float:
        """The rate that is not exceeded with probability ``level``; never falls as ``level`` rises."""


class RateForecaster(Node):
    """Forecasts of a rate: a state goes in with each sample, and a state comes out; ``None`` starts.

    Pure: no clock, no random numbers. The state is anything that pydantic knows; ``state_type`` says what it validates
    as when it comes back from JSON.
    """

    @abstractmethod
    def update(self, state: Any, at_s: float, rate_per_s: float | None, span_s: float) -> Any:
        """The state after a sample: the mean rate over the ``span_s`` seconds to ``at_s``, in Unix seconds."""

    @abstractmethod
    def forecast(self, state: Any, at_s: float, horizon_s: float, window_s: float | None = None) -> RateForecast | None:
        """The mean rate over the ``window_s`` seconds that begin ``horizon_s`` after ``at_s``; ``None`` if nothing is
        known."""


FORECASTERS = Kinds(
    "forecaster",
    RateForecaster,
    "dynamo_planner.forecasters",
    {"ensemble": "dynamo_planner.forecasting.forecaster:Forecaster"},
    default="ensemble",
)

AnyForecaster = Annotated[SerializeAsAny[RateForecaster], FORECASTERS.validator()]
"""A field that holds a forecaster of any kind: one that is built, or its data."""
