"""The router between a load client and real worker processes: what it does when workers come, drain and die."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from dynamo_planner import Role, Sla
from dynamo_planner.demo.load import LoadClient, TraceRequest
from dynamo_planner.demo.record import Recording, RequestRecord
from dynamo_planner.demo.router import Endpoints, Router
from dynamo_planner.executors import ExecutorError
from dynamo_planner.mock_workers.main import WorkerOptions
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming

QUICK = LinearTiming(base_ms=10, prefill_ms_per_token=0.1, kv_ms_per_token=0)
SLOW_PROMPTS = LinearTiming(base_ms=10, prefill_ms_per_token=20, kv_ms_per_token=0)


@dataclass(frozen=True)
class RunningWorker:
    """A worker process that takes requests."""

    process: subprocess.Popen[bytes]
    url: str


StartWorker = Callable[..., RunningWorker]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers, and ends those that are left."""
    with ExitStack() as ends:

        def start(role: Role = "aggregated", timing: LinearTiming = QUICK) -> RunningWorker:
            options = WorkerOptions(
                port=0, model="simulated", role=role, timing=timing, limits=EngineLimits(kv_tokens=50_000)
            )
            log = tmp_path / f"worker-{time.monotonic_ns()}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(options.command(), stdout=output, stderr=output)
            ends.callback(process.wait)
            ends.callback(process.kill)
            return RunningWorker(process, _url(process, log))

        yield start


def _url(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the worker says that it listens, once it takes requests."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        text = log.read_text()
        if "takes requests" in text and (found := re.search(r"http://[\d.]+:\d+", text)):
            return found[0]
        time.sleep(0.02)
    raise AssertionError(f"the worker did not start: {log.read_text()}")


def pool(*workers: RunningWorker | str, name: str = "workers") -> dict[str, dict[str, str]]:
    urls = [worker if isinstance(worker, str) else worker.url for worker in workers]
    return {name: {f"{name}_{number}": url for number, url in enumerate(urls)}}


async def replay(
    router: Router, requests: Sequence[TraceRequest], meanwhile: Callable[[], None] | None = None, after_s: float = 0.0
) -> list[RequestRecord]:
    """What became of the requests, in the order of the trace; ``meanwhile`` happens ``after_s`` into the replay."""
    recording = Recording("test", Sla(ttft_ms=1000, itl_ms=100), tuple(request.due_s for request in requests))
    client = LoadClient(router.url, recording, asyncio.get_running_loop().time())
    replaying = asyncio.create_task(client.replay(requests))
    if meanwhile is not None:
        await asyncio.sleep(after_s)
        meanwhile()
    await replaying
    return sorted(recording.requests, key=lambda record: record.due_s)


def through(
    endpoints: Endpoints | Callable[[], Endpoints],
    requests: Sequence[TraceRequest],
    stages: Sequence[str] = ("workers",),
    meanwhile: Callable[[], None] | None = None,
    after_s: float = 0.0,
    patience_s: float = 30.0,
) -> list[RequestRecord]:
    """Replay requests through a router of these workers."""

    async def run() -> list[RequestRecord]:
        known = endpoints if callable(endpoints) else lambda: endpoints
        async with Router(known, stages, refresh_s=0.05, patience_s=patience_s) as router:
            records = await replay(router, requests, meanwhile, after_s)
            assert (router.in_flight, router.held) == (0, 0)
            return records

    return asyncio.run(run())


def finished(worker: RunningWorker) -> int:
    """How many requests a worker has finished, as it says itself."""

    async def ask() -> str:
        async with aiohttp.ClientSession() as session, session.get(f"{worker.url}/metrics") as response:
            return await response.text()

    lines = asyncio.run(ask()).splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("vllm:request_success_total")))


