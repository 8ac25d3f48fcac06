"""Real llama.cpp servers under a real arbiter get more slots while requests wait, and not one request is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dynamo_planner import KnobPolicy, Planner, PoolSpec, Sla
from dynamo_planner.engines import catalogue
from dynamo_planner.engines.llamacpp import LLAMACPP_SPLIT
from dynamo_planner.executors.circus import CircusPool
from dynamo_planner.sources import ScrapeSource

pytest.importorskip("aiohttp")
pytest.importorskip("xllamacpp")

from aiohttp import ClientSession

from dynamo_planner.demo.router import Router
from dynamo_planner.mock_workers.llamacpp import LlamaOptions
from dynamo_planner.mock_workers.random_gguf import RandomModel

if TYPE_CHECKING:
    from dynamo_planner.executors.circus import CircusExecutor
    from tests.support.circus.place import Place

pytestmark = pytest.mark.alone  # its trials are judged by the throughput that they reach

CLIENTS, WORKERS = 8, 2
TICK_S = 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.gguf"
    RandomModel(width=256).write(path)
    return path


async def client(session: ClientSession, url: str, stop: asyncio.Event, statuses: list[int]) -> None:
    """Ask for one answer after the other."""
    body = {"prompt": [9, 8, 7], "max_tokens": 60, "ignore_eos": True}
    while not stop.is_set():
        async with session.post(f"{url}/v1/completions", json=body) as answer:
            told = await answer.json()
            statuses.append(answer.status if told["usage"]["completion_tokens"] == 60 else 0)


async def tuned(executor: CircusExecutor, planner: Planner, told: list[str]) -> tuple[list[int], list[tuple[int, int]]]:
    """Load all workers until knobs are settled; the answers, and the replicas that were ready and moving meanwhile."""
    statuses: list[int] = []
    seen: list[tuple[int, int]] = []
    stop = asyncio.Event()
    async with Router(executor.endpoints, ("workers",)) as router, ClientSession() as session:
        clients = [asyncio.create_task(client(session, router.url, stop, statuses)) for _ in range(CLIENTS)]
        await asyncio.sleep(2)  # until the queues are what they will be
        until_s = time.monotonic() + 120
        while time.monotonic() < until_s:
            step = await asyncio.to_thread(planner.step)
            told += [str(reason) for reason in step.decision.reasons if reason.code != "NoOpinion"]
            replicas = step.snapshot.pools["workers"].replicas
            assert replicas is not None
            seen.append((replicas.ready, replicas.starting + replicas.draining))
            if executor.knobs["workers"] == {"max_num_seqs": CLIENTS // WORKERS} and seen[-1] == (WORKERS, 0):
                break
            await asyncio.sleep(TICK_S)
        stop.set()
        await asyncio.gather(*clients)
    return statuses, seen


def test_slots_are_raised_while_requests_wait_one_worker_at_a_time_and_nothing_is_lost(
    place: Place, model: Path
) -> None:
    command = [*LlamaOptions(port=0, model=str(model), context_tokens=2048).command(), "--slots={max_num_seqs}"]
    pool = CircusPool(
        spec=PoolSpec(role="aggregated", gpus=0, min_replicas=WORKERS, startup_s=2),
        command=["--port={port}" if argument == "--port=0" else argument for argument in command],
        engine="llamacpp",
        knobs={"max_num_seqs": 1},
        graceful_timeout_s=30,
    )
    slots = catalogue("llamacpp")["max_num_seqs"].replace(settles_s=0.0)
    policy = KnobPolicy(
        sla=Sla(ttft_ms=1000, itl_ms=1000), engine="llamacpp", more=(slots,), windows=4, min_requests=0, same_load=0.5
    )
    with place.executor(pools={"workers": pool}) as executor:
        place.settled(executor, workers=WORKERS)
        source = ScrapeSource(executor.endpoints, {"workers": "aggregated"}, vocabulary=LLAMACPP_SPLIT, window_s=1.0)
        planner = Planner(policy, source, executor, interval_s=TICK_S)
        told: list[str] = []
        statuses, seen = asyncio.run(tuned(executor, planner, told))
        assert executor.knobs["workers"]["max_num_seqs"] == 4, "\n".join(told)
        assert {worker.state for worker in executor.workers()} == {"ready"}
    assert len(statuses) > CLIENTS
    assert set(statuses) == {200}, "a request was lost"
    assert min(ready for ready, _ in seen) == WORKERS, "capacity was kept"
    assert max(moving for _, moving in seen) == 1, "one at a time"
