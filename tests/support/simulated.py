"""Simulated workers as real processes, and requests to them."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.prometheus_server import free_port

PROMPT_TOKENS, OUTPUT_TOKENS = 30, 10


@contextmanager
def simulated_workers(count: int, *flags: str) -> Iterator[list[int]]:
    """The ports of so many workers, of a model called ``tiny``; they are ended at the end."""
    ports = [free_port() for _ in range(count)]
    command = [sys.executable, "-m", "dynamo_planner.mock_workers.main", "--model=tiny", *flags]
    workers = [subprocess.Popen([*command, f"--port={port}"], stderr=subprocess.DEVNULL) for port in ports]
    try:
        until_s = time.monotonic() + 60
        for port, worker in zip(ports, workers, strict=True):
            while not _answers(port):
                assert worker.poll() is None, "the worker has ended"
                assert time.monotonic() < until_s, "the worker does not start"
                time.sleep(0.05)
        yield ports
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            try:
                worker.wait(timeout=20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def complete(port: int) -> float:
    """Send a request; how long its answer took."""
    began_s = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    request = {"model": "tiny", "prompt": list(range(PROMPT_TOKENS)), "max_tokens": OUTPUT_TOKENS, "ignore_eos": True}
    connection.request("POST", "/v1/completions", json.dumps(request), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
    connection.close()
    return time.monotonic() - began_s
