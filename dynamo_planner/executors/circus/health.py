"""HTTP health checks of starting workers."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_S = 1.0
PAUSE_S = 4.0


class HealthChecks:
    """Requests the health of workers on their ports at 127.0.0.1, all at once, and waits a second at most.

    One that accepts the request and does not answer is left alone for a while, so that a worker that hangs does not
    delay every tick.
    """

    def __init__(self) -> None:
        self._paused_until: dict[int, float] = {}

    def healthy(self, checks: Mapping[str, tuple[int, str]]) -> set[str]:
        """Those of the workers (name: port, path) that answer 200."""
        now = time.monotonic()
        self._paused_until = {port: until for port, until in self._paused_until.items() if until > now}
        due = {name: check for name, check in checks.items() if check[0] not in self._paused_until}
        if not due:
            return set()
        with ThreadPoolExecutor(max_workers=min(16, len(due))) as threads:
            answers = dict(zip(due, threads.map(lambda check: _status(*check), due.values()), strict=True))
        silent = (due[name][0] for name, status in answers.items() if status is None)
        self._paused_until.update(dict.fromkeys(silent, time.monotonic() + PAUSE_S))
        return {name for name, status in answers.items() if status == http.HTTPStatus.OK}


def _status(port: int, path: str) -> int | None:
    """The HTTP status; 0 where the request is not accepted, and ``None`` where it is not answered in time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except TimeoutError:
        return None
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
