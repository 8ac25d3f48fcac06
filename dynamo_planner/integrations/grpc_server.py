"""A server of gRPC with a few methods, on threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


class GrpcServer:
    """A running server: ``port`` is what it listens on.

    Args:
        methods: the handlers of grpcio, by the name of the method.
        service: the service, with its package.
        address: ``HOST:PORT``; the port 0 takes a free one.
        credentials: those of :func:`grpc.ssl_server_credentials` for TLS; none by default.
        workers: the most calls at once.
        ending: called when the server is stopped, before it waits for its calls.

    Raises ``OSError`` where it cannot listen there.
    """

    def __init__(
        self,
        methods: dict[str, Any],
        service: str,
        address: str,
        credentials: Any = None,
        workers: int = 8,
        ending: Callable[[], object] = lambda: None,
    ) -> None:
        handler = grpc.method_handlers_generic_handler(service, methods)
        self._server = grpc.server(ThreadPoolExecutor(workers, service), handlers=(handler,))
        self._ending = ending
        try:
            self.port: int = (
                self._server.add_secure_port(address, credentials)
                if credentials
                else self._server.add_insecure_port(address)
            )
        except RuntimeError as error:
            raise OSError(f"{address}: {error}") from error
        self._server.start()

    def stop(self, grace_s: float = 1.0) -> None:
        """End it, with so long for calls that go on."""
        self._ending()
        self._server.stop(grace_s).wait()


def written(answer: Any) -> bytes:
    """A message as bytes."""
    return bytes(answer.SerializeToString())
