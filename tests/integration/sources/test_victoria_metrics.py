"""A real VictoriaMetrics understands what it is asked, and tells what Prometheus tells."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dynamo_planner import PoolSpec
from dynamo_planner.sources import HistorySource
from tests.support.prometheus_server import free_port
from tests.support.sources.backfilled import AT, source, target, vllm

BINARY = shutil.which("victoria-metrics")
pytestmark = pytest.mark.skipif(BINARY is None, reason="VictoriaMetrics is not installed (Debian: victoria-metrics)")
NOW = time.time() // 10 * 10 - 60


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that knows a worker that two jobs scrape, up to the present: what is old it throws away."""
    port, where = free_port(), tmp_path_factory.mktemp("victoria")
    address = f"127.0.0.1:{port}"
    command = [
        str(BINARY),
        f"-storageDataPath={where / 'data'}",
        f"-httpListenAddr={address}",
        "-search.latencyOffset=0s",
    ]
    with (where / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until_healthy(port, where / "log", process)
        every = (line for job in ("pods", "service") for line in vllm(target("a", job=job), running=4, done_per_s=3))
        send(port, "POST", "/api/v1/import/prometheus", "".join(f"{moved(line)}\n" for line in every))
        send(port, "GET", "/internal/force_flush")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(20)


def moved(line: str) -> str:
    """A line of OpenMetrics, as of now, and in milliseconds."""
    series, _, at_s = line.rpartition(" ")
    return f"{series} {(float(at_s) - AT + NOW) * 1000:.0f}"


def send(port: int, method: str, path: str, body: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def wait_until_healthy(port: int, log: Path, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + 30
    while True:
        with suppress(OSError):
            if send(port, "GET", "/health") == 200:
                return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until_s, log.read_text()
        time.sleep(0.05)


def test_it_tells_what_prometheus_tells(url: str) -> None:
    seen = source(url)
    observation = seen.observe(NOW)
    pool = observation.pools["workers"]
    assert (pool.running, pool.queued, pool.kv_usage, pool.kv_capacity_tokens, pool.coverage) == (4, 1, 0.5, 8000, 1)
    assert observation.traffic.requests_per_s == pytest.approx(3)
    assert observation.traffic.ttft_ms is not None
    assert observation.traffic.ttft_ms.quantiles[0.5] == pytest.approx(250)
    assert "(job 'pods' and 'service'): they are counted once" in observation.missing["pools.workers.workers.a"]
    (then,) = HistorySource.of(seen, {"workers": PoolSpec(role="aggregated")}, start_s=NOW, end_s=NOW)
    assert then.traffic.requests_per_s == pytest.approx(3)


def test_it_takes_long_queries_and_says_what_there_is(url: str) -> None:
    long = {"namespace": "llm", "pod": f"=~{'another-|' * 60}a"}
    assert source(url, labels=long).observe(NOW).pools["workers"].running == 4
    why = source(url, model="other").observe(NOW).missing["pools.workers"]
    assert why == "no series has the model 'other'; those of model_name are 'tiny'"
