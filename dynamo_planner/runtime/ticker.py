"""The schedule of the loop's ticks, and the signals that end it."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SLICE_S = 0.1
"""The longest sleep at a time (seconds), so that a request to stop takes effect soon."""

_LEFT_ALONE = (None, signal.SIG_IGN)
"""Handlers that stay: one that Python did not set and could not put back, and the one that ``nohup`` sets."""


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


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Notice SIGTERM and SIGINT: gives a function that returns whether one came. A second one has its usual effect.

    Handlers are set in the main thread only, where Python allows it, and put back at the end.
    """
    came: list[int] = []
    before = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        before = {number: handler for number, handler in handlers.items() if handler not in _LEFT_ALONE}

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        put_back()

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        put_back()
