"""The experts that there are, and those that a forecaster has by default."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, ValidatorFunctionWrapHandler, WrapValidator

from dynamo_planner.forecasting.experts.arima import Arima
from dynamo_planner.forecasting.experts.constant import Constant
from dynamo_planner.forecasting.experts.expert import Expert
from dynamo_planner.forecasting.experts.prophet import Prophet
from dynamo_planner.forecasting.experts.seasonal import Seasonal
from dynamo_planner.forecasting.experts.step import Step
from dynamo_planner.forecasting.experts.trend import Trend


def _own_or_known(value: Any, known_kind: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, Expert) else known_kind(value)


AnyExpert = Annotated[
    SerializeAsAny[Annotated[Constant | Step | Trend | Seasonal | Arima | Prophet, Field(discriminator="kind")]],
    WrapValidator(_own_or_known),
]
"""An expert: one of those here by its ``kind``, or any :class:`Expert` of your own as an object."""

DEFAULT_EXPERTS = (
    Constant(half_life_s=480),
    Constant(half_life_s=3600),
    Step(),
    Trend(),
    Seasonal(),
)
