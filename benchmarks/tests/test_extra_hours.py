"""What the split of extra GPU-hours reads off a trace."""

from __future__ import annotations

import numpy as np

from benchmarks.extra_hours import TrueRates, of_values, rate_ahead
from dynamo_planner.workloads.trace import Trace


def test_the_rate_ahead_is_that_of_the_window_or_of_the_last_one() -> None:
    arrival_s = np.array([0.0, 1.0, 60.0, 61.0, 62.0, 119.0])
    trace = Trace(arrival_s, np.full(6, 10), np.full(6, 5), None, "six", 120.0)
    assert rate_ahead(trace, 0.0, 60.0) == 2 / 60
    assert rate_ahead(trace, 500.0, 60.0) == 4 / 60
    forecast = TrueRates(trace=trace).forecast(None, 0.0, 60.0, 30.0)
    assert (forecast.mean, forecast.quantile(0.9)) == (3 / 30, 3 / 30)


def test_lengths_of_values_keep_their_mean_and_spread() -> None:
    lengths = of_values(np.array([100, 300]))
    assert (lengths.mean, lengths.cv2, len(lengths.values)) == (200.0, 0.25, 64)
    assert lengths.values.mean() == 200.0
