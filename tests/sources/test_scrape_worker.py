"""From end to end: simulated workers as real processes, real requests, and what their clients measured beside it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamo_planner.sources import ScrapeSource

pytest.importorskip("aiohttp")

PROMPT_TOKENS, OUTPUT_TOKENS, SLOTS = 30, 20, 4


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """Two workers of four slots each, with steps of 50 ms."""
    module, taken = "dynamo_planner.simulation.worker", [free_port(), free_port()]
    flags = ["--model=tiny", f"--max-num-seqs={SLOTS}", "--base-ms=50", "--kv-tokens=16000"]
    workers = [subprocess.Popen([sys.executable, "-m", module, f"--port={port}", *flags]) for port in taken]
    try:
        for port, worker in zip(taken, workers, strict=True):
            until_s = time.monotonic() + 60
            while not answers(port):
                assert worker.poll() is None, "the worker has ended"
                assert time.monotonic() < until_s, "the worker does not start"
                time.sleep(0.05)
        yield taken
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            try:
                worker.wait(timeout=20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def started_s(port: int) -> float:
    """When a worker began, as it says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        found = re.search(r"^process_start_time_seconds (\S+)$", page.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


def complete(port: int) -> float:
    """Send a request; how long it took."""
    began_s = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    request = {"model": "tiny", "prompt": list(range(PROMPT_TOKENS)), "max_tokens": OUTPUT_TOKENS, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(request), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()
    return time.monotonic() - began_s


def wait_until_full(count: int, endpoints: dict[str, dict[str, str]]) -> None:
    until_s = time.monotonic() + 10
    while True:
        pool = ScrapeSource(endpoints, {"workers": "aggregated"}).observe(0).pools["workers"]
        if (pool.running, pool.queued) == (2 * SLOTS, count - 2 * SLOTS):
            return
        assert time.monotonic() < until_s, f"the requests do not arrive: {pool}"


def test_what_is_scraped_is_what_the_clients_saw(ports: list[int]) -> None:
    """Of workers that began in the window, all that they did is known."""
    endpoints = {"workers": {f"w{index}": f"http://127.0.0.1:{port}" for index, port in enumerate(ports)}}
    source = ScrapeSource(endpoints, {"workers": "aggregated"}, timeout_s=10)
    began_s = min(started_s(port) for port in ports)
    assert source.observe(time.time()).pools["workers"].coverage == 1
    with ThreadPoolExecutor(24) as clients:
        requests = [clients.submit(complete, ports[index % 2]) for index in range(24)]
        wait_until_full(24, endpoints)
        middle_s = time.time()
        loaded = source.observe(middle_s)
        took_s = [request.result() for request in requests]
    end_s = time.time()
    done = source.observe(end_s)

    pool = loaded.pools["workers"]
    assert (pool.running, pool.queued) == (2 * SLOTS, 24 - 2 * SLOTS)
    assert pool.kv_usage is not None
    assert pool.kv_usage > 0
    assert pool.kv_capacity_tokens == 16_000
    assert loaded.traffic.requests_per_s == pytest.approx(24 / (middle_s - began_s)), "all came, few are done"

    traffic = done.traffic
    assert traffic.requests_per_s == pytest.approx(24 / (end_s - began_s))
    assert (done.pools["workers"].running, done.pools["workers"].queued) == (0, 0)
    assert traffic.isl is not None
    assert (traffic.isl.mean, traffic.isl.count) == (PROMPT_TOKENS, 24)
    assert traffic.osl is not None
    assert traffic.osl.mean == OUTPUT_TOKENS
    assert traffic.request_duration_s is not None
    assert traffic.ttft_ms is not None
    assert traffic.itl_ms is not None
    seen_by_clients_s = sum(took_s) / 24
    assert traffic.request_duration_s.mean == pytest.approx(seen_by_clients_s, rel=0.2, abs=0.2)
    from_parts_ms = traffic.ttft_ms.mean + (OUTPUT_TOKENS - 1) * traffic.itl_ms.mean
    assert from_parts_ms == pytest.approx(1000 * traffic.request_duration_s.mean, rel=0.01)
    assert set(done.missing) <= {"traffic.queued", "traffic.arrival_dispersion", "traffic.prefix_hit_rate"} | {
        "pools.workers.traffic.prefix_hit_rate"
    }

    idle = source.observe(end_s + 31)
    assert (idle.traffic.requests_per_s, idle.traffic.isl) == (0, None)
