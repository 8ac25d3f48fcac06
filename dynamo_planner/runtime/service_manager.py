"""Reports to the service manager that started the planner, as sd_notify(3) has them: ready, alive, reloading, stopping.

They go to the datagram socket that ``NOTIFY_SOCKET`` names, which systemd sets for units of ``Type=notify``. Without it
nothing is sent.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable

from dynamo_planner.runtime.decision_log import Step

logger = logging.getLogger(__name__)


class ServiceManager:
    """The service manager of this process.

    Args:
        address: Path of its socket, which may begin with ``@``; ``None`` is what the environment names, if anything.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address or os.environ.get("NOTIFY_SOCKET")

    def stepped(self, step: Step) -> None:
        """Report a step: the planner is ready, its loop turns, and what its pools are."""
        pools = ", ".join(
            f"{name} {pool.replicas.ready} of {pool.replicas.target}" if pool.replicas else f"{name} unknown"
            for name, pool in step.snapshot.pools.items()
        )
        self._send("READY=1", "WATCHDOG=1", f"STATUS=replicas ready: {pools or 'no pool could be read'}")

    def reloading(self, reload: Callable[[], None]) -> Callable[[], None]:
        """The same function, with a report before it and after it."""

        def reported() -> None:
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            reload()
            self._send("READY=1")

        return reported

    def stopping(self) -> None:
        """Report that the end has begun."""
        self._send("STOPPING=1", "STATUS=workers are drained")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as sending:
                sending.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            logger.warning("the service manager at %s cannot be told %s: %s", self._address, lines[0], error.strerror)
