"""Monitoring of a planner over HTTP: a page at ``/``, ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz``.

It has no authentication, is read only and shows nothing secret. It listens on loopback unless another host is given, as
in a pod, where kubelet and Prometheus come from outside.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.health import Health, ProbeResult
from dynamo_planner.runtime.metrics import PlannerMetrics
from dynamo_planner.runtime.overview import Overview
from dynamo_planner.runtime.overview_html import CONTENT_SECURITY_POLICY, status_html

with needs_extra("prometheus"):
    from prometheus_client import make_wsgi_app

logger = logging.getLogger(__name__)

CLIENT_TIMEOUT_S = 10.0
"""The connection of a client that is silent for longer is closed (seconds)."""

PAGE_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)

StartResponse = Callable[..., Any]
App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class Monitor:
    """Metrics and health of a planner that steps every ``interval_s``.

    ``leading`` returns whether this planner leads, where several elect a leader; it is called from other threads.
    """

    def __init__(self, interval_s: float, leading: Callable[[], bool] | None = None) -> None:
        self.interval_s = interval_s
        self.metrics = PlannerMetrics(leading)
        self.health = Health(interval_s, leading)
        self.overview = Overview()

    def record(self, step: Step) -> None:
        """Record a step."""
        self.metrics.record(step)
        self.health.record(step)
        self.overview.record(step)

    def page(self) -> str:
        """The status page as it is now."""
        return status_html(self.overview.last, self.overview.history, self.health.ready(), self.interval_s)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = CLIENT_TIMEOUT_S

    def log_message(self, *args: Any) -> None:
        """A scrape every few seconds is not worth a line."""


@contextmanager
def page(host: str, port: int, monitor: Monitor) -> Iterator[str]:
    """Serve the page from a thread of its own; gives its URL. With a ``port`` of 0 it takes a free one.

    Raises :class:`OSError` where it cannot listen there.
    """
    try:
        server = make_server(host, port, _app(monitor), _Server6 if ":" in host else _Server, _Handler)
    except OSError as error:
        raise OSError(f"monitoring: cannot listen on {host} port {port}: {error.strerror or error}") from error
    url = f"http://{f'[{host}]' if ':' in host else host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="dynamo-planner-page", daemon=True)
    thread.start()
    logger.info("status, metrics and health are at %s, /metrics, /healthz and /readyz", url)
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _app(monitor: Monitor) -> App:
    metrics: App = make_wsgi_app(monitor.metrics.registry)
    probes = {"/healthz": monitor.health.alive, "/readyz": monitor.health.ready}

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            return metrics(environ, start_response)
        if path in probes:
            return _respond(probes[path](), start_response)
        if path == "/":
            start_response("200 OK", list(PAGE_HEADERS))  # the server adds the length of this answer
            return [monitor.page().encode()]
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"there are /, /metrics, /healthz and /readyz\n"]

    return app


def _respond(result: ProbeResult, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK" if result.ok else "503 Service Unavailable", [("Content-Type", "application/json")])
    return [result.model_dump_json().encode() + b"\n"]