@pytest.fixture
def closed_port() -> Iterator[str]:
    """A port that refuses connections: bound, so that nobody else takes it, and not listening."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


def test_requests_go_to_the_least_loaded_worker_and_come_back_whole(start_worker: StartWorker) -> None:
    one, other = start_worker(), start_worker()
    records = through(pool(one, other), [TraceRequest(0.01 * number, isl=100, osl=40) for number in range(10)])
    assert [record.lost for record in records] == [None] * 10
    assert (finished(one), finished(other)) == (5, 5)
    # 10 ms for the step and 0.1 ms for each prompt token are the least; a busy machine makes it more, without a bound
    assert all(record.ttft_ms >= 20 for record in records if record.ttft_ms is not None)
    assert all(record.itl_ms >= 9 for record in records if record.itl_ms is not None)


def test_a_request_waits_for_the_first_worker_and_the_wait_counts(start_worker: StartWorker) -> None:
    worker = start_worker()
    workers: list[RunningWorker] = []
    (record,) = through(
        lambda: pool(*workers), [TraceRequest(0.0, 10, 5)], meanwhile=lambda: workers.append(worker), after_s=0.6
    )
    assert record.lost is None
    assert record.ttft_ms is not None
    assert record.ttft_ms > 600


def test_where_no_worker_comes_the_answer_is_503(closed_port: str) -> None:
    for nobody in (pool(), pool(closed_port), {}):
        (record,) = through(nobody, [TraceRequest(0.0, 10, 5)], patience_s=0.3)
        assert record.lost == "answered 503: no worker answered within 0.3 s"


def test_a_refused_connection_goes_to_another_worker(start_worker: StartWorker, closed_port: str) -> None:
    worker = start_worker()
    records = through(pool(closed_port, worker), [TraceRequest(0.02 * number, 10, 10) for number in range(8)])
    assert [record.lost for record in records] == [None] * 8
    assert finished(worker) == 8


def test_a_draining_worker_finishes_what_it_has_and_its_503_goes_to_another(start_worker: StartWorker) -> None:
    leaving, staying = start_worker(), start_worker()
    before = [TraceRequest(0.0, 10, 150), TraceRequest(0.0, 10, 150)]
    after = [TraceRequest(0.5 + 0.02 * number, 10, 10) for number in range(6)]
    records = through(
        pool(leaving, staying),  # and nobody told the router that one of them drains
        [*before, *after],
        meanwhile=lambda: leaving.process.send_signal(signal.SIGTERM),
        after_s=0.4,
    )
    assert [record.lost for record in records] == [None] * 8
    assert leaving.process.wait(10) == 0
    assert finished(staying) == 7


def test_a_worker_that_dies_before_its_first_token_costs_no_request(start_worker: StartWorker) -> None:
    dying, staying = start_worker(timing=SLOW_PROMPTS), start_worker()
    (record,) = through(pool(dying, staying), [TraceRequest(0.0, 100, 5)], meanwhile=dying.process.kill, after_s=0.5)
    assert record.lost is None
    assert record.ttft_ms is not None
    assert record.ttft_ms > 500
    assert finished(staying) == 1


def test_a_worker_that_dies_after_its_first_token_loses_the_request(start_worker: StartWorker) -> None:
    dying, staying = start_worker(), start_worker()
    (record,) = through(pool(dying, staying), [TraceRequest(0.0, 10, 300)], meanwhile=dying.process.kill, after_s=1.0)
    assert record.lost is not None
    assert record.lost.startswith("the connection broke after its first token")
    assert finished(staying) == 0


def test_prefill_comes_first_and_decode_goes_on_from_it(start_worker: StartWorker) -> None:
    prefill, decode = start_worker("prefill"), start_worker("decode", timing=SLOW_PROMPTS)
    workers = {**pool(prefill, name="prefill"), **pool(decode, name="decode")}
    records = through(
        workers, [TraceRequest(0.05 * number, 200, 20) for number in range(6)], stages=("prefill", "decode")
    )
    assert [record.lost for record in records] == [None] * 6
    assert (finished(prefill), finished(decode)) == (6, 6)
    # the decode worker would need 4 s for a prompt of its own
    assert all(record.ttft_ms < 2000 for record in records if record.ttft_ms is not None)


def test_a_worker_of_the_wrong_stage_is_told_and_not_hidden(start_worker: StartWorker) -> None:
    aggregated = start_worker()
    workers = {**pool(aggregated, name="prefill"), **pool(aggregated, name="decode")}
    (record,) = through(workers, [TraceRequest(0.0, 10, 5)], stages=("prefill", "decode"))
    assert record.lost is not None
    assert "gave no kv_transfer_params" in record.lost


def test_what_a_worker_refuses_is_passed_on(start_worker: StartWorker) -> None:
    (record,) = through(pool(start_worker()), [TraceRequest(0.0, 60_000, 5)])
    assert record.lost is not None
    assert record.lost.startswith("answered 400")
    assert "KV cache" in record.lost


def test_a_client_that_goes_away_frees_its_worker(start_worker: StartWorker) -> None:
    worker = start_worker()

    async def run() -> int:
        body = {"model": "simulated", "prompt": [1] * 10, "max_tokens": 3000, "stream": True}
        async with Router(lambda: pool(worker), ("workers",)) as router:
            session = aiohttp.ClientSession()
            async with session, session.post(f"{router.url}/v1/completions", json=body) as response:
                await response.content.readany()
                assert router.in_flight == 1
                response.close()
            for _ in range(100):
                await asyncio.sleep(0.05)
                if router.in_flight == 0:
                    break
            return router.in_flight

    assert asyncio.run(run()) == 0
    assert finished(worker) == 1  # as aborted, long before its 3000 tokens


def test_nonsense_is_a_bad_request_and_chat_is_served_too(start_worker: StartWorker) -> None:
    worker = start_worker()

    async def run() -> tuple[int, str]:
        async with Router(lambda: pool(worker), ("workers",)) as router, aiohttp.ClientSession() as session:
            async with session.post(f"{router.url}/v1/completions", data=b"{") as response:
                status = response.status
            body = {"messages": [{"role": "user", "content": "how are you"}], "max_tokens": 3}
            async with session.post(f"{router.url}/v1/chat/completions", json=body) as response:
                return status, (await response.json())["choices"][0]["message"]["content"]

    assert asyncio.run(run()) == (400, " token token token")


def test_workers_that_cannot_be_listed_for_a_while_stay_known(start_worker: StartWorker) -> None:
    worker, calls = start_worker(), iter(range(1000))

    def endpoints() -> Endpoints:
        if next(calls) > 0:
            raise ExecutorError("the state file is gone")
        return pool(worker)

    records = through(endpoints, [TraceRequest(0.1 * number, 10, 5) for number in range(5)])
    assert [record.lost for record in records] == [None] * 5
