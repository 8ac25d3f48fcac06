"""Real worker processes, and a client that talks to them over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dynamo_planner.mock_workers.main import WorkerOptions
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming

STEADY = LinearTiming(base_ms=20, prefill_ms_per_token=0.1, kv_ms_per_token=0)
MANY_SECONDS = 60.0


@dataclass
class Answer:
    """What a client saw of one request."""

    sent_s: float
    status: int = 0
    body: dict[str, Any] = field(default_factory=dict)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    done: bool = False

    @property
    def text(self) -> str:
        choices = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return "".join(choice["text"] if "text" in choice else choice["delta"]["content"] for choice in choices)

    @property
    def ttft_s(self) -> float:
        return self.times[0] - self.sent_s

    @property
    def itl_s(self) -> float:
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)


@dataclass
class Worker:
    """A running worker process."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        return self.process.wait(MANY_SECONDS)

    async def health(self, session: aiohttp.ClientSession) -> tuple[int, str]:
        async with session.get(f"{self.url}/health") as response:
            return response.status, (await response.json())["status"]

    async def ready(self, session: aiohttp.ClientSession) -> None:
        while (await self.health(session))[0] != 200:
            await asyncio.sleep(0.02)

    async def metrics(self, session: aiohttp.ClientSession) -> dict[str, float]:
        """Sample values by name without ``vllm:``; labels other than engine and model follow the name."""
        async with session.get(f"{self.url}/metrics") as response:
            assert response.status == 200
            text = await response.text()
        values = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("vllm:"):
                    assert sample.labels["engine"] == "0"
                    assert sample.labels["model_name"] == "tiny"
                more = [value for name, value in sample.labels.items() if name not in ("engine", "model_name")]
                values[":".join([sample.name.removeprefix("vllm:"), *more])] = sample.value
        return values

    async def holds(self, session: aiohttp.ClientSession, running: int, waiting: int) -> dict[str, float]:
        """Wait until it has so many requests in the batch and in the queue; returns its metrics."""
        deadline = time.monotonic() + MANY_SECONDS
        while time.monotonic() < deadline:
            metrics = await self.metrics(session)
            if (metrics["num_requests_running"], metrics["num_requests_waiting"]) == (running, waiting):
                return metrics
            await asyncio.sleep(0.01)
        raise AssertionError(f"never had {running} running and {waiting} waiting")

    async def post(self, session: aiohttp.ClientSession, path: str, body: Any) -> Answer:
        """Send a request, and note when each chunk that holds a token comes."""
        answer = Answer(time.monotonic())
        data = body if isinstance(body, bytes) else json.dumps(body)
        async with session.post(f"{self.url}{path}", data=data) as response:
            answer.status = response.status
            if response.content_type != "text/event-stream":
                answer.body = await response.json()
                return answer
            async for line in response.content:
                if not line.strip():
                    continue
                assert line.startswith(b"data: ")
                if line == b"data: [DONE]\n":
                    answer.done = True
                    continue
                assert not answer.done
                chunk = json.loads(line[6:])
                answer.chunks.append(chunk)
                if "token" in json.dumps(chunk["choices"]):
                    answer.times.append(time.monotonic())
        return answer

    async def complete(self, session: aiohttp.ClientSession, isl: int, osl: int, **more: Any) -> Answer:
        body = {"model": "tiny", "prompt": [1] * isl, "max_tokens": osl, "stream": True, **more}
        return await self.post(session, "/v1/completions", body)


StartWorker = Callable[..., Worker]
Client = Callable[[], AbstractAsyncContextManager[aiohttp.ClientSession]]


@pytest.fixture
def client() -> Client:
    """Sessions with as many connections as there are requests."""

    @asynccontextmanager
    async def session() -> AsyncIterator[aiohttp.ClientSession]:
        timeout = aiohttp.ClientTimeout(total=MANY_SECONDS)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as opened:
            yield opened

    return session


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers on free ports; each is ended, whatever happens."""
    started: list[subprocess.Popen[bytes]] = []

    def start(timing: LinearTiming | None = STEADY, limits: EngineLimits | None = None, **options: Any) -> Worker:
        parts = {"timing": timing, "limits": limits}
        given = {name: part for name, part in parts.items() if part is not None}
        command = WorkerOptions(port=0, model="tiny", **given, **options).command()
        log = tmp_path / f"worker{len(started)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        started.append(process)
        deadline = time.monotonic() + MANY_SECONDS
        while not (address := re.search(r"http://\S+", log.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        return Worker(process, log, address.group())

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
