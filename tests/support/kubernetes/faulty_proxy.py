"""A proxy in front of the API server that fails as a test wants it to, and remembers what was asked."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

from tests.support.kubernetes.control_plane import ControlPlane


@dataclass(frozen=True)
class Fault:
    """What the proxy answers. ``done_first`` passes the request on and loses its answer; ``delay_s`` comes first."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    done_first: bool = False
    delay_s: float = 0.0


Rule = Callable[[str, str], Fault | None]
"""From the method and the path with its query to a fault, or ``None`` to pass the request on."""


class Proxy:
    """Plain HTTP on loopback in front of a control plane. ``rule`` says what fails; ``asked`` is what came."""

    def __init__(self, server: ControlPlane) -> None:
        self.rule: Rule = lambda method, path: None
        self.asked: list[tuple[str, str]] = []
        self._server = server
        self._pool = urllib3.PoolManager(ssl_context=ssl.create_default_context(cafile=str(server.ca)), maxsize=16)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Serve until the end of this context."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            self._http.shutdown()
            thread.join()
            self._http.server_close()

    def times(self, count: int, fault: Fault, method: str = "", part: str = "") -> None:
        """Answer the next ``count`` requests of this method and with this part in their path with a fault."""
        left = [count]

        def rule(asked: str, path: str) -> Fault | None:
            if (method and asked != method) or part not in path or left[0] == 0:
                return None
            left[0] -= 1
            return fault

        self.rule = rule

    def writes(self) -> list[str]:
        """The paths of all requests that would change something."""
        return [path for method, path in self.asked if method != "GET"]

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any, bytes]:
        """What comes back for one request."""
        self.asked.append((method, path))
        fault = self.rule(method, path)
        if fault is not None:
            time.sleep(fault.delay_s)
            if fault.done_first:
                self._pass_on(method, path, headers, body)
            return fault.status, fault.headers, b'{"kind":"Status","message":"as the test wants it"}'
        return self._pass_on(method, path, headers, body)

    def _pass_on(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any, bytes]:
        kept = {name: headers[name] for name in ("authorization", "content-type", "accept") if name in headers}
        url = self._server.url + path
        try:
            answer = self._pool.request(method, url, body=body or None, headers=kept, retries=False, timeout=30.0)
        except (urllib3.exceptions.HTTPError, OSError):
            return 0, {}, b""
        return answer.status, {}, answer.data


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, answer = proxy.answer(
                self.command, self.path, {name.lower(): told for name, told in self.headers.items()}, body
            )
            if status == 0:  # nobody is behind the proxy: end the connection, as a dead server would
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(ConnectionError):  # who asked did not wait for the answer
                self.wfile.write(answer)

        do_GET = do_PATCH = do_POST = do_PUT = _serve  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
