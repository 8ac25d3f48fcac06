"""A server that answers instant queries by their text, as servers of several makes do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Rows = list[tuple[dict[str, str], float]]


class QueryServer:
    """Answers ``answer(query)``.

    Args:
        answer: labels and values, by query.
        at_s: the time of the samples.
        always: what stands in each answer beside the data.
        trouble: a status instead of an answer, or what stands in it beside the data; by query.
        posts: whether POST is answered.
        most_get_chars: longer requests are refused.
        date: of each response; by default the present.
    """

    def __init__(
        self,
        answer: Callable[[str], Rows],
        at_s: float,
        *,
        always: Mapping[str, Any] | None = None,
        trouble: Callable[[str], Any] = lambda query: None,
        posts: bool = True,
        most_get_chars: int = 8190,
        date: str | None = None,
    ) -> None:
        self.trouble = trouble
        self.methods: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.methods.append("GET")
                if len(self.path) > most_get_chars:
                    self.send_error(414)
                else:
                    self.respond(parse_qs(urlsplit(self.path).query)["query"][0])

            def do_POST(self) -> None:
                server.methods.append("POST")
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                if posts:
                    self.respond(form["query"][0])
                else:
                    self.send_error(403)

            def respond(self, query: str) -> None:
                more = server.trouble(query) or {}
                if isinstance(more, int):
                    self.send_error(more)
                    return
                result = [{"metric": labels, "value": [at_s, str(value)]} for labels, value in answer(query)]
                data = {"resultType": "vector", "result": result}
                body = json.dumps({"status": "success", "data": data, **(always or {}), **more}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return date or super().date_time_string(timestamp)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
