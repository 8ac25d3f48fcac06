"""Signals: those that end a planner in good order, and SIGHUP, which reloads its configuration.

====================  =========================================================================================
SIGTERM, SIGINT       the loop ends after the step in progress; a second one has its usual effect
SIGHUP                reloads, where there is something to reload; else it ends the loop as SIGTERM does
a closed terminal     sends SIGHUP as well, and ends the loop: no one is left to read what it says
====================  =========================================================================================

A signal that is ignored when the planner starts, as ``nohup`` has it, stays ignored.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_LEFT_ALONE = (None, signal.SIG_IGN)
"""Handlers that stay: one that Python did not set and could not put back, and the one that ``nohup`` sets."""

_HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # Windows has none

SIGNALLED = 128
"""The exit status of a program that a signal ended is this and the signal's number, as shells have it."""


@contextmanager
def stop_signals(reload: Callable[[], None] | None = None) -> Iterator[Callable[[], bool]]:
    """Notice signals: gives a function that returns whether the loop is to end, and reloads first where SIGHUP came.

    Handlers are set in the main thread only, where Python allows it, and put back at the end.
    """
    came: list[int] = []
    hung_up: list[int] = []
    before = _handlers(signal.SIGTERM, signal.SIGINT)
    hangup = _handlers(*_HANGUP)
    had_terminal = bool(hangup) and has_terminal()

    def put_back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        put_back()

    def note_hangup(number: int, frame: FrameType | None) -> None:
        hung_up.append(number)

    def ended() -> bool:
        if hung_up:
            hung_up.clear()
            if reload is None or (had_terminal and not has_terminal()):
                came.extend(_HANGUP)
            else:
                reload()
        return bool(came)

    for number in before:
        signal.signal(number, note)
    for number in hangup:
        signal.signal(number, note_hangup)
    try:
        yield ended
    finally:
        put_back()
        for number, handler in hangup.items():
            signal.signal(number, handler)


@contextmanager
def exit_on_signals() -> Iterator[Callable[[], None]]:
    """Let SIGTERM and SIGHUP raise :class:`SystemExit`, so that what was started is ended as after Ctrl-C.

    Gives a function to call once the end has begun: a terminal that is closed from then on does not cut it short.
    """
    before = _handlers(signal.SIGTERM, *_HANGUP)

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(SIGNALLED + number)

    def end_begun() -> None:
        for number in before.keys() & {*_HANGUP}:
            signal.signal(number, signal.SIG_IGN)

    for number in before:
        signal.signal(number, leave)
    try:
        yield end_begun
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def has_terminal() -> bool:
    """Whether there is a controlling terminal; a closed one does not open any more."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    os.close(terminal)
    return True


def _handlers(*numbers: signal.Signals) -> dict[signal.Signals, signal.Handlers | Callable[..., object] | int]:
    """The handlers of these signals, of which those are left out that are to stay; none outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in numbers}
    return {number: handler for number, handler in found.items() if handler not in _LEFT_ALONE and handler is not None}
