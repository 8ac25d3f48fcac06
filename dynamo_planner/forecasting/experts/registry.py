"""The kinds of experts that are shipped, and where each lives; imported when it is first needed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import SerializeAsAny, ValidationInfo, ValidatorFunctionWrapHandler, WrapValidator

from dynamo_planner.core.component import Kinds
from dynamo_planner.forecasting.experts.base import Expert

EXPERTS = Kinds(
    "expert",
    Expert,
    "dynamo_planner.experts",
    {
        "constant": "dynamo_planner.forecasting.experts.constant:Constant",
        "step": "dynamo_planner.forecasting.experts.step:Step",
        "trend": "dynamo_planner.forecasting.experts.trend:Trend",
        "seasonal": "dynamo_planner.forecasting.experts.seasonal:Seasonal",
        "arima": "dynamo_planner.forecasting.experts.arima:Arima",
        "prophet": "dynamo_planner.forecasting.experts.prophet:Prophet",
    },
)


def _expert(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    return handler(value) if isinstance(value, Expert) else EXPERTS.build(value, info.context)


AnyExpert = Annotated[SerializeAsAny[Expert], WrapValidator(_expert)]
"""A field that holds an expert of any kind: one that is built, or its data."""
