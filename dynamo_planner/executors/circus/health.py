"""HTTP health checks of workers: while they start, and for as long as they live."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

TIMEOUT_S = 1.0
PAUSE_S = 4.0
READY_EVERY_S = 1.0
LONGEST_LINE = 4096

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
    """The status line of the answer; a worker that sends it byte by byte has no more time than one that is silent."""
    request = f"GET {check.path} HTTP/1.1\r\nHost: 127.0.0.1:{check.port}\r\nConnection: close\r\n\r\n"
    ends_s = time.monotonic() + TIMEOUT_S
    line = b""
    try:
        with socket.create_connection(("127.0.0.1", check.port), timeout=TIMEOUT_S) as connection:
            connection.sendall(request.encode())
            while b"\n" not in line and len(line) < LONGEST_LINE:
                connection.settimeout(max(ends_s - time.monotonic(), 1e-3))
                if not (part := connection.recv(LONGEST_LINE)):
                    break
                line += part
    except TimeoutError:
        return "silent"
    except (OSError, UnicodeError):
        return "error"
    return "ok" if re.match(rb"HTTP/1\.[01] 200\b", line) else "error"
