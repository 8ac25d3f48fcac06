"""Points at which a test kills a planner, to show that the next start mends what was left.

There is one before and one after each write of the state file, each command to the arbiter and each signal. The
functions that do these are wrapped here, from outside, so that the executor itself knows nothing of being killed.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dynamo_planner.executors.circus import arbiter, supervisor
from dynamo_planner.executors.circus.client import ArbiterClient
from dynamo_planner.executors.circus.store import Store

POINTS = tuple(f"{when}-{what}" for what in ("write", "command", "signal") for when in ("before", "after"))

_WRAPPED: tuple[tuple[Any, str, str], ...] = (
    (Store, "write", "write"),
    (ArbiterClient, "_send", "command"),
    (arbiter, "send", "signal"),
    (supervisor, "send", "signal"),
)


@contextmanager
def crash_points(crash_at: str | None = None) -> Iterator[Counter[str]]:
    """Count how often each point is passed; ``after-command:3`` kills this process at the third pass of that point."""
    passed: Counter[str] = Counter()

    def passing(point: str) -> None:
        passed[point] += 1
        if crash_at == f"{point}:{passed[point]}":
            os.kill(os.getpid(), signal.SIGKILL)

    def between(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **named: Any) -> Any:
            passing(f"before-{what}")
            result = function(*args, **named)
            passing(f"after-{what}")
            return result

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for owner, name, what in _WRAPPED:
            patch.setattr(owner, name, between(what, getattr(owner, name)))
        yield passed
