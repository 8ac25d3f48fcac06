"""What goes over the wire to Prometheus and back: credentials, refusals, partial and broken answers, limits.

The real server cannot be made to answer most of this, so that one of the tests' own does; TLS and passwords are the
real one's.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynamo_planner.engines.vllm import VLLM
from dynamo_planner.sources import SourceError
from dynamo_planner.sources.access import Access, BasicAuth, QueryAccess
from dynamo_planner.sources.prometheus.api import PrometheusApi, QueryError
from dynamo_planner.sources.prometheus.source import PrometheusSource
from tests.support.laws import examples
from tests.support.prometheus_server import prometheus
from tests.support.sources.farm import raw_server
from tests.support.sources.hostile_prometheus import observe

AT = 1_700_000_000.0
PASSWORD = "open sesame"
HASHED = "$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy"
"""The password as bcrypt has it."""


def vector(*samples: tuple[dict[str, str], Any], **more: Any) -> str:
    result = [{"metric": labels, "value": [AT, str(value)]} for labels, value in samples]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}, **more})


def refusal(kind: str, text: str) -> str:
    return json.dumps({"status": "error", "errorType": kind, "error": text})


@dataclass
class Fake:
    """A server that answers each query as ``answer`` says, and remembers what it was asked."""

    answer: Callable[[str], tuple[int, str | bytes]] = lambda query: (200, vector())
    asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = field(default_factory=list)
    url: str = ""
    location: str | None = None


@pytest.fixture
def fake() -> Iterator[Fake]:
    mine = Fake()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            parameters = parse_qs(parts.query)
            mine.asked.append((parts.path, parameters, dict(self.headers)))
            status, body = mine.answer(parameters.get("query", [""])[0])
            sent = body if isinstance(body, bytes) else body.encode()
            self.send_response(status)
            if mine.location:
                self.send_header("Location", mine.location)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    mine.url = f"http://127.0.0.1:{server.server_port}"
    yield mine
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_query_goes_with_its_time_its_parameters_and_its_token(fake: Fake, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    access = Access(bearer_token_file=token, parameters={"namespace": "llm"}, headers={"X-Scope-OrgID": "one two"})
    api = PrometheusApi(f"{fake.url}/prom/", access)
    assert api.instant({"x": 'up{a="é"}'}, AT) == {"x": {}}
    path, parameters, headers = fake.asked[0]
    assert path == "/prom/api/v1/query"
    assert {name: value[0] for name, value in parameters.items()} == {
        "query": 'up{a="é"}',
        "time": "1700000000.000",
        "timeout": "10s",
        "namespace": "llm",
    }
    assert (headers["Authorization"], headers["X-Scope-OrgID"]) == ("Bearer first", "one two")
    token.write_text("second")
    api.instant({"x": "up"}, AT)
    assert fake.asked[1][2]["Authorization"] == "Bearer second", "tokens are renewed while it runs"


def test_a_password_goes_as_basic_authentication(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    access = Access(basic_auth=BasicAuth(username="ada", password_file=tmp_path / "password"))
    PrometheusApi(fake.url, access).instant({"x": "up"}, AT)
    sent = fake.asked[0][2]["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == f"ada:{PASSWORD}"


def test_no_message_holds_a_secret(fake: Fake, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\nInjected: header")
    with pytest.raises(SourceError) as broken:
        PrometheusApi(fake.url, Access(bearer_token_file=token)).instant({"x": "up"}, AT)
    token.write_text("s3cret")
    fake.answer = lambda query: (401, "no")
    with pytest.raises(SourceError, match=r"answered 401, not 200 .*bearer_token_file") as refused:
        PrometheusApi(fake.url, Access(bearer_token_file=token, parameters={"key": "s3cret"})).instant({"x": "up"}, AT)
    with pytest.raises(SourceError, match="cannot be read: FileNotFoundError"):
        PrometheusApi(fake.url, Access(bearer_token_file=tmp_path / "none")).instant({"x": "up"}, AT)
    assert "s3cret" not in str(broken.value) + str(refused.value)


def test_a_redirect_is_not_followed(fake: Fake, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    fake.answer, fake.location = (lambda query: (302, "")), f"{fake.url}/elsewhere"
    with pytest.raises(SourceError, match="answered 302"):
        PrometheusApi(fake.url, Access(bearer_token_file=tmp_path / "token")).instant({"x": "up"}, AT)
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"bearer_token_file": "a", "basic_auth": {"username": "u", "password_file": "b"}}, "only one of them"),
        ({"parameters": {"query": "up"}}, "'query' is part of every query"),
        ({"headers": {"X": "a\r\nb"}}, "not plain text"),
    ],
)
def test_access_that_does_not_hold_together_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        QueryAccess.model_validate(settings)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (400, refusal("bad_data", "parse error"), "bad_data: parse error"),
        (422, refusal("execution", "too many samples"), "execution: too many samples"),
        (503, refusal("timeout", "query timed out"), "timeout: query timed out"),
        (502, "<html>Bad Gateway</html>", "it answered 502, not 200"),
        (200, refusal("internal", "odd"), "internal: odd"),
        (200, "not JSON", "cannot be parsed"),
        (200, "[" * 100_000, "cannot be parsed"),
        (200, json.dumps({"status": "success", "data": {"resultType": "scalar", "result": [AT, "1"]}}), "scalar"),
        (200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": []}}), "a matrix"),
        (200, vector(({}, "much")), "cannot be parsed"),
        (200, vector(({}, 1), warnings=["some store was not asked"]), "may be partial: some store was not asked"),
    ],
)
def test_what_is_no_whole_answer_is_said_of_its_own_query_alone(fake: Fake, status: int, body: str, why: str) -> None:
    fake.answer = lambda query: (status, body) if query == "bad" else (200, vector(({"a": "b"}, "+Inf")))
    answers = PrometheusApi(fake.url).instant({"good": "good", "bad": "bad"}, AT)
    assert answers["good"] == {(("a", "b"),): float("inf")}
    assert isinstance(answers["bad"], QueryError)
    assert why in str(answers["bad"])
    if "partial" in why:  # which is told, and may still show which metrics there are
        assert isinstance(PrometheusApi(fake.url).instant({"bad": "bad"}, AT)["bad"], QueryError)
        return
    with pytest.raises(SourceError, match="answered none of 1 queries"):
        PrometheusApi(fake.url).instant({"bad": "bad"}, AT)


def test_a_hint_about_the_query_makes_no_answer_partial(fake: Fake) -> None:
    fake.answer = lambda query: (200, vector(({}, 1), warnings=["PromQL info: may not be a counter"], infos=["same"]))
    assert PrometheusApi(fake.url).instant({"x": "up"}, AT) == {"x": {(): 1.0}}


def test_a_query_that_fails_makes_one_quantity_unknown(fake: Fake) -> None:
    labels = {"instance": "w:8000"}

    def answer(query: str) -> tuple[int, str]:
        if "kv_cache_usage" in query and "timestamp" not in query and "__name__" not in query:
            return 503, refusal("timeout", "query timed out")
        value = AT if "timestamp" in query else 0 if "resets" in query else 1
        return 200, vector(({"__name__": "vllm:num_requests_running"} if "__name__" in query else labels, value))

    fake.answer = answer
    seen = PrometheusSource(fake.url, {"workers": "aggregated"}, vocabulary=VLLM).observe(AT)
    pool = seen.pools["workers"]
    assert (pool.running, pool.queued, pool.kv_usage) == (1, 1, None)
    assert "timeout: query timed out" in seen.missing["pools.workers.kv_usage"]


@pytest.mark.parametrize("part", ["resets(vllm:request_success", "min_over_time(process_start", "offset"])
def test_counters_that_cannot_be_checked_are_unknown(fake: Fake, part: str) -> None:
    """Whether a counter fell, and what a worker had before, are asked beside it; without an answer it is unknown."""
    labels = {"instance": "w:8000"}

    def answer(query: str) -> tuple[int, str]:
        if part in query:
            return 503, refusal("timeout", "query timed out")
        value = AT if "timestamp" in query else 0 if "resets" in query else 1
        return 200, vector((labels | {"__name__": "vllm:num_requests_running"}, value))

    fake.answer = answer
    seen = PrometheusSource(fake.url, {"workers": "aggregated"}, vocabulary=VLLM).observe(AT)
    assert seen.pools["workers"].running == 1
    assert seen.traffic.requests_per_s is None
    assert "query timed out" in seen.missing["traffic.requests_per_s"]


def test_no_server_at_all_is_the_documented_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(SourceError, match=f"http://127.0.0.1:{port} answered none of"):
        PrometheusSource(f"http://127.0.0.1:{port}", {"workers": "aggregated"}).observe(AT)
    with pytest.raises(ValueError, match="not an http:// or https:// URL"):
        PrometheusSource("file:///etc", {"workers": "aggregated"})


def test_a_server_that_trickles_is_left_at_the_deadline() -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            connection.sendall(b"{")
            time.sleep(0.05)

    with raw_server(trickle) as url:
        began_s = time.monotonic()
        with pytest.raises(SourceError, match="no answer"):
            PrometheusSource(url, {"workers": "aggregated"}, vocabulary=VLLM, timeout_s=0.5).observe(AT)
        assert time.monotonic() - began_s < 2


def test_an_answer_that_is_too_long_is_refused_unread() -> None:
    sent = []

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for _ in range(1526):
            connection.sendall(b" " * 65_536)
            sent.append(65_536)

    with raw_server(endless) as url, pytest.raises(SourceError, match="longer than 1000000 bytes"):
        PrometheusApi(url, max_bytes=1_000_000).instant({"x": "up"}, AT)
    assert sum(sent) < 20_000_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
SAMPLE = st.fixed_dictionaries(
    {
        "metric": st.dictionaries(
            st.sampled_from(["instance", "le", "__name__", "num_gpu_blocks", "block_size"]), st.text(max_size=6)
        ),
        "value": st.tuples(
            st.floats(), st.sampled_from(["NaN", "+Inf", "-1", "0", "1e300", "x", "1_0", "0.5"]) | st.text(max_size=4)
        ),
    }
)
ANSWER = st.fixed_dictionaries(
    {"status": st.sampled_from(["success", "error", "?"]), "data": JSON},
    optional={"errorType": JSON, "error": JSON, "warnings": JSON},
) | st.fixed_dictionaries(
    {
        "status": st.just("success"),
        "data": st.fixed_dictionaries({"resultType": st.just("vector"), "result": st.lists(SAMPLE, max_size=4)}),
    }
)


ANSWERS = st.lists(ANSWER.map(json.dumps) | st.text(max_size=20), min_size=1, max_size=5)


AT_NO_TIME = {
    "status": "success",
    "data": {
        "resultType": "vector",
        "result": [{"metric": {}, "value": [0.0, "NaN"]}, {"metric": {"instance": "0"}, "value": [0.0, "+Inf"]}],
    },
}


@examples(150)
@given(answers=ANSWERS, engine=st.integers(0, 4), past=st.booleans())
@example(answers=[json.dumps(AT_NO_TIME)], engine=1, past=False)
def test_whatever_is_answered_it_tells_what_can_be_or_why_not(answers: list[str], engine: int, past: bool) -> None:
    observe(answers, engine, past=past)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a real server behind TLS and a password, and a directory with both."""
    directory = tmp_path_factory.mktemp("guarded")
    openssl = shutil.which("openssl")
    assert openssl, "openssl is not installed"
    made = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    key, certificate = str(directory / "key.pem"), str(directory / "ca.pem")
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*made, *files], check=True, capture_output=True)
    web = {
        "tls_server_config": {"cert_file": certificate, "key_file": key},
        "basic_auth_users": {"ada": HASHED},
    }
    (directory / "web.yml").write_text(json.dumps(web))
    (directory / "password").write_text(PASSWORD)

    def ready(port: int) -> bool:
        trusting = ssl.create_default_context(cafile=directory / "ca.pem")
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=trusting)
        given = {"Authorization": f"Basic {base64.b64encode(f'ada:{PASSWORD}'.encode()).decode()}"}
        try:
            connection.request("GET", "/-/ready", headers=given)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    with prometheus(directory, None, 1.0, f"--web.config.file={directory / 'web.yml'}", ready=ready) as url:
        yield url.replace("http:", "https:"), directory


def test_a_real_server_behind_tls_and_a_password(guarded: tuple[str, Path]) -> None:
    url, directory = guarded
    auth = BasicAuth(username="ada", password_file=directory / "password")
    access = Access(basic_auth=auth, ca_file=directory / "ca.pem")
    assert PrometheusApi(url, access).instant({"x": "vector(1)"}, AT) == {"x": {(): 1.0}}
    with pytest.raises(SourceError, match="answered 401"):
        PrometheusApi(url, Access(ca_file=directory / "ca.pem")).instant({"x": "vector(1)"}, AT)
    with pytest.raises(SourceError, match="self-signed certificate"):
        PrometheusApi(url, Access(basic_auth=auth)).instant({"x": "vector(1)"}, AT)
    with pytest.raises(SourceError, match=r"ca_file .* cannot be read"):
        PrometheusApi(url, Access(ca_file=directory / "password")).instant({"x": "vector(1)"}, AT)
