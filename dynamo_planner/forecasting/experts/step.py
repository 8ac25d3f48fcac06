"""The step expert: the mean since the last change point."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pydantic import Field

from dynamo_planner.forecasting.experts.base import Expert, Memory, Seconds, decayed

MAX_DEVIATION = 3.0
"""Most standard deviations that one sample counts for, so that it takes several to make a change."""

SPREAD_HALF_LIFE_SAMPLES = 350.0
"""Samples after which one has half its weight in the standard deviation."""


class Step(Expert, kind="step"):
    """A slow mean that starts anew after a step, found by a two-sided CUSUM (Page, 1954).

    Deviations from the level, in standard deviations, are summed up less an allowance of ``slack`` each, never below
    zero. A sum over ``threshold`` is an alarm: the level becomes the mean of the samples since that sum last was
    zero, which is when the change most likely began, and has no older memory. A single outlier is no change: it counts
    for 3 standard deviations, less 0.75, of the 6 that make an alarm.

    Args:
        half_life_s: age at which a sample has half its weight in the level. Default 960 s.
        slack: allowance of each sample, in standard deviations. Default 0.75.
        threshold: sum that is an alarm, in standard deviations. Default 6.

    >>> expert, memory = Step(), Step().start()
    >>> for second in range(5, 905, 5):
    ...     noise = 0.3 if second % 10 else -0.3
    ...     memory = expert.update(memory, second, 5, 5, root=(2 if second < 880 else 4) + noise)
    >>> round(expert.ahead(memory, 900, [300])[0], 1)  # 25 seconds after the step
    3.7
    """

    half_life_s: Seconds = 960.0
    slack: float = Field(default=0.75, ge=0)
    threshold: float = Field(default=6.0, gt=0)

    def start(self) -> Memory:
        return (0.0,) * 10

    def update(self, memory: Memory, at_s: float, elapsed_s: float, span_s: float, root: float) -> Memory:
        level, weight, spread, seen, up, up_sum, up_weight, down, down_sum, down_weight = memory
        new = min(elapsed_s, span_s)
        error = root - level
        if seen == 0:
            return (root, new, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        size = min(abs(error) / (math.sqrt(spread) + 1e-9 * level + 1e-300), MAX_DEVIATION)
        score = math.copysign(size, error)
        spread += max(1 - decayed(1, SPREAD_HALF_LIFE_SAMPLES), 1 / (seen + 1)) * (error * error - spread)
        seen += 1
        up, up_sum, up_weight = self._cusum(up + score, up_sum, up_weight, root, new)
        down, down_sum, down_weight = self._cusum(down - score, down_sum, down_weight, root, new)
        if up > self.threshold:
            return (up_sum / up_weight, up_weight, spread, seen, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        if down > self.threshold:
            return (down_sum / down_weight, down_weight, spread, seen, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        weight = weight * decayed(elapsed_s, self.half_life_s) + new
        level += new / weight * error
        return (level, weight, spread, seen, up, up_sum, up_weight, down, down_sum, down_weight)

    def _cusum(self, total: float, values: float, weight: float, root: float, new: float) -> tuple[float, float, float]:
        """The cumulative sum, and the sum and the weight of the samples since it last was zero."""
        total -= self.slack
        return (total, values + new * root, weight + new) if total > 0 else (0.0, 0.0, 0.0)

    def ahead(self, memory: Memory, at_s: float, ahead_s: Sequence[float]) -> list[float]:
        return [memory[0]] * len(ahead_s)
