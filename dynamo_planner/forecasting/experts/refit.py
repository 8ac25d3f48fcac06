"""Refitted experts: models of other libraries, fitted anew to a bounded window each time an interval closes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise

from pydantic import Field

from dynamo_planner.forecasting.experts.base import UNKNOWN, Expert, Memory, Seconds

MIN_INTERVALS = 5
"""Fewer intervals than this are not fitted."""

MAX_RATIO = 2.0
"""No forecast exceeds this many times the largest root of the window."""

_HEAD = 4


class Refit(Expert):
    """An expert that fits a model to the means over the last intervals, each time an interval closes.

    A fit forecasts the next ``steps`` intervals; beyond those the last one stands. Fewer than five intervals, all the
    same value, or a fit that fails, make a constant forecast; none exceeds twice the largest root of the window. A
    fit takes milliseconds to seconds, while every other expert takes microseconds.

    Args:
        interval_s: seconds of an interval. Default 60.
        window: intervals that are fitted. Default 50.
        steps: intervals that are forecast. Default 10.
    """

    interval_s: Seconds = 60.0
    window: int = Field(default=50, ge=MIN_INTERVALS, le=1000)
    steps: int = Field(default=10, ge=1, le=1000)

    @abstractmethod
    def fit(self, times_s: Sequence[float], roots: Sequence[float | None]) -> Sequence[float]:
        """The roots of the next ``steps`` intervals, after those in the middle of which ``times_s`` are."""

    def start(self) -> Memory:
        return (UNKNOWN, 0.0, 0.0, 0.0) + (UNKNOWN,) * self.window + (0.0,) * self.steps

    def update(self, memory: Memory, at_s: float, elapsed_s: float, span_s: float, root: float) -> Memory:
        number, values, weight, _ = memory[:_HEAD]
        new = min(elapsed_s, span_s)
        here = (at_s - new / 2) // self.interval_s
        if not weight:
            path = (root,) * self.steps
            return (here, new * root, new, here * self.interval_s, *memory[_HEAD : _HEAD + self.window], *path)
        if here <= number:
            return (number, values + new * root, weight + new, *memory[_HEAD - 1 :])
        missed = (UNKNOWN,) * min(int(here - number - 1), self.window)
        history = (*memory[_HEAD : _HEAD + self.window], values / weight, *missed)[-self.window :]
        return (here, new * root, new, here * self.interval_s, *history, *self._path(history, here))

    def ahead(self, memory: Memory, at_s: float, ahead_s: Sequence[float]) -> list[float]:
        origin, path = memory[_HEAD - 1], memory[_HEAD + self.window :]
        return [self._along(path, (at_s + after - origin) / self.interval_s - 0.5) for after in ahead_s]

    def _path(self, history: Memory, here: float) -> Memory:
        """The forecast of a fit from interval number ``here`` on."""
        seen = [root for root in history if root >= 0]
        if len(seen) < MIN_INTERVALS or all(one == other for one, other in pairwise(seen)):
            return (seen[-1] if seen else 0.0,) * self.steps
        first = next(place for place, root in enumerate(history) if root >= 0)
        times = [(here - self.window + place + 0.5) * self.interval_s for place in range(first, self.window)]
        path = self.fit(times, [root if root >= 0 else None for root in history[first:]])
        if len(path) != self.steps or not all(map(math.isfinite, path)):
            return (seen[-1],) * self.steps
        return tuple(min(max(float(root), 0.0), MAX_RATIO * max(seen)) for root in path)

    @staticmethod
    def _along(path: Memory, place: float) -> float:
        """The path at a place between its steps."""
        place = min(max(place, 0.0), len(path) - 1.0)
        left = int(place)
        right = min(left + 1, len(path) - 1)
        return path[left] + (place - left) * (path[right] - path[left])
