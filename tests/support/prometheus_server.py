"""The real Prometheus server, scraping what a test wants; where it is missing a test is skipped, and in CI it fails."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

MISSING = "the Prometheus server is not installed (Debian: apt-get install prometheus)"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def binary(name: str = "prometheus") -> str:
    found = shutil.which(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(MISSING)
    if found is None:
        pytest.skip(MISSING)
    return found


Points = Iterable[tuple[float, float]]
"""Times in Unix seconds, and values."""


def line(name: str, labels: Mapping[str, str], points: Points) -> list[str]:
    """A series in the OpenMetrics text format."""
    text = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return [f"{name}{{{text}}} {value!r} {at_s:.3f}" for at_s, value in points]


def backfill(directory: Path, lines: Iterable[str]) -> None:
    """Write series into the storage that a server of this directory will have, as if it had scraped them long ago."""
    directory.mkdir(parents=True, exist_ok=True)
    text = directory / "backfill.om"
    text.write_text("\n".join([*lines, "# EOF", ""]))
    command = [binary("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(text), str(directory / "data")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text.unlink()


@contextmanager
def prometheus(
    directory: Path,
    targets: Mapping[str, Mapping[str, Mapping[str, str]]] | None = None,
    interval_s: float = 1.0,
    *flags: str,
    ready: Callable[[int], bool] | None = None,
) -> Iterator[str]:
    """The URL of a server that scrapes ``targets``: by job and ``host:port``, their labels."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {
        "global": {"scrape_interval": f"{int(interval_s * 1000)}ms", "scrape_timeout": f"{int(interval_s * 1000)}ms"},
        "scrape_configs": [
            {
                "job_name": job,
                "honor_timestamps": False,
                "static_configs": [{"targets": [address], "labels": dict(labels)} for address, labels in group.items()],
            }
            for job, group in (targets or {}).items()
        ],
    }
    (directory / "prometheus.yml").write_text(json.dumps(config))  # which is YAML too
    port = free_port()
    command = [
        binary(),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=100y",
        "--log.level=warn",
        *flags,
    ]
    with (directory / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        until_s = time.monotonic() + 30
        while not (ready or _ready)(port):
            assert process.poll() is None, (directory / "prometheus.log").read_text()
            assert time.monotonic() < until_s, "Prometheus does not start"
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ask(url: str, query: str, at_s: float | None = None) -> list[dict[str, Any]]:
    """What an instant query gives, as the server tells it: for the tests, with none of the code that is tested."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    when = {} if at_s is None else {"time": f"{at_s:.3f}"}
    connection.request("GET", f"/api/v1/query?{urlencode({'query': query, **when})}")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def until_scraped(url: str, jobs: int, scrapes: int = 2, within_s: float = 30.0) -> None:
    """Wait until each of so many targets was scraped successfully so many times."""
    until_s = time.monotonic() + within_s
    while True:
        counts = [float(series["value"][1]) for series in ask(url, "sum_over_time(up[1h])")]
        if len(counts) >= jobs and min(counts) >= scrapes:
            return
        assert time.monotonic() < until_s, f"not scraped: {counts}"
        time.sleep(0.1)
