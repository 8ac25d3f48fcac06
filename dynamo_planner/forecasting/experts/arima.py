"""The ARIMA expert, by statsmodels (extra ``arima``)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.forecasting.experts.refit import Refit

Order = Annotated[int, Field(ge=0, le=5)]

MAX_ITERATIONS = 25
"""Most iterations of the optimizer; more make a fit several times as slow and hardly better."""


class Arima(Refit, kind="arima"):
    """ARIMA(p, d, q) of the square roots, for those who come from Dynamo's ``arima`` predictor.

    Dynamo searches the order with ``auto_arima``; here it is fixed, which is steadier from fit to fit. Raises
    :class:`~dynamo_planner.core.extras.MissingExtraError` where statsmodels is not installed.

    Args:
        order: autoregressive order, differences and moving-average order, each 0 to 5. Default (2, 1, 1).
    """

    order: tuple[Order, Order, Order] = (2, 1, 1)

    def model_post_init(self, _: Any) -> None:
        with needs_extra("arima"):
            import statsmodels.tsa.arima.model  # type: ignore[import-not-found, import-untyped, unused-ignore] # noqa: F401, PLC0415

    def fit(self, times_s: Sequence[float], roots: Sequence[float | None]) -> Sequence[float]:
        from statsmodels.tsa.arima.model import ARIMA  # noqa: PLC0415

        series = [math.nan if root is None else root for root in roots]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # starting values, convergence: the ensemble judges by the outcome
            try:
                fitted = ARIMA(series, order=self.order).fit(method_kwargs={"maxiter": MAX_ITERATIONS}, cov_type="none")
                return list(fitted.forecast(self.steps))
            except (ValueError, ArithmeticError):  # numpy's LinAlgError is a ValueError
                return ()
