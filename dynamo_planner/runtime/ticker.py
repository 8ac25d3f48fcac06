"""The schedule of the loop's ticks."""

from __future__ import annotations

import math
from collections.abc import Callable

SLICE_S = 0.1
"""The longest sleep at a time (seconds), so that a request to stop takes effect soon."""


class TickSchedule:
    """A schedule without drift: due every ``interval_s`` from the start on; what a long step missed is skipped."""

    def __init__(self, interval_s: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._sleep = sleep
        self._due_s = clock()

    def wait(self, ended: Callable[[], bool]) -> None:
        """Sleep until the next tick, or until ``ended``. A clock that was set back starts the schedule anew."""
        behind_s = self._clock() - self._due_s
        self._due_s += self._interval_s * max(1, math.ceil(behind_s / self._interval_s))
        while not ended():
            left_s = self._due_s - self._clock()
            if left_s <= 0:
                return
            if left_s > self._interval_s:
                self._due_s += self._interval_s - left_s
                left_s = self._interval_s
            self._sleep(min(left_s, SLICE_S))
