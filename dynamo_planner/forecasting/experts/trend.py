"""The trend expert: a damped line through the recent past."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dynamo_planner.forecasting.experts.base import Expert, Memory, Seconds, decayed


class Trend(Expert, kind="trend"):
    """A line by discounted least squares, its slope fading into the future (damped trend; Gardner & McKenzie, 1985).

    The line is fitted with weights that halve every ``half_life_s``. At equal steps that is Brown's double exponential
    smoothing (Holt's method with one parameter); as sums over ages it also holds at unequal ones. The slope halves for
    every ``damping_s`` of horizon, and counts in full only once the samples span the memory of the fit: two samples
    make no trend.

    Args:
        half_life_s: age at which a sample has half its weight. Default 60 s.
        damping_s: horizon over which the slope halves. Default 300 s.

    >>> expert, memory = Trend(half_life_s=60, damping_s=1e9), Trend().start()
    >>> for second in range(5, 1205, 5):
    ...     memory = expert.update(memory, second, 5, 5, root=2 + second / 100)
    >>> [round(root, 2) for root in expert.ahead(memory, 1200, [0, 100])]
    [14.0, 15.0]
    """

    half_life_s: Seconds = 60.0
    damping_s: Seconds = 300.0

    def start(self) -> Memory:
        return (0.0, 0.0, 0.0, 0.0, 0.0)

    def update(self, memory: Memory, at_s: float, elapsed_s: float, span_s: float, root: float) -> Memory:
        weight, ages, squares, values, products = memory
        keep = decayed(elapsed_s, self.half_life_s)
        squares = keep * (squares + elapsed_s * (2 * ages + elapsed_s * weight))
        ages = keep * (ages + elapsed_s * weight)
        products = keep * (products + elapsed_s * values)
        new = min(elapsed_s, span_s)
        return (keep * weight + new, ages, squares, keep * values + new * root, products)

    def ahead(self, memory: Memory, at_s: float, ahead_s: Sequence[float]) -> list[float]:
        weight, ages, squares, values, products = memory
        if not weight:
            return [0.0] * len(ahead_s)
        age, value = ages / weight, values / weight
        variance = squares / weight - age * age
        memory_s = self.half_life_s / math.log(2)
        slope = (age * value - products / weight) / max(variance, memory_s**2) if variance > 0 else 0.0
        level = value + slope * age
        damping_s = self.damping_s / math.log(2)
        return [max(level - slope * damping_s * math.expm1(-after / damping_s), 0.0) for after in ahead_s]
