"""One kill of a campaign: a planner's story is cut short by it, and the next start has to make everything whole again.

The story is that of :mod:`tests.support.circus.recovery`: start, scale up, scale down, close.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.circus.place import Place
from tests.support.circus.recovery import ALLOWED, GPUS, check_is_whole, pools_of, run_planner

ENDS_WITHIN_S = 90.0
AFTER_THE_START = [{"decode": d, "prefill": p} for d in (1, 2, 3) for p in (1, 2)]
"""Without an arbiter a rise may come about in part, which its outcome says."""


@dataclass(frozen=True)
class Kill:
    """Who dies when.

    A planner dies at a ``point`` (``"after-write:3"``, the third time it comes by there), or ``after_s`` seconds of
    its story. An arbiter dies after ``after_s``; its planner ``planner_after_s`` later, or not at all where that is
    ``None``.
    """

    victim: str
    point: str | None = None
    after_s: float = 0.0
    planner_after_s: float | None = None

    def __str__(self) -> str:
        if self.point is not None:
            return self.point
        and_planner = "" if self.planner_after_s is None else f", planner {self.planner_after_s:.2f} s later"
        return f"{self.victim} after {self.after_s:.2f} s{and_planner}"


def carry_out(place: Place, kill: Kill) -> bool:
    """Tell the story, kill, start again and compare; returns whether the kill found somebody alive.

    Raises :class:`AssertionError` where something is left that must not be, or is not there that must.
    """
    planner = run_planner(place, crash_at=kill.point)
    try:
        said, hit = _struck(place, planner, kill)
    finally:
        planner.kill()
        planner.wait()
    last = json.loads(said.splitlines()[-1])
    assert planner.returncode != 0 or last == "done"
    if last == "done":
        check_nothing_is_left(place)
        last = "close"
    elif planner.returncode != -signal.SIGKILL:
        assert last == "start", f"the planner gave up at {last}"
        check_nothing_is_left(place)
    allowed = ALLOWED[last if isinstance(last, str) else json.dumps(last)]
    if kill.victim == "arbiter" and last not in ("start", "close"):
        allowed = AFTER_THE_START
    with place.executor(pools=pools_of(place), gpus=GPUS) as executor:
        targets = check_is_whole(place, executor)
        assert targets in allowed, f"{targets} after {last}"
    check_nothing_is_left(place)
    return hit


def _struck(place: Place, planner: subprocess.Popen[str], kill: Kill) -> tuple[str, bool]:
    """What the planner said until its end, and whether the kill found its victim alive."""
    if kill.point is not None:
        said, _ = planner.communicate(timeout=ENDS_WITHIN_S)
        return said, planner.returncode == -signal.SIGKILL
    assert planner.stdout is not None
    first = planner.stdout.readline()
    time.sleep(kill.after_s)
    if kill.victim == "planner":
        planner.kill()
        said, _ = planner.communicate()
        return first + said, "done" not in said
    hit = _arbiter_is_killed(place, planner)
    if kill.planner_after_s is not None:
        time.sleep(kill.planner_after_s)
        planner.kill()
    said, _ = planner.communicate(timeout=ENDS_WITHIN_S)
    return first + said, hit


def _arbiter_is_killed(place: Place, planner: subprocess.Popen[str]) -> bool:
    """Kill the arbiter as soon as there is one; false where the planner ends without."""
    while planner.poll() is None:
        with suppress(ValueError, ProcessLookupError):
            os.kill(place.arbiter_pid(), signal.SIGKILL)
            return True
        time.sleep(0.01)
    return False


def check_nothing_is_left(place: Place) -> None:
    """No process, and no state file."""
    assert place.processes() == {}
    assert not place.file.exists()


@contextmanager
def place_of_its_own() -> Iterator[Place]:
    """A place outside a test; whatever still runs of it at the end is killed."""
    tmp = Path(tempfile.mkdtemp(prefix="dp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp))
        here = Place(f"t{secrets.token_hex(4)}", tmp / "state", tmp)
        try:
            yield here
        finally:
            for executor in here.executors:
                executor.detach()
            for pid in here.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            shutil.rmtree(tmp, ignore_errors=True)
