"""Free ports on loopback."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Collection

from dynamo_planner.executors import ExecutorError

_RANGE = range(20000, 32768)  # under Linux's ephemeral ports, so that no outgoing connection takes one meanwhile


def free_port(taken: Collection[int]) -> int:
    """A port that nothing listens on and that is not one of ``taken``.

    Raises :class:`ExecutorError` where there is none.
    """
    first = secrets.randbelow(len(_RANGE))
    for step in range(len(_RANGE)):
        port = _RANGE[(first + step) % len(_RANGE)]
        if port not in taken and _can_bind(port):
            return port
    raise ExecutorError(f"no port from {_RANGE.start} to {_RANGE.stop - 1} is free on 127.0.0.1")


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
