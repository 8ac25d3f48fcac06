"""A real llama.cpp server under load, scraped by a real Prometheus server: what both sources see, and who reads it."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")

from dynamo_planner import Observation
from dynamo_planner.cli.check.other_readers import other_readers
from dynamo_planner.engines.llamacpp import LLAMACPP_SPLIT
from dynamo_planner.mock_workers.llamacpp import LlamaOptions
from dynamo_planner.mock_workers.random_gguf import RandomModel
from dynamo_planner.sources import PrometheusSource, ScrapeSource
from tests.support.prometheus_server import free_port, prometheus, until_scraped

pytestmark = pytest.mark.timeout(240)

INTERVAL_S, WINDOW_S = 0.5, 4.0
SLOTS, CLIENTS, TOKENS = 2, 4, 25


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One worker of two slots, which four clients ask for one short answer after the other."""
    model = tmp_path_factory.mktemp("model") / "random.gguf"
    RandomModel(width=256).write(model)
    mine = free_port()
    options = LlamaOptions(port=mine, model=str(model), slots=SLOTS, context_tokens=512)
    worker = subprocess.Popen(options.command(), stderr=subprocess.DEVNULL)
    over = threading.Event()
    clients = [threading.Thread(target=_ask_on, args=(mine, over)) for _ in range(CLIENTS)]
    try:
        until_s = time.monotonic() + 40
        while _status(mine) != 200:
            assert worker.poll() is None, "the worker has ended"
            assert time.monotonic() < until_s, "the worker does not start"
            time.sleep(0.05)
        for client in clients:
            client.start()
        yield mine
    finally:
        over.set()
        for client in clients:
            if client.ident is not None:
                client.join()
        worker.kill()
        worker.wait()


def _status(port: int) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with suppress(OSError):
        connection.request("GET", "/health")
        return connection.getresponse().status
    return None


def _ask_on(port: int, over: threading.Event) -> None:
    body = json.dumps({"prompt": [9, 8, 7, 6, 5], "max_tokens": TOKENS, "ignore_eos": True})
    while not over.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        connection.getresponse().read()
        connection.close()


@contextmanager
def scraping(directory: Path, port: int) -> Iterator[str]:
    with prometheus(directory, {"llama": {f"127.0.0.1:{port}": {"namespace": "llm"}}}, INTERVAL_S) as url:
        until_scraped(url, 1)
        yield url


def agree(seen: Observation, scraped: Observation) -> bool:
    """Whether both report about the same pace.

    Their windows end at other scrapes. On a busy machine one window has another pace than the next, until it is even.
    """
    one, other = seen.traffic, scraped.traffic
    if one.itl_ms is None or other.itl_ms is None or one.prefix_hit_rate is None or other.prefix_hit_rate is None:
        return False
    ratio = one.itl_ms.mean / other.itl_ms.mean
    return 0.4 < ratio < 2.5 and abs(one.prefix_hit_rate - other.prefix_hit_rate) < 0.2


def test_what_it_tells_through_prometheus_and_scraped(port: int, tmp_path: Path) -> None:
    with scraping(tmp_path, port) as url:
        urls = {"workers": {"w": f"http://127.0.0.1:{port}"}}
        scrape = ScrapeSource(urls, {"workers": "aggregated"}, vocabulary=LLAMACPP_SPLIT)
        time.sleep(2 * INTERVAL_S)
        scrape.observe(time.time())
        ask = PrometheusSource(url, {"workers": "aggregated"}, labels={"namespace": "llm"}, window_s=WINDOW_S)
        gives_up_s = time.monotonic() + 90
        while True:
            time.sleep(WINDOW_S)
            at_s = time.time()
            scraped, seen = scrape.observe(at_s), ask.observe(at_s)
            if agree(seen, scraped) or time.monotonic() > gives_up_s:
                break
    assert [notes.engine for notes in ask.notes()["workers"].values()] == ["llama.cpp"]
    pool = seen.pools["workers"]
    assert pool.coverage == 1
    assert pool.running is not None
    assert pool.queued is not None
    assert 1 <= pool.running <= SLOTS
    assert 1 <= pool.running + pool.queued <= CLIENTS
    assert seen.traffic.itl_ms is not None
    assert scraped.traffic.itl_ms is not None
    assert agree(seen, scraped), (seen.traffic, scraped.traffic)
    assert seen.traffic.requests_per_s is None, "it counts no requests"
    assert "llamacpp:tokens_predicted_total" in seen.missing["traffic.requests_per_s"]
    assert "only in JSON" in seen.missing["pools.workers.kv_usage"]
    assert scraped.pools["workers"].kv_usage is not None, "its slots tell it"


def test_somebody_else_who_reads_its_averages_is_found_out(port: int, tmp_path: Path) -> None:
    worker = {"w": f"http://127.0.0.1:{port}"}
    with scraping(tmp_path, port):
        assert "another client reads its metrics, too: llamacpp:" in other_readers(worker, 2.2)["w"]
    assert other_readers(worker, 2.2)["w"] == "no other client read its metrics within 2.2 s"
