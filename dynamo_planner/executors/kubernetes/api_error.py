"""Errors of the API server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynamo_planner.executors import ExecutorError

BUSY = (429, 500, 502, 503, 504)
"""Statuses after which a retry may succeed."""


class ApiError(ExecutorError):
    """The API server did not fulfil a request.

    ``status`` is the HTTP status, or ``None`` where no answer came; ``retry_after_s`` the pause that it requested;
    ``causes`` what it named as wrong in the request.
    """

    def __init__(
        self, message: str, status: int | None = None, retry_after_s: float | None = None, causes: Sequence[Any] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.causes = tuple(causes)

    @property
    def code(self) -> str:
        """The code of the reason where this lasts."""
        return {403: "Forbidden", 401: "Unauthorized", 404: "TargetMissing"}.get(self.status or 0, "ApiServerFailed")

    @property
    def is_passing(self) -> bool:
        """Whether a retry may succeed: no answer, or one that says that the server is busy."""
        return self.status is None or self.status in BUSY

    @property
    def is_conflict(self) -> bool:
        """Whether the object changed between a read and a write, so that another read and write may succeed.

        A JSON patch whose ``test`` does not hold is answered with 422, as is a value that the schema refuses, but that
        comes with its causes.
        """
        return self.status == 409 or (self.status == 422 and not self.causes)
