"""How bursty arrivals are: the index of dispersion of their counts, at several time scales."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Self

from pydantic import Field, model_validator

from dynamo_planner.core.values import Frozen
from dynamo_planner.forecasting.experts.expert import MOST_PER_S, UNKNOWN, Seconds, checked, decayed

_Row = tuple[float, float, float, float, float]

_START: _Row = (0.0, 0.0, UNKNOWN, 0.0, 0.0)


class DispersionState(Frozen):
    """What :class:`Dispersion` remembers; per scale: seconds and arrivals of the window that is open, arrivals of the
    one before, and sums over past windows of half the squared differences and of the arrivals."""

    at_s: float
    rows: tuple[_Row, ...]


class Dispersion(Frozen):
    """Variance over mean of arrival counts, at time scales: 1 for Poisson, more for bursts, less for regular arrivals.

    The variance is half the mean squared difference of successive counts (the Allan factor; Allan, 1966, and Lowen &
    Teich, 1996), so that a slow change of the rate is not taken for burstiness. Both sums fade with ``half_life_s``.

    >>> dispersion, state = Dispersion(scales_s=(5, 60)), None
    >>> for second in range(5, 605, 5):  # 40 and 60 arrivals by turns: half of 20 squared, over 50
    ...     state = dispersion.update(state, second, 8 if second % 2 else 12, span_s=5)
    >>> round(dispersion.at(state, 5), 1), round(dispersion.at(state, 60), 1)
    (4.0, 0.0)
    """

    scales_s: tuple[Seconds, ...] = Field(default=(10.0, 60.0, 300.0), min_length=1)
    half_life_s: Seconds = 3600.0

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if any(low >= high for low, high in pairwise(self.scales_s)):
            raise ValueError(f"scales_s must ascend, got {self.scales_s}")
        return self

    def update(
        self, state: DispersionState | None, at_s: float, rate_per_s: float | None, span_s: float
    ) -> DispersionState | None:
        """The state after a sample: arrivals per second over the ``span_s`` seconds to ``at_s``.

        Ignored, with the state as it was: a missing rate (``None``, NaN, infinity), and a sample that begins before the
        last one ended. What was counted before a gap is not compared with what comes after it. Scales much shorter
        than ``span_s`` learn nothing.

        Raises ``ValueError`` for what is no sample (see :func:`~dynamo_planner.forecasting.experts.expert.checked`).
        """
        at_s, rate, span_s = checked(at_s, rate_per_s, span_s)
        slack_s = span_s / 4
        rows = state.rows if state and len(state.rows) == len(self.scales_s) else (_START,) * len(self.scales_s)
        if rate is None or (state and at_s - span_s < state.at_s - slack_s):
            return state
        if state and at_s - span_s > state.at_s + slack_s:
            rows = tuple([(0.0, 0.0, UNKNOWN, row[3], row[4]) for row in rows])
        counted = [self._counted(row, scale_s, rate, span_s) for row, scale_s in zip(rows, self.scales_s, strict=True)]
        return DispersionState.unchecked(at_s=at_s, rows=tuple(counted))

    def _counted(self, row: _Row, scale_s: float, rate_per_s: float, span_s: float) -> _Row:
        """One scale after a sample; a window closes once it is as long as the scale, to half a span."""
        seconds, count, before, squares, counts = row
        if span_s > 1.5 * scale_s:
            return row
        seconds, count = seconds + span_s, count + min(rate_per_s, MOST_PER_S) * span_s
        if seconds < scale_s - span_s / 2:
            return (seconds, count, before, squares, counts)
        if before != UNKNOWN:
            keep = decayed(seconds, self.half_life_s)
            squares, counts = keep * squares + (count - before) ** 2 / 2, keep * counts + count
        return (0.0, 0.0, count, squares, counts)

    def at(self, state: DispersionState | None, scale_s: float) -> float | None:
        """The index of dispersion at a time scale: between those that are counted, interpolated over the logarithm of
        the scale, beyond them that of the nearest. ``None`` where nothing was counted yet, or nothing arrived."""
        rows = state.rows if state else ()
        points = [
            (own_s, squares / counts)
            for own_s, (_, _, _, squares, counts) in zip(self.scales_s, rows, strict=False)
            if counts > 0
        ]
        if not points:
            return None
        if scale_s <= points[0][0]:
            return points[0][1]
        for (low_s, low), (high_s, high) in pairwise(points):
            if scale_s <= high_s:
                return low + (high - low) * math.log(scale_s / low_s) / math.log(high_s / low_s)
        return points[-1][1]
