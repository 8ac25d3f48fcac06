"""Workers that do what a server should not: none takes the loop down, holds it up or fills its memory."""

from __future__ import annotations

import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import cycle

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources import ScrapeSource, SourceError
from tests.support.laws import examples
from tests.support.sources.farm import Farm, Vllm, raw_server

OK = b"HTTP/1.1 200 OK\r\n"


def drip_head(connection: socket.socket) -> None:
    for byte in cycle(OK + b"X-Slow: " + b"x" * 1000):
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def drip_body(connection: socket.socket) -> None:
    connection.sendall(OK + b"\r\n")
    while True:
        connection.sendall(b"#\n")
        time.sleep(0.05)


def drip_chunks(connection: socket.socket) -> None:
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"2\r\n#\n\r\n")
        time.sleep(0.05)


def say_nothing(connection: socket.socket) -> None:
    while connection.recv(1):
        pass


def flood(connection: socket.socket) -> None:
    connection.sendall(OK + b"\r\n")
    while True:
        connection.sendall(b"# a comment that goes on and on\n" * 2000)


def flood_in_chunks(connection: socket.socket) -> None:
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")


def flood_head(connection: socket.socket) -> None:
    connection.sendall(OK)
    while True:
        connection.sendall(b"X-More: more\r\n" * 2000)


def answer(*parts: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(b"".join(parts))


SLOW = {"drip head": drip_head, "drip body": drip_body, "drip chunks": drip_chunks, "say nothing": say_nothing}
BAD = {
    "flood": (flood, "longer than 1000000 bytes"),
    "flood in chunks": (flood_in_chunks, "longer than 1000000 bytes"),
    "flood head": (flood_head, "more than 100 headers"),
    "redirect": (answer(b"HTTP/1.1 302 Found\r\nLocation: /metrics\r\n\r\n"), "answered 302, not 200"),
    "error": (answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), "answered 500, not 200"),
    "no content": (answer(b"HTTP/1.1 204 No Content\r\n\r\n"), "answered 204, not 200"),
    "no HTTP": (answer(b"SSH-2.0-OpenSSH_9.6\r\n"), "http://"),
    "closes": (answer(), "http://"),
    "cut off": (answer(OK, b"Content-Length: 1000\r\n\r\nvllm:num_requests_running 1\n"), "http://"),
    "zipped": (answer(OK, b"Content-Encoding: gzip\r\n\r\n\x1f\x8b"), "packed (gzip)"),
    "bad chunks": (answer(OK, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "http://"),
    "HTML": (answer(OK, b"\r\n<html><body>Sign in</body></html>"), "none of the metrics of vLLM"),
    "binary": (answer(OK, b"\r\n", bytes(range(256)) * 100), "none of the metrics of vLLM"),
    "empty": (answer(OK, b"Content-Length: 0\r\n\r\n"), "none of the metrics of vLLM"),
    "another engine": (answer(OK, b"\r\nmystery:num_running_reqs 1\n"), "none of the metrics of vLLM"),
}


@pytest.fixture
def threads() -> Iterator[None]:
    """No thread of a scrape is left behind."""
    yield
    until_s = time.monotonic() + 5
    while any(thread.name.startswith("scrape") for thread in threading.enumerate()):
        assert time.monotonic() < until_s, threading.enumerate()
        time.sleep(0.02)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("behave", "message"), BAD.values(), ids=BAD)
def test_a_bad_answer_blinds_nothing_else(behave: Callable[[socket.socket], None], message: str, farm: Farm) -> None:
    farm.pages["good"] = Vllm(running=3).page()
    with raw_server(behave) as url:
        endpoints = {"workers": {"good": farm.url("good"), "bad": url}}
        source = ScrapeSource(endpoints, {"workers": "aggregated"}, timeout_s=5, max_bytes=1_000_000)
        started_s = time.monotonic()
        observation = source.observe(0)
        assert time.monotonic() - started_s < 4
        with pytest.raises(SourceError):
            ScrapeSource({"workers": {"bad": url}}, {"workers": "aggregated"}, max_bytes=1_000_000).observe(0)
    pool = observation.pools["workers"]
    assert (pool.running, pool.coverage) == (3, 0.5)
    assert message in observation.missing["pools.workers.workers.bad"]
    assert farm.asked == ["/good/metrics"]


