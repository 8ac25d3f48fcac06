"""Asking workers whether they are ready."""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_S = 1.0
PAUSE_S = 4.0


class HealthChecks:
    """Asks workers on their ports at 127.0.0.1, all at once, and waits a second at most.

    One that takes the question and does not answer is left alone for a while, so that a worker that hangs does not
    hold up everything else each time.
    """

    def __init__(self) -> None:
        self._paused_until: dict[int, float] = {}

    def healthy(self, questions: Mapping[str, tuple[int, str]]) -> set[str]:
        """Those of the workers (name: port, path) that answer 200."""
        now = time.monotonic()
        self._paused_until = {port: until for port, until in self._paused_until.items() if until > now}
        asked = {name: question for name, question in questions.items() if question[0] not in self._paused_until}
        if not asked:
            return set()
        with ThreadPoolExecutor(max_workers=min(16, len(asked))) as threads:
            answers = dict(zip(asked, threads.map(lambda question: _status(*question), asked.values()), strict=True))
        silent = (asked[name][0] for name, status in answers.items() if status is None)
        self._paused_until.update(dict.fromkeys(silent, time.monotonic() + PAUSE_S))
        return {name for name, status in answers.items() if status == http.HTTPStatus.OK}


def _status(port: int, path: str) -> int | None:
    """The status of the answer, 0 where nobody takes the question, and ``None`` where nobody answers it."""
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
