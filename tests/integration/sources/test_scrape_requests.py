"""Workers that want a key, a parameter or another path, and what is said of an answer that is no page of metrics."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner.sources import FrontendSource, ScrapeSource, SourceError
from dynamo_planner.sources.access import Access
from dynamo_planner.sources.scraping.config import ScrapeConfig
from tests.support.sources import engine_pages as pages
from tests.support.sources.farm import Vllm

Answer = tuple[int, dict[str, str], str | bytes]
LLAMACPP = "llamacpp:requests_processing 2\nllamacpp:requests_deferred 5\n"
ROLES: dict[str, Any] = {"pool": "aggregated"}


@dataclass
class Server:
    """Answers with ``answer(path, headers)``."""

    answer: Callable[[str, dict[str, str]], Answer] = lambda path, headers: (404, {}, "")
    url: str = ""
    paths: list[str] = field(default_factory=list)

    def says(self, status: int, body: str | bytes, **headers: str) -> None:
        self.answer = lambda path, sent: (
            status,
            {name.replace("_", "-"): text for name, text in headers.items()},
            body,
        )


@pytest.fixture
def server() -> Iterator[Server]:
    mine = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mine.paths.append(self.path)
            status, headers, body = mine.answer(self.path, dict(self.headers))
            sent = body if isinstance(body, bytes) else body.encode()
            self.send_response(status)
            for name, text in {"Content-Length": str(len(sent)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        mine.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield mine
        running.shutdown()
        thread.join()


def running(source: ScrapeSource) -> float | None:
    return source.observe(0).pools["pool"].running


def refusal(server: Server, **options: Any) -> str:
    with pytest.raises(SourceError) as caught:
        ScrapeSource({"pool": {"w": server.url}}, ROLES, **options).observe(0)
    return str(caught.value)


def test_a_worker_behind_a_key_is_read_with_it(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("open-sesame\n")

    def guarded(path: str, headers: dict[str, str]) -> Answer:
        if headers.get("Authorization") == "Bearer open-sesame" and headers.get("X-Team") == "llm":
            return 200, {}, LLAMACPP
        return 401, {}, json.dumps({"error": {"code": 401, "message": "Invalid API Key"}})

    server.answer = guarded
    why = refusal(server)
    assert "it answered 401, not 200; 'Invalid API Key'; it wants credentials (access.bearer_token_file" in why
    config = ScrapeConfig.model_validate(
        {
            "kind": "scrape",
            "workers": {"pool": {"w": server.url}},
            "access": {"bearer_token_file": str(key), "headers": {"X-Team": "llm"}},
        }
    )
    assert ScrapeConfig.model_validate_json(config.model_dump_json()) == config
    assert running(config.build(ROLES, {})) == 2
    key.write_text("renewed")
    with pytest.raises(SourceError) as renewed:
        config.build(ROLES, {}).observe(0)
    assert "renewed" not in str(renewed.value)
    key.unlink()
    with pytest.raises(SourceError, match="key cannot be read: FileNotFoundError"):
        config.build(ROLES, {}).observe(0)


def test_path_parameters_and_prefix_of_a_known_engine(server: Server) -> None:
    page = Vllm(running=3).page().replace("vllm:", "ray_vllm:")
    server.answer = lambda path, headers: (200, {}, page) if path == "/m/stats?team=a+b" else (404, {}, "")
    source = ScrapeSource(
        {"pool": {"w": server.url}},
        ROLES,
        path="/m/stats",
        prefix="ray_",
        access=Access(parameters={"team": "a b"}),
    )
    assert running(source) == 3
    assert "is the page at another path (path)?" in refusal(server)


def test_each_page_of_an_engine_can_have_a_path_of_its_own(server: Server) -> None:
    texts = {"/a": LLAMACPP, "/b": json.dumps([{"id": 0, "n_ctx": 64, "is_processing": True, "n_prompt_tokens": 16}])}
    server.answer = lambda path, headers: (200, {}, texts[path]) if path in texts else (404, {}, "")
    source = ScrapeSource({"pool": {"w": server.url}}, ROLES, path={"/metrics": "/a", "/slots": "/b"})
    assert source.observe(0).pools["pool"].kv_usage == 0.25


def test_a_frontend_has_access_of_its_own(server: Server) -> None:
    text = pages.dynamo(20, 10, 15, 2, (0.3, 0.6), (0.5,))
    server.answer = lambda path, headers: (200, {}, text) if headers.get("X-Key") == "1" else (403, {}, "")
    FrontendSource([server.url], access=Access(headers={"X-Key": "1"})).observe(0)
    with pytest.raises(SourceError, match=r"answered 403.*\(access\)"):
        FrontendSource([server.url]).observe(0)


def test_the_scheme_of_the_executors_urls_can_be_replaced(server: Server) -> None:
    server.says(200, LLAMACPP)
    source = ScrapeSource({"pool": {"w": server.url.replace("http:", "https:")}}, ROLES, scheme="http")
    assert running(source) == 2


def test_a_server_of_several_models_is_asked_for_the_one(server: Server) -> None:
    missing = json.dumps({"error": {"code": 400, "message": "model name is missing from the request"}})
    server.answer = lambda path, headers: (
        (400, {}, missing) if "?model=qwen" not in path else (200, {}, LLAMACPP if "/metrics" in path else "[]")
    )
    source = ScrapeSource({"pool": {"w": server.url}}, ROLES, model="qwen")
    assert running(source) == running(source) == 2
    both = ["/metrics?model=qwen", "/slots?model=qwen"]
    assert server.paths[:3] == ["/metrics", *both], "the slots in the first turn"
    assert sorted(server.paths[3:]) == both
    assert "'model name is missing from the request'; does it want a parameter (access.parameters)?" in refusal(server)


def test_a_page_that_is_one_json_string_is_read(server: Server) -> None:
    server.says(200, json.dumps(LLAMACPP), Content_Type="application/json")
    assert running(ScrapeSource({"pool": {"w": server.url}}, ROLES)) == 2


@pytest.mark.parametrize(
    ("status", "headers", "body", "said"),
    [
        (302, {"Location": "https://login.example/in?token=s3cret"}, "", "302, not 200, and sends to https://login.ex"),
        (200, {"Content-Type": "text/html"}, "<html>Sign in</html>", "what came is HTML (text/html): '<html>Sign in"),
        (200, {"Content-Type": "application/json"}, '{"a": 1}', "what came is JSON (application/json): '{\"a\": 1}'"),
        (200, {}, gzip.compress(LLAMACPP.encode(), mtime=0), "what came is packed, and not text"),
        (200, {}, LLAMACPP.replace("\n", "\\n"), "the ends of its lines are escaped"),
        (200, {}, "", "the page is empty"),
        (200, {}, "go_threads 7\n# HELP x y\nup{a='b'} 1\n", "the page has go_threads, up"),
        (200, {}, "process_start_time_seconds 1.7e9\n", "vLLM (start it without --disable-log-stats)"),
        (500, {}, "see /metrics?key=s3cret", "'see /metrics?...'"),
    ],
    ids=range(9),
)
def test_the_message_is_about_what_came(
    server: Server, status: int, headers: dict[str, str], body: str | bytes, said: str
) -> None:
    server.answer = lambda path, sent: (status, headers, body)
    why = refusal(server)
    assert said in why
    assert "s3cret" not in why


def test_many_label_sets_are_read(server: Server) -> None:
    lines = [Vllm(running=3, waiting=8).page()]
    for customer in range(400):
        for bound in (*range(70), "+Inf"):
            lines.append(f'vllm:time_to_first_token_seconds_bucket{{c="{customer}",le="{bound}"}} 5\n')
        lines.append(f'vllm:time_to_first_token_seconds_count{{c="{customer}"}} 5\n')
        lines.append(f'vllm:time_to_first_token_seconds_sum{{c="{customer}"}} 5\n')
    server.says(200, "".join(lines))
    every = ScrapeSource({"pool": {"w": server.url}}, ROLES, timeout_s=10)
    assert running(every) == 3
    assert not every.notes()["pool"]["w"].unknown.keys() & {"ttft_ms", "running"}
    few = ScrapeSource({"pool": {"w": server.url}}, ROLES, timeout_s=10, max_series=300)
    assert running(few) == 3
    unknown = few.notes()["pool"]["w"].unknown
    assert "more than 300 series of vllm:time_to_first_token_seconds_bucket and of vllm:" in unknown["ttft_ms"]
    assert "completions" not in unknown


def test_a_page_that_is_too_long_keeps_its_gauges_and_no_sum_of_a_part(server: Server) -> None:
    page = pages.sglang(3, 2, 0.2, 10, 1000, 1, (0.02, 0.3))
    padding = "".join(f'sglang:num_requests_total{{customer="{number}"}} 1\n' for number in range(20_000))
    server.says(200, padding + page)
    source = ScrapeSource({"pool": {"w": server.url}}, ROLES, timeout_s=10, max_bytes=100_000)
    pool = source.observe(0).pools["pool"]
    assert (pool.running, pool.queued) == (3, 2)
    second = source.observe(10)
    assert second.traffic.requests_per_s is None
    assert "longer than 100000 bytes (max_bytes): only gauges were read" in second.missing["traffic.requests_per_s"]
    assert "longer than 3 bytes (max_bytes)" in refusal(server, max_bytes=3)


@pytest.mark.parametrize(
    "field", [{"max_bytes": 0}, {"max_series": -1}, {"scheme": "ftp"}, {"path": "m"}, {"prefix": "-"}], ids=str
)
def test_options_that_cannot_be_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        ScrapeSource({"pool": {}}, ROLES, **field)


def test_an_address_that_is_listed_twice_counts_once(server: Server) -> None:
    server.says(200, LLAMACPP)
    other = server.url.replace("127.0.0.1", "LOCALHOST")
    endpoints = {"pool": {"w": server.url, "again": f"{server.url}/", "third": other}}
    observation = ScrapeSource(endpoints, ROLES).observe(0)
    assert observation.pools["pool"].running == 2
    why = observation.missing["pools.pool.workers.again"]
    assert why == f"{server.url} is the address of pool.w, too: it is counted once"
    assert "is the address of pool.w, too" in observation.missing["pools.pool.workers.third"]
