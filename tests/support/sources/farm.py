"""Workers for the tests: a real HTTP server with a page for each, and pages in vLLM's names written from numbers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest


class Farm:
    """Serves ``pages[name]`` under ``/name/metrics``, and others by their path; what has no page answers 404."""

    def __init__(self) -> None:
        farm = self
        self.pages: dict[str, str | bytes] = {}
        self.asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                farm.asked.append(self.path)
                path = self.path.strip("/")
                page = farm.pages.get(path, farm.pages.get(path.removesuffix("/metrics")))
                if page is None:
                    self.send_error(404)
                    return
                body = page if isinstance(page, bytes) else page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def urls(self, *names: str) -> dict[str, str]:
        return {name: self.url(name) for name in names}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def farm() -> Iterator[Farm]:
    """A farm without pages yet."""
    with Farm() as running:
        yield running


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The URL of a server that does with each connection, in a thread of its own, what HTTP servers would not."""
    listener = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65_536)
                answer(connection)
            except OSError:
                pass

    def serve() -> None:
        while not closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=one, args=(connection,), daemon=True))
            threads[-1].start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        closing.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=5)
        for each in threads:
            each.join(timeout=5)


BOUNDS_S = (0.1, 0.5, 1.0, 5.0)
BOUNDS_TOKENS = (10, 100, 1000)


@dataclass(frozen=True)
class Vllm:
    """A worker in numbers; ``page()`` is what it serves. Histograms are the values observed so far."""

    running: float = 0
    waiting: float = 0
    awake: int = 1
    kv: float = 0.25
    done: float = 0
    aborted: float = 0
    hits: float = 0
    queries: float = 0
    preempted: float = 0
    rejected: float = 0
    ttft_s: tuple[float, ...] = ()
    itl_s: tuple[float, ...] = ()
    isl: tuple[float, ...] = ()
    osl: tuple[float, ...] = ()
    e2e_s: tuple[float, ...] = ()
    queue_s: tuple[float, ...] = ()
    prefill_s: tuple[float, ...] = ()
    decode_s: tuple[float, ...] = ()
    blocks: str = "1000"
    started_s: float | None = None
    engine: str = "0"
    more: tuple[str, ...] = field(default=())

    def but(self, **changes: Any) -> Vllm:
        return replace(self, **changes)

    def page(self) -> str:
        labels = f'engine="{self.engine}",model_name="tiny"'
        lines = [
            *_plain("vllm:num_requests_running", "gauge", labels, self.running),
            *_plain("vllm:num_requests_waiting", "gauge", labels, self.waiting),
            *_plain("vllm:kv_cache_usage_perc", "gauge", labels, self.kv),
            "# TYPE vllm:engine_sleep_state gauge",
            f'vllm:engine_sleep_state{{{labels},sleep_state="awake"}} {self.awake}',
            f'vllm:engine_sleep_state{{{labels},sleep_state="weights_offloaded"}} {1 - self.awake}',
            f'vllm:engine_sleep_state{{{labels},sleep_state="discard_all"}} 0',
            "# TYPE vllm:request_success_total counter",
            f'vllm:request_success_total{{{labels},finished_reason="stop"}} {self.done}',
            f'vllm:request_success_total{{{labels},finished_reason="abort"}} {self.aborted}',
            f'vllm:request_success_created{{{labels},finished_reason="stop"}} 1.7e9',
            *_plain("vllm:prefix_cache_hits_total", "counter", labels, self.hits),
            *_plain("vllm:prefix_cache_queries_total", "counter", labels, self.queries),
            *_plain("vllm:num_preemptions_total", "counter", labels, self.preempted),
            *_plain("vllm:admission_rejections_total", "counter", f'{labels},reason="queue_full"', self.rejected),
            *_histogram("vllm:time_to_first_token_seconds", labels, self.ttft_s, BOUNDS_S),
            *_histogram("vllm:inter_token_latency_seconds", labels, self.itl_s, BOUNDS_S),
            *_histogram("vllm:request_prompt_tokens", labels, self.isl, BOUNDS_TOKENS),
            *_histogram("vllm:request_generation_tokens", labels, self.osl, BOUNDS_TOKENS),
            *_histogram("vllm:e2e_request_latency_seconds", labels, self.e2e_s, BOUNDS_S),
            *_histogram("vllm:request_queue_time_seconds", labels, self.queue_s, BOUNDS_S),
            *_histogram("vllm:request_prefill_time_seconds", labels, self.prefill_s, BOUNDS_S),
            *_histogram("vllm:request_decode_time_seconds", labels, self.decode_s, BOUNDS_S),
            f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="{self.blocks}",engine="{self.engine}"}} 1',
            *self.more,
        ]
        if self.started_s is not None:
            lines.append(f"process_start_time_seconds {self.started_s}")
        return "\n".join(lines) + "\n"


def _plain(name: str, kind: str, labels: str, value: float) -> list[str]:
    return [f"# HELP {name} As in vLLM.", f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}"]


def _histogram(name: str, labels: str, values: tuple[float, ...], bounds: tuple[float, ...]) -> list[str]:
    return [
        f"# TYPE {name} histogram",
        *(f'{name}_bucket{{{labels},le="{bound}"}} {sum(value <= bound for value in values)}' for bound in bounds),
        f'{name}_bucket{{{labels},le="+Inf"}} {len(values)}',
        f"{name}_count{{{labels}}} {len(values)}",
        f"{name}_sum{{{labels}}} {sum(values)}",
        f"# TYPE {name}_created gauge",
        f"{name}_created{{{labels}}} 1.7e9",
    ]
