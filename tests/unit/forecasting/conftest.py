"""Series to forecast, and a way through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pytest

from dynamo_planner.forecasting import Forecaster, ForecastState

STEP_S = 5.0

Feed = Callable[..., ForecastState | None]


@pytest.fixture(scope="session")
def feed() -> Feed:
    """Feed rates at equal steps, the first one step after ``begin_s``, and return the state."""

    def through(
        forecaster: Forecaster,
        rates: Iterable[float | None],
        state: ForecastState | None = None,
        begin_s: float = 0.0,
        step_s: float = STEP_S,
    ) -> ForecastState | None:
        for number, rate in enumerate(rates, 1):
            state = forecaster.update(state, begin_s + number * step_s, rate, step_s)
        return state

    return through


@pytest.fixture(scope="session")
def poisson() -> Callable[..., list[float]]:
    """Rates of Poisson counts over 5 s, a fixed draw."""

    def draw(rates_per_s: npt.ArrayLike, seed: int = 1) -> list[float]:
        counts = np.random.default_rng(seed).poisson(np.asarray(rates_per_s) * STEP_S)
        return [float(rate) for rate in counts / STEP_S]

    return draw
