"""HTTP health checks of workers: while they start, and for as long as they live."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

TIMEOUT_S = 1.0
PAUSE_S = 4.0
READY_EVERY_S = 1.0

Answer = Literal["ok", "error", "silent"]
"""The answer to a health check: 200; another status, or no connection; none within a second."""


class HealthCheck(NamedTuple):
    """The health check of one worker: its port at 127.0.0.1, the path, and the least seconds between two checks."""

    port: int
    path: str
    every_s: float


class HealthChecks:
    """Checks the health of workers, all at once, and waits a second at most.

    One that accepts the request and does not answer is left alone for a while, so that a worker that hangs does not
    delay every tick.
    """

    def __init__(self) -> None:
        self._paused_until: dict[int, float] = {}

    def answers(self, checks: Mapping[str, HealthCheck]) -> dict[str, Answer]:
        """The answers of those of the workers, by name, whose check is due."""
        now = time.monotonic()
        self._paused_until = {port: until for port, until in self._paused_until.items() if until > now}
        due = {name: check for name, check in checks.items() if check.port not in self._paused_until}
        if not due:
            return {}
        with ThreadPoolExecutor(max_workers=min(16, len(due))) as threads:
            answers = dict(zip(due, threads.map(_answer, due.values()), strict=True))
        for name, check in due.items():
            pause_s = PAUSE_S if answers[name] == "silent" else check.every_s
            self._paused_until[check.port] = time.monotonic() + pause_s
        return answers


def _answer(check: HealthCheck) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", check.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", check.path)
        return "ok" if connection.getresponse().status == http.HTTPStatus.OK else "error"
    except TimeoutError:
        return "silent"
    except (OSError, http.client.HTTPException):
        return "error"
    finally:
        connection.close()
