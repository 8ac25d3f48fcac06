"""Asking workers whether they are ready."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

TIMEOUT_S = 1.0


def healthy(questions: Mapping[str, tuple[int, str]]) -> set[str]:
    """Those of the workers (name: port, path) that answer 200 on 127.0.0.1; asked all at once, each for a second at
    most.
    """
    if not questions:
        return set()
    with ThreadPoolExecutor(max_workers=min(16, len(questions))) as threads:
        answers = threads.map(lambda question: _answers_200(*question), questions.values())
        return {name for name, good in zip(questions, answers, strict=True) if good}


def _answers_200(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
