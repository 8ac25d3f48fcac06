"""Commands to a Circus arbiter: a refusal is an answer, a conflict is retried, and a timeout proves nothing."""

from __future__ import annotations

import logging
import time
from typing import Any

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.executors import ExecutorError

with needs_extra("circus"):
    from circus.client import CircusClient
    from circus.exc import CallError

logger = logging.getLogger(__name__)

_CONFLICT = "already running"  # the arbiter does one command at a time; "errno" 5 has other meanings beside this one


class ArbiterError(ExecutorError):
    """The arbiter refused a command."""


class ArbiterSilentError(ArbiterError):
    """The arbiter did not answer. The command may take effect all the same, or later: read back."""


class ArbiterClient:
    """Sends commands to an arbiter, one at a time.

    Args:
        endpoint: Its ZeroMQ endpoint.
        timeout_s: Seconds to wait for each answer (5).
        conflict_s: Seconds for which a command is retried while another is being executed (3).
    """

    def __init__(self, endpoint: str, timeout_s: float = 5.0, conflict_s: float = 3.0) -> None:
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.conflict_s = conflict_s
        self._client: Any = None

    def call(self, command: str, *, timeout_s: float | None = None, **properties: Any) -> dict[str, Any]:
        """The arbiter's answer. Raises :class:`ArbiterSilentError` or :class:`ArbiterError`."""
        give_up = time.monotonic() + self.conflict_s
        pause_s = 0.02
        while True:
            answer = self._send(command, properties, timeout_s or self.timeout_s)
            if answer.get("status") == "ok":
                return answer
            reason = _short(str(answer.get("reason")))
            if _CONFLICT not in reason or time.monotonic() + pause_s > give_up:
                raise ArbiterError(f"the arbiter at {self.endpoint} refused {command!r}: {reason}")
            time.sleep(pause_s)
            pause_s *= 2

    def _send(self, command: str, properties: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        if self._client is None:
            self._client = CircusClient(endpoint=self.endpoint)
        self._client.timeout = timeout_s * 1000
        try:
            answer: dict[str, Any] = self._client.send_message(command, **properties)
        except CallError as error:
            # A queued message would reach whatever listens on this endpoint next; a new socket forgets it.
            self.close()
            raise ArbiterSilentError(
                f"the arbiter at {self.endpoint} did not answer {command!r} within {timeout_s:g} s: "
                "check that its circusd runs"
            ) from error
        return answer

    def close(self) -> None:
        """Drop the connection, with what was not sent over it."""
        if self._client is not None:
            self._client.stop()
            self._client = None


def _short(reason: str) -> str:
    """The arbiter's reason without the command that it repeats, which holds the environment of a worker."""
    return reason.rpartition(": ")[2] if reason.startswith("command ") else reason
