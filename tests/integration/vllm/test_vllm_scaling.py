"""A planner scales real vLLM workers on the CPU, under the Circus executor. Not run unless it is asked for:

    tests/support/vllm/install.sh && pytest -m vllm tests/integration/vllm

It takes 3.4 GB of disk, 6 GB of memory and a few minutes. The workers are in a network of their own (root): vLLM
listens for its own processes on whatever address the machine has.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dynamo_planner import LoadPolicy, PoolSpec, Replicas, Sla
from dynamo_planner.demo.load import MODEL, LoadClient, TraceRequest
from dynamo_planner.demo.record import Recording
from dynamo_planner.demo.router import Router
from dynamo_planner.executors.circus import CircusExecutor, CircusPool
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.sources.scraping.source import ScrapeSource
from tests.support.model import write_model
from tests.support.network import private_network
from tests.support.paths import ROOT

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

INSTALL = ROOT / "tests" / "support" / "vllm" / "install.sh"
ISL, OSL = 60, 120
SLOTS = 4
BURST_PER_S, BURST_S = 20.0, 8.0
LASTS_AT_MOST_S = 800.0


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[CircusPool]:
    """Up to two vLLM workers with a tiny model of random weights, in a network of their own and the test's."""
    installed = subprocess.run(
        [INSTALL], env=os.environ | {"PYTHON": sys.executable}, capture_output=True, text=True, check=True
    )
    write_model(tmp_path / "model")
    with private_network():
        yield CircusPool(
            spec=PoolSpec(role="aggregated", gpus=0, max_replicas=2, startup_s=300),
            command=[
                *(installed.stdout.strip(), "-m", "vllm.entrypoints.openai.api_server"),
                *("--host=127.0.0.1", "--port={port}", f"--model={tmp_path / 'model'}", f"--served-model-name={MODEL}"),
                *("--load-format=dummy", "--enforce-eager", "--max-model-len=512", f"--max-num-seqs={SLOTS}"),
                *("--block-size=32", "--num-gpu-blocks-override=32"),
                "--shutdown-timeout=50",  # left out, what is being answered is lost when a worker is told to end
            ],
            env={
                "HOME": str(tmp_path),
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # or all workers would share one core
                "VLLM_HOST_IP": "127.0.0.1",
                "VLLM_NO_USAGE_STATS": "1",
            },
            startup_timeout_s=600,
            graceful_timeout_s=60,
        )


def burst() -> tuple[TraceRequest, ...]:
    return tuple(TraceRequest(1 + number / BURST_PER_S, ISL, OSL) for number in range(int(BURST_PER_S * BURST_S)))


def test_vllm_scales_up_and_down_and_loses_nothing(pool: CircusPool, tmp_path: Path) -> None:
    recording = Recording("burst", Sla(ttft_ms=1000, itl_ms=100), tuple(request.due_s for request in burst()))
    with CircusExecutor("vllm-test", {"workers": pool}, state_dir=tmp_path / "state", gpus=()) as executor:
        steps, ready = asyncio.run(_serve(executor, recording, tmp_path / "decisions.jsonl"))
    assert [request.lost for request in recording.requests if request.lost] == []
    assert len(recording.requests) > len(burst())
    assert max(ready) == 2
    assert ready[-1] == 1

    pools = [step.snapshot.pools["workers"] for step in steps]
    busiest = max(pools, key=lambda status: status.queued or 0)
    assert busiest.running == SLOTS
    assert (busiest.queued or 0) > SLOTS
    assert busiest.kv_usage is not None
    assert 0 < busiest.kv_usage <= 1
    traffic = [step.snapshot.traffic for step in steps if step.snapshot.traffic.osl is not None]
    assert {round(seen.osl.mean or 0) for seen in traffic if seen.osl} == {OSL}
    assert {round(seen.isl.mean or 0) for seen in traffic if seen.isl} == {ISL}
    rates = [step.snapshot.traffic.requests_per_s or 0 for step in steps]
    assert max(rates) == pytest.approx(BURST_PER_S, rel=0.3)
    staged = [status for status in pools if status.stages.decode_ms and status.traffic]
    assert staged
    for status in staged:
        stages = (status.stages.queue_ms, status.stages.prefill_ms, status.stages.decode_ms)
        duration_s = status.traffic.request_duration_s if status.traffic else None
        assert duration_s is not None
        assert [stage.count for stage in stages if stage] == [duration_s.count] * 3
        assert 0.5 <= sum(stage.mean for stage in stages if stage) / (1000 * duration_s.mean) <= 1.05
    assert max(status.stages.queue_ms.mean for status in staged if status.stages.queue_ms) > 1000
    assert any(status.traffic and status.traffic.token_gap_ms for status in staged)
    own = {f"pools.workers.{field}" for field in ("running", "queued", "kv_usage", "kv_capacity_tokens", "asleep")}
    assert not [field for step in steps for field in step.snapshot.missing if field in own]


async def _serve(executor: CircusExecutor, recording: Recording, log: Path) -> tuple[list[Step], list[int]]:
    policy = LoadPolicy(adjustment_interval_s=3, kv_per_waiting=0.1, decode_kv_up=0.8, decode_grace_intervals=1)
    source = ScrapeSource(executor.endpoints, {"workers": "aggregated"}, window_s=6, timeout_s=5)
    planner = Planner(policy, source, executor, log=log)
    clock = asyncio.get_running_loop().time
    ends_s = clock() + LASTS_AT_MOST_S
    async with Router(executor.endpoints, ("workers",), patience_s=LASTS_AT_MOST_S) as router:
        while not (seen := await _replicas(executor)).ready:
            assert clock() < ends_s, executor.workers()
            await asyncio.sleep(1)
        await router.ready()
        client = LoadClient(router.url, recording, clock())
        over = asyncio.Event()
        replay = asyncio.create_task(client.replay(burst()))
        trickle = asyncio.create_task(_one_after_the_other(client, over))
        steps, ready = list[Step](), [seen.ready]
        while not (replay.done() and max(ready) > 1 and seen == Replicas(ready=1, starting_since_s=())):
            assert clock() < ends_s, steps[-1].decision.explain()
            steps.append(await asyncio.to_thread(planner.step))
            seen = await _replicas(executor)
            ready.append(seen.ready)
            await asyncio.sleep(1)
        over.set()
        await asyncio.gather(replay, trickle)
    return steps, ready


async def _one_after_the_other(client: LoadClient, over: asyncio.Event) -> None:
    """A little load all along, so that something is being answered when the second worker goes."""
    while not over.is_set():
        await client.replay((TraceRequest(client.now_s(), ISL, OSL),))


async def _replicas(executor: CircusExecutor) -> Replicas:
    replicas = (await asyncio.to_thread(executor.observe))["workers"]
    assert replicas is not None
    return replicas
