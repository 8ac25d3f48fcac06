"""check_forecaster: the laws of whatever forecasts an arrival rate."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter

from dynamo_planner.conformance.laws import ConformanceError
from dynamo_planner.conformance.loops import MAX_STATE_BYTES
from dynamo_planner.forecasting import RateForecaster

LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99)
HORIZONS_S = (0.0, 60.0, 600.0, 7200.0)
WINDOWS_S = (10.0, 60.0)
SETTLED_SAMPLES = 360
"""Samples of a constant rate after which it has to be known."""

MAX_RELATIVE_ERROR = 0.1
"""The largest error of the mean and the median under a constant rate."""


def check_forecaster(forecaster: RateForecaster) -> None:
    """Look for a case in which a forecaster breaks a law. Raises :class:`ConformanceError`.

    ================  ===============================================================================================
    nothing-known     before the first sample there is no forecast
    same-input        the same again: no random numbers, no memory of its own
    state-json        the state goes through JSON, and forecasts the same
    state-size        at most 64 KiB as JSON after a day and a half
    missing           a sample that is missing leaves the state as it is
    quantiles         at least 0, finite, and never falling as the level rises
    constant          a rate that stays is forecast: mean and median within 10 % after an hour
    ================  ===============================================================================================
    """
    if forecaster.forecast(None, 0.0, 60.0) is not None:
        raise ConformanceError("nothing-known", forecaster, "it forecasts without having observed anything")
    _check_constant(forecaster)
    state: Any = None
    for at_s, rate, span_s in _samples():
        updated = forecaster.update(state, at_s, rate, span_s)
        if forecaster.update(state, at_s, rate, span_s) != updated:
            raise ConformanceError("same-input", forecaster, f"two updates with {rate:g}/s differ")
        if forecaster.update(updated, at_s + span_s, None, span_s) != updated:
            raise ConformanceError("missing", forecaster, "a sample of None changes the state")
        state = updated
    for horizon_s in HORIZONS_S:
        for window_s in WINDOWS_S:
            _check_forecast(forecaster, state, at_s, horizon_s, window_s)


def _samples() -> Iterator[tuple[float, float, float]]:
    """A day and a half with bursts, an idle night, and samples of several lengths: time, rate and seconds."""
    at_s = 1_700_000_000.0
    for number in range(1500):
        span_s = (10.0, 30.0, 60.0, 300.0)[number // 400]
        at_s += span_s
        idle = 700 < number < 760
        yield at_s, 0.0 if idle else 20 + 15 * math.sin(number / 40) + 80 * (number % 97 == 0), span_s


def _check_constant(forecaster: RateForecaster) -> None:
    state: Any = None
    for number in range(SETTLED_SAMPLES):
        state = forecaster.update(state, 1e9 + 10.0 * number, 25.0, 10.0)
    forecast = forecaster.forecast(state, 1e9 + 10.0 * SETTLED_SAMPLES, 60.0, 60.0)
    if forecast is None:
        raise ConformanceError("constant", forecaster, "an hour of 25/s is forecast as unknown")
    for what, value in (("mean", forecast.mean), ("median", forecast.quantile(0.5))):
        if not abs(value - 25) <= MAX_RELATIVE_ERROR * 25:
            raise ConformanceError("constant", forecaster, f"an hour of 25/s is forecast with a {what} of {value:g}/s")


def _check_forecast(forecaster: RateForecaster, state: Any, at_s: float, horizon_s: float, window_s: float) -> None:
    adapter = TypeAdapter[Any](forecaster.state_type)
    text = adapter.dump_json(state)
    if len(text) > MAX_STATE_BYTES:
        message = f"the state has {len(text)} bytes as JSON, and {MAX_STATE_BYTES} are allowed"
        raise ConformanceError("state-size", forecaster, message)
    forecast = forecaster.forecast(state, at_s, horizon_s, window_s)
    again = forecaster.forecast(adapter.validate_python(json.loads(text)), at_s, horizon_s, window_s)
    if forecast is None or again is None:
        raise ConformanceError("state-json", forecaster, "after a day and a half nothing is known")
    values = [forecast.quantile(level) for level in LEVELS]
    if [again.mean, *[again.quantile(level) for level in LEVELS]] != [forecast.mean, *values]:
        raise ConformanceError("state-json", forecaster, f"after a trip through JSON {horizon_s:g} s ahead differ")
    if not all(math.isfinite(value) and value >= 0 for value in (forecast.mean, *values)) or values != sorted(values):
        shown = ", ".join([f"{level:g}: {value:g}" for level, value in zip(LEVELS, values, strict=True)])
        raise ConformanceError("quantiles", forecaster, f"{horizon_s:g} s ahead they are {shown}")