@pytest.mark.usefixtures("threads")
def test_slow_workers_are_given_up_in_time(farm: Farm) -> None:
    farm.pages["good"] = Vllm(running=3).page()
    with ExitStack() as stack:
        slow = {name: stack.enter_context(raw_server(behave)) for name, behave in SLOW.items()}
        source = ScrapeSource({"workers": farm.urls("good") | slow}, {"workers": "aggregated"}, timeout_s=0.5)
        started_s = time.monotonic()
        observation = source.observe(0)
        took_s = time.monotonic() - started_s
    assert 0.5 <= took_s < 1.0
    assert observation.pools["workers"].coverage == 0.2
    for name in SLOW:
        assert "no answer within 0.5 s" in observation.missing[f"pools.workers.workers.{name}"]


@pytest.mark.usefixtures("threads")
def test_all_are_given_up_at_the_deadline() -> None:
    """More workers that hang than are asked at a time: the later ones do not get their turn."""
    with raw_server(say_nothing) as url:
        workers = {f"w{index}": f"{url}/{index}" for index in range(200)}
        source = ScrapeSource({"workers": workers}, {"workers": "aggregated"}, timeout_s=0.4, deadline_s=0.6)
        started_s = time.monotonic()
        with pytest.raises(SourceError, match=r"none of the workers could be scraped: .*; and 197 more"):
            source.observe(0)
        assert time.monotonic() - started_s < 1.5


@pytest.mark.usefixtures("threads")
def test_what_is_under_way_at_the_deadline_is_broken_off() -> None:
    with raw_server(drip_head) as url:
        source = ScrapeSource({"workers": {"w0": url}}, {"workers": "aggregated"}, timeout_s=60, deadline_s=0.3)
        with pytest.raises(SourceError, match=r"no answer when the 0.3 s for all were over"):
            source.observe(0)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    source = ScrapeSource({"workers": {"w0": f"http://127.0.0.1:{port}"}}, {"workers": "aggregated"})
    with pytest.raises(SourceError, match=rf"http://127.0.0.1:{port}/metrics: .*Connection refused"):
        source.observe(0)


def test_no_such_host() -> None:
    source = ScrapeSource({"workers": {"w0": "http://no-such-host.invalid:1"}}, {"workers": "aggregated"})
    with pytest.raises(SourceError, match=r"no-such-host\.invalid:1/metrics: "):
        source.observe(0)


def test_plain_http_where_tls_is_expected(farm: Farm) -> None:
    url = farm.url("w0").replace("http:", "https:")
    with pytest.raises(SourceError, match="https://"):
        ScrapeSource({"workers": {"w0": url}}, {"workers": "aggregated"}).observe(0)


