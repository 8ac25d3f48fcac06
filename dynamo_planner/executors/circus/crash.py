"""Places where a test can kill the planner, to show that the next start mends whatever was left.

``DYN_PLANNER_CRASH_AT="after-command:3"`` kills the process with SIGKILL when it passes ``after-command`` for the third
time. There is a place before and after each write of the state, each command to the arbiter and each signal. Without
the variable, passing one does nothing.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

PLACES = tuple(f"{when}-{what}" for what in ("write", "command", "signal") for when in ("before", "after"))

_passed: Counter[str] = Counter()


def crash_point(place: str) -> None:
    """Kill this process if the environment says that it is to die here, this time."""
    wanted = os.environ.get("DYN_PLANNER_CRASH_AT")
    if wanted is None:
        return
    _passed[place] += 1
    if wanted == f"{place}:{_passed[place]}":
        os.kill(os.getpid(), signal.SIGKILL)
