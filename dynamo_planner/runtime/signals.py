"""Signals: those that end a planner in good order, and SIGHUP, which reloads its configuration.

====================  =========================================================================================
SIGTERM, SIGINT       the loop ends after the step in progress; a second one has its usual effect
SIGQUIT               the same
SIGHUP                reloads, where there is something to reload; else it ends the loop as SIGTERM does
SIGUSR1, SIGUSR2      the command ignores them: log files are opened for each line, so that nothing needs reopening
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

# Windows has none of these.
_HANGUP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
_QUIT = (signal.SIGQUIT,) if hasattr(signal, "SIGQUIT") else ()
_REOPEN = (signal.SIGUSR1, signal.SIGUSR2) if hasattr(signal, "SIGUSR1") else ()

SIGNALLED = 128
"""The exit status of a program that a signal ended is this and the signal's number, as shells have it."""


@contextmanager
def stop_signals(reload: Callable[[], None] | None = None) -> Iterator[Callable[[], bool]]:
    """Notice signals: gives a function that returns whether the loop is to end, and reloads first where SIGHUP came.

    Handlers are set in the main thread only, where Python allows it, and put back at the end.
    """
    came: list[int] = []
    hung_up: list[int] = []
    before = _handlers(signal.SIGTERM, signal.SIGINT, *_QUIT)
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


class Around:
    """What happens around a loop, while it is set up and while what it started is ended.

    Attributes:
        hung_up: whether SIGHUP came while it was set up: the files are to be read again.
    """

    def __init__(self) -> None:
        self.hung_up = False
        self._had_terminal = has_terminal()
        self.handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
            **dict.fromkeys((signal.SIGTERM, *_QUIT), self._leave),
            **dict.fromkeys(_HANGUP, self._hang_up),
            **dict.fromkeys(_REOPEN, self._leave_alone),
        }

    def _leave(self, number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(SIGNALLED + number)

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if self._had_terminal and not has_terminal():
            self._leave(number, frame)
        self.hung_up = True

    def _leave_alone(self, number: int, frame: FrameType | None) -> None:
        """Log files are opened for each line."""

    def end_begun(self) -> None:
        """Let a terminal that is closed from now on not cut the end short."""
        for number in _handlers(*_HANGUP):
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def exit_on_signals() -> Iterator[Around]:
    """Let SIGTERM and a closed terminal raise :class:`SystemExit`, so that what was started is ended as at Ctrl-C."""
    around = Around()
    before = _handlers(*around.handlers)
    for number in before:
        signal.signal(number, around.handlers[number])
    try:
        yield around
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
