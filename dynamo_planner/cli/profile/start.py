"""An engine that `dynamo-planner profile URL -- COMMAND` starts itself, and how long the start takes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dynamo_planner.profiling.discover import is_ready
from dynamo_planner.profiling.engine import ProfilingError
from dynamo_planner.sources.access import Access

LOOK_EVERY_S = 0.1
"""Seconds between two looks at whether the engine takes requests."""

LONGEST_START_S = 3600.0
"""A start that takes longer is given up."""

GRACE_S = 15.0
"""Seconds that the engine has to end before it is killed."""

LOG_LINES = 5
"""Last lines of the log that a failed start shows."""


@contextmanager
def started(command: Sequence[str], url: str, access: Access, log: Path) -> Iterator[float]:
    """Start an engine and wait until it takes requests; yields the seconds of the start, and ends the engine after.

    What it says goes to ``log``. Raises :class:`ProfilingError` where it does not start, or something else is there.
    """
    if is_ready(url, access):
        raise ProfilingError(f"{url}: answers before the engine is started: end what runs there, or leave out COMMAND")
    began_s = time.monotonic()
    with log.open("wb") as file:
        try:
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)  # noqa: S603 - what the user asked to start
        except OSError as error:
            raise ProfilingError(f"{command[0]}: cannot be started: {error.strerror}") from error
    try:
        while not is_ready(url, access):
            waited_s = time.monotonic() - began_s
            if process.poll() is not None or waited_s > LONGEST_START_S:
                how = f"ended with {process.returncode}" if process.poll() is not None else "does not take requests"
                said = log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                raise ProfilingError("\n".join([f"{command[0]}: {how} after {waited_s:.0f} s ({log}):", *said]))
            time.sleep(LOOK_EVERY_S)
        yield time.monotonic() - began_s
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End an engine with all its processes."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
            return