def test_a_page_of_100_mb_is_refused_within_little_memory() -> None:
    page = b"# " + b"x" * 998 + b"\n"

    def huge(connection: socket.socket) -> None:
        connection.sendall(OK + b"Content-Length: 100100000\r\n\r\n")
        for _ in range(1000):
            connection.sendall(page * 100)

    with raw_server(huge) as url:
        source = ScrapeSource({"workers": {"w0": url}}, {"workers": "aggregated"}, timeout_s=30)
        tracemalloc.start()
        with pytest.raises(SourceError, match="the page is longer than 16777216 bytes"):
            source.observe(0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 4 * 16 * 2**20


def test_many_workers_at_once(farm: Farm) -> None:
    names = [f"w{index}" for index in range(150)]
    farm.pages = {name: Vllm(running=1).page() for name in names}
    observation = ScrapeSource({"workers": farm.urls(*names)}, {"workers": "aggregated"}, timeout_s=20).observe(0)
    assert (observation.pools["workers"].running, observation.pools["workers"].coverage) == (150, 1)


def test_from_several_threads(farm: Farm) -> None:
    farm.pages = {"w0": Vllm(running=1).page()}
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"})
    seen: list[Observation] = []
    threads = [threading.Thread(target=lambda at_s=at_s: seen.append(source.observe(at_s))) for at_s in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [observation.pools["workers"].running for observation in seen] == [1] * 8


NASTY_VALUES = st.sampled_from(
    ["NaN", "+Inf", "-Inf", "-1", "1e308", "1e-308", "1_0", "0x10", "", "1 2 3", "1 # {} 1", "9" * 400, "\x00", "१"]
)


@st.composite
def mangled_pages(draw: st.DrawFn) -> bytes:
    """A good page with lines changed: cut, doubled, their values or labels replaced, bytes thrown in."""
    values = tuple(draw(st.lists(st.floats(0, 9), max_size=4)))
    page = Vllm(
        done=draw(st.floats(0, 1e20)), ttft_s=values, isl=values, itl_s=values, started_s=draw(st.floats(-9, 99))
    )
    lines = page.page().splitlines()
    for _ in range(draw(st.integers(0, 12))):
        index = draw(st.integers(0, len(lines) - 1))
        line = lines[index]
        match draw(st.integers(0, 6)):
            case 0:
                lines[index] = line[: draw(st.integers(0, len(line)))]
            case 1:
                lines.append(line)
            case 2:
                lines[index] = f"{line.rpartition(' ')[0]} {draw(NASTY_VALUES)}"
            case 3:
                lines[index] = line.replace('"0"', draw(st.sampled_from(['"', '"\\"', "0", '"}"', '"0",engine="0"'])))
            case 4:
                lines[index] = line.replace("le=", draw(st.sampled_from(["le=", "Le=", 'le="x",le='])))
            case 5:
                lines[index] = draw(st.text(max_size=30))
            case _:
                lines[index] = line.replace("+Inf", draw(st.sampled_from(["NaN", "-Inf", "-1", "inf", "", "1e999"])))
    return "\n".join(lines).encode(errors="surrogatepass")


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Farm]:
    with Farm() as farm:
        yield farm


@examples(250, suppress=[HealthCheck.function_scoped_fixture])
@given(
    pages=st.lists(st.one_of(mangled_pages(), mangled_pages(), st.binary(max_size=300)), min_size=2, max_size=4),
    gaps_s=st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=4),
)
def test_no_page_raises_anything_but_a_source_error(fuzzed: Farm, pages: list[bytes], gaps_s: list[float]) -> None:
    roles = {"prefill": "prefill", "decode": "decode"}
    source = ScrapeSource({"prefill": fuzzed.urls("w0"), "decode": fuzzed.urls("w1")}, roles)  # type: ignore[arg-type]
    at_s = 0.0
    for page, other, gap_s in zip(pages, reversed(pages), gaps_s, strict=False):
        fuzzed.pages = {"w0": page, "w1": other}
        at_s += gap_s
        try:
            observation = source.observe(at_s)
        except SourceError:
            continue
        assert Observation.model_validate_json(observation.model_dump_json()) == observation
        for field in ("requests_per_s", "isl", "osl", "ttft_ms", "itl_ms", "prefix_hit_rate", "request_duration_s"):
            assert (getattr(observation.traffic, field) is None) == (f"traffic.{field}" in observation.missing)
        for name, pool in observation.pools.items():
            blind = f"pools.{name}" in observation.missing
            for field in ("queued", "running", "kv_usage", "kv_capacity_tokens"):
                unknown = blind or f"pools.{name}.{field}" in observation.missing
                assert (getattr(pool, field) is None) == unknown
