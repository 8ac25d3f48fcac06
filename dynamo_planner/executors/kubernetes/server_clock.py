"""Time by the clock of the API server, which wrote the times of pods and conditions.

The clock of the planner's machine may be apart from it, or be set. Differences between the two would be minutes that
never passed: pods that have failed before they were tried, or are never taken for failed. So each answer's ``Date``, to
the second, says what time it is there, and a clock that only runs carries that on.

>>> steady, wall = [50.0], [4600.0]
>>> clock = ServerClock(wall=lambda: wall[0], steady=lambda: steady[0])
>>> clock.heard("Thu, 01 Jan 1970 00:16:40 GMT", asked_s=49.9)  # 1000 s, while this machine is an hour ahead
>>> round(clock(), 1), round(clock.to_wall(990.0), 1)
(1001.1, 4588.9)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

APART_S = 5.0
"""Smaller differences between the clocks are left alone (seconds)."""

_RESOLUTION_S = 1.0  # of the header


class ServerClock:
    """Unix seconds by the clock of the API server; before its first answer, by that of this machine.

    Args:
        wall: Gives Unix seconds by the clock of this machine.
        steady: Gives seconds by a clock that only runs.
    """

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._offset_s = wall() - steady()

    def __call__(self) -> float:
        return self._steady() + self._offset_s

    @property
    def steady_s(self) -> float:
        """Seconds of the clock that only runs."""
        return self._steady()

    def heard(self, date: str | None, asked_s: float) -> None:
        """Take in the ``Date`` of an answer to what was asked at :attr:`steady_s`."""
        try:
            there_s = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least_s, most_s = there_s - self._steady(), there_s + _RESOLUTION_S - asked_s
        self._offset_s = min(max(self._offset_s, least_s), most_s)

    def to_wall(self, at_s: float) -> float:
        """A time of this clock by that of this machine, which policies see."""
        apart_s = self._wall() - self()
        return at_s + apart_s if abs(apart_s) > APART_S else at_s
