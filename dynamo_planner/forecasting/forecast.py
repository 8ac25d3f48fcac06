"""A forecast: the predicted distribution of the mean rate over an interval."""

from __future__ import annotations

import math
from typing import NamedTuple

from dynamo_planner.core.notebook import facts_table
from dynamo_planner.forecasting.calibration import normal_quantile
from dynamo_planner.forecasting.experts.base import Memory


class Forecast(NamedTuple):
    """The predicted distribution of the mean rate over an interval, in the unit that was fed in.

    Args:
        root: predicted square root of the rate.
        error: its standard error.
        levels: ascending quantile levels that are calibrated.
        scores: how many standard errors above ``root`` each of them is.

    >>> forecast = Forecast(root=3.0, error=0.5, levels=(0.5, 0.9), scores=(0.0, 1.4))
    >>> forecast.mean, round(forecast.quantile(0.5), 2), round(forecast.quantile(0.9), 2)
    (9.25, 9.0, 13.69)
    """

    root: float
    error: float
    levels: Memory
    scores: Memory

    @property
    def mean(self) -> float:
        """The expected rate: the square of the root, and the variance that roots hide."""
        return self.root**2 + self.error**2

    def quantile(self, level: float) -> float:
        """The rate that is not exceeded with probability ``level``; never falls as ``level`` rises.

        Between calibrated levels scores are interpolated over normal quantiles, beyond them they are as far from the
        last one as those of a normal distribution. Raises ``ValueError`` for a level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1 (both excluded), got {level!r}")
        return max(self.root + self.score(level) * self.error, 0.0) ** 2

    def _repr_html_(self) -> str:
        """The mean and the calibrated quantiles, for notebooks."""
        quantiles = [(f"{level:g} quantile", self.quantile(level)) for level in self.levels]
        return facts_table([("mean per second", self.mean), *quantiles])

    def score(self, level: float) -> float:
        """How many errors above the root a quantile is."""
        normal = normal_quantile(level)
        below, score = normal_quantile(self.levels[0]), self.scores[0]
        if normal <= below:
            return score + normal - below
        for knot, own in zip(self.levels[1:], self.scores[1:], strict=True):
            above, higher = normal_quantile(knot), max(own, score)
            if normal <= above:
                return score + (normal - below) / (above - below) * (higher - score)
            below, score = above, higher
        return score + normal - below


def over_window(forecast: Forecast, noise: float, span_s: float, window_s: float) -> Forecast:
    """A forecast for an interval of ``span_s``, turned into one for a window of ``window_s``.

    The count noise of an interval, ``noise / span_s``, averages out over a longer one; the uncertainty of the level
    does not. The mean stays.

    >>> window = over_window(Forecast(3.0, 0.5, (0.5,), (0.0,)), noise=0.25, span_s=1, window_s=25)
    >>> round(window.mean, 2), round(window.error, 3)  # all of the variance was count noise, and a 25th of it is left
    (9.25, 0.1)
    """
    variance = forecast.error**2
    level = max(variance - noise / span_s, 0.0)
    wider = min(level + noise / window_s, forecast.mean)
    return Forecast(math.sqrt(forecast.mean - wider), math.sqrt(wider), forecast.levels, forecast.scores)
