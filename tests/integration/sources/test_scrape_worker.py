"""From end to end: simulated workers as real processes, real requests, and what their clients measured beside it."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamo_planner.sources import ScrapeSource
from tests.support.simulated import OUTPUT_TOKENS, PROMPT_TOKENS, complete, simulated_workers

pytest.importorskip("aiohttp")

SLOTS = 4


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """Two workers of four slots each, with steps of 100 ms."""
    with simulated_workers(2, f"--max-num-seqs={SLOTS}", "--base-ms=100", "--kv-tokens=16000") as taken:
        yield taken


def started_s(port: int) -> float:
    """When a worker began, as it says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        found = re.search(r"^process_start_time_seconds (\S+)$", page.read().decode(), re.MULTILINE)
    assert found
    return float(found[1])


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
    stages = done.pools["workers"].stages
    parts = [stage for stage in (stages.queue_ms, stages.prefill_ms, stages.decode_ms) if stage]
    assert [stage.count for stage in parts] == [24] * 3
    assert sum(stage.mean for stage in parts) == pytest.approx(1000 * traffic.request_duration_s.mean)
    assert traffic.token_gap_ms is not None
    assert traffic.token_gap_ms.count == 24 * (OUTPUT_TOKENS - 1)
    of_frontends = {f"traffic.{field}" for field in ("queued", "queued_tokens", "prefill_tokens", "arrival_dispersion")}
    of_pool = {f"pools.workers.{field}" for field in ("queued_tokens", "stages.transfer_ms", "stages.first_token_ms")}
    assert set(done.missing) - of_frontends - of_pool <= {
        f"{of}traffic.{field}" for of in ("", "pools.workers.") for field in ("prefix_hit_rate", "aborted_per_s")
    }

    idle = source.observe(end_s + 31)
    assert (idle.traffic.requests_per_s, idle.traffic.isl) == (0, None)
