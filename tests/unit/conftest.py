"""Unit tests start no process and reach no network; a server in the test's own process, on loopback, is allowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

PROCESSES = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"})
_running = [False]


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _running[0]:
        return
    if event in PROCESSES:
        raise AssertionError(f"a unit test starts a process ({event}): it belongs in tests/integration")
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] not in ("127.0.0.1", "::1"):
        raise AssertionError(f"a unit test connects to {arguments[1][0]}: it belongs in tests/integration")


sys.addaudithook(_audit)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """No process and no network while the test runs."""
    _running[0] = True
    yield
    _running[0] = False
