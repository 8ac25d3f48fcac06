"""A planner scales the workers of a real Dynamo frontend, which serves requests meanwhile.

The workers are Dynamo's mocker: the queue, the batches and the KV cache of an engine, without the engine.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dynamo_planner import LoadPolicy, Policy, Replicas, Sla, Snapshot, Stabilization
from dynamo_planner.core.policy import as_policy
from dynamo_planner.demo.load import LoadClient, TraceRequest
from dynamo_planner.demo.record import Recording
from dynamo_planner.engines.vllm import VLLM
from dynamo_planner.engines.vocabulary import Gauge, Vocabulary
from dynamo_planner.executors.circus import CircusExecutor, CircusPool
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.sources.scraping.frontend import FrontendSource
from dynamo_planner.sources.scraping.source import ScrapeSource
from tests.support.dynamo.dynamo_service import Service

pytestmark = pytest.mark.timeout(900)

ISL, OSL = 100, 60
CALM_S, BURST_S = 3.0, 6.0
CALM_PER_S, BURST_PER_S = 2.0, 12.0
STEPS_EVERY_S = 0.5
SLOTS = 4
SETTLES_WITHIN_S = 240.0

ENGINE: dict[str, str | int | float] = {
    "max-num-seqs": SLOTS,
    "num-gpu-blocks-override": 64,
    "block-size": 16,
    "speedup-ratio": 3,
}
"""About 10 ms for a token, so that a worker answers 6 requests per second, with a KV cache for six of them."""


@dataclass
class Run:
    """What was seen of one run."""

    recording: Recording
    steps: list[Step] = field(default_factory=list)
    replicas: list[Mapping[str, Replicas | None]] = field(default_factory=list)

    def ready(self, pool: str) -> list[int]:
        return [seen.ready for replicas in self.replicas if (seen := replicas[pool])]

    def snapshots(self) -> list[Snapshot]:
        return [step.snapshot for step in self.steps]


def burst() -> tuple[TraceRequest, ...]:
    calm = (TraceRequest(number / CALM_PER_S, ISL, OSL) for number in range(int(CALM_S * CALM_PER_S)))
    many = (TraceRequest(CALM_S + number / BURST_PER_S, ISL, OSL) for number in range(int(BURST_S * BURST_PER_S)))
    return (*calm, *many)


def run(
    dynamo: Service,
    pools: Mapping[str, CircusPool],
    policy: Policy,
    directory: Path,
    vocabulary: Vocabulary | None = None,
) -> Run:
    """Serve the burst while the planner scales, until every pool is at its minimum again."""
    requests = burst()
    seen = Run(Recording("burst", Sla(ttft_ms=500, itl_ms=50), tuple(request.due_s for request in requests)))
    roles = {name: pool.spec.role for name, pool in pools.items()}
    with CircusExecutor("dynamo-test", pools, state_dir=directory / "state", gpus=()) as executor:
        frontend = FrontendSource([dynamo.url], window_s=4)
        source = ScrapeSource(executor.endpoints, roles, vocabulary=vocabulary, window_s=4, frontend=frontend)
        asyncio.run(_serve(dynamo, executor, Planner(policy, source, executor), requests, seen))
    return seen


async def _serve(
    dynamo: Service, executor: CircusExecutor, planner: Planner, requests: Sequence[TraceRequest], seen: Run
) -> None:
    clock = asyncio.get_running_loop().time
    gives_up_s = clock() + SETTLES_WITHIN_S
    while not _settled(await asyncio.to_thread(executor.observe), executor):
        assert clock() < gives_up_s, "the workers are not ready"
        assert not any(worker.message for worker in executor.workers()), executor.workers()
        await asyncio.sleep(0.05)
    await asyncio.to_thread(dynamo.wait_until_it_serves)
    client = LoadClient(dynamo.url, seen.recording, clock())
    replay = asyncio.create_task(client.replay(requests))
    gives_up_s = clock() + CALM_S + BURST_S + SETTLES_WITHIN_S
    while not (replay.done() and _idle(seen) and _settled(seen.replicas[-1], executor)):
        assert clock() < gives_up_s, f"not settled: {seen.steps[-1].decision.explain()}"
        seen.steps.append(await asyncio.to_thread(planner.step))
        seen.replicas.append(await asyncio.to_thread(executor.observe))
        if replay.done() and _unheard(seen):
            await _wake(dynamo, 2 * len(executor.workers()))
        await asyncio.sleep(STEPS_EVERY_S)
    await replay


def _idle(seen: Run) -> bool:
    return seen.steps[-1].snapshot.traffic.requests_per_s == 0


def _unheard(seen: Run) -> bool:
    """Whether a pool's requests are unknown: a worker that starts after the burst has told nothing yet."""
    return any(status.queued is None for status in seen.steps[-1].snapshot.pools.values())


async def _wake(dynamo: Service, requests: int) -> None:
    """Send requests at once, so that each worker gets one: a mocker tells nothing of its engine before its first."""
    recording = Recording("wake", Sla(ttft_ms=500, itl_ms=50), (0.0,) * requests)
    client = LoadClient(dynamo.url, recording, asyncio.get_running_loop().time())
    await client.replay([TraceRequest(0.0, ISL, OSL)] * requests)


def _settled(replicas: Mapping[str, Replicas | None], executor: CircusExecutor) -> bool:
    """Whether all pools are ready at their minimum."""
    minimum = {name: Replicas(ready=spec.min_replicas, starting_since_s=()) for name, spec in executor.pools.items()}
    return replicas == minimum


def by_requests(per_worker: Mapping[str, int]) -> Policy:
    """As many workers as it takes for the requests in a pool, which is what any engine tells; 2 s until fewer."""

    def policy(snapshot: Snapshot) -> dict[str, int | None]:
        return {name: _needed(snapshot, name, share) for name, share in per_worker.items()}

    return as_policy(policy) | Stabilization(down_window_s=2)


def _needed(snapshot: Snapshot, name: str, per_worker: int) -> int | None:
    pool = snapshot.pools[name]
    if pool.queued is None or pool.running is None:
        return None
    most = pool.spec.max_replicas or 1
    return max(pool.spec.min_replicas, min(most, math.ceil((pool.queued + pool.running) / per_worker)))


def check_nothing_was_lost(seen: Run) -> None:
    """Dynamo's frontend refuses a request at once (503, try again) while it does not know where its workers are, as it
    does for a moment on a busy machine; no worker has seen such a one. There are hardly any."""
    lost = [request.lost for request in seen.recording.requests if request.lost]
    refused = [why for why in lost if "Service temporarily unavailable" in why]
    assert [why for why in lost if why not in refused] == []
    assert len(refused) <= 0.03 * len(seen.recording.requests)
    assert len(seen.recording.requests) == len(burst())


def check_the_frontend_was_heard(seen: Run) -> None:
    """What the frontend tells is what was sent: requests of this rate, of these lengths."""
    rates = [snapshot.traffic.requests_per_s for snapshot in seen.snapshots()]
    assert max(rate for rate in rates if rate is not None) == pytest.approx(BURST_PER_S, rel=0.25)
    busy = [snapshot.traffic for snapshot in seen.snapshots() if snapshot.traffic.osl is not None]
    assert {traffic.osl.mean for traffic in busy if traffic.osl} == {OSL}
    assert {traffic.isl.mean for traffic in busy if traffic.isl} == {ISL}
    measured = [request.itl_ms for request in seen.recording.requests if request.itl_ms is not None]
    told = [traffic.itl_ms.mean for traffic in busy if traffic.itl_ms and traffic.itl_ms.mean is not None]
    assert min(measured) * 0.8 < min(told) <= max(told) < max(measured) * 1.2


def test_vllm_workers_scale_by_kv_usage_and_queue(dynamo: Service, tmp_path: Path) -> None:
    pools = {"workers": dynamo.pool("aggregated", {"engine-type": "vllm", **ENGINE})}
    policy = LoadPolicy(adjustment_interval_s=1.5, decode_kv_up=0.8, kv_per_waiting=0.1, decode_grace_intervals=0)
    seen = run(dynamo, pools, policy, tmp_path)
    check_nothing_was_lost(seen)
    check_the_frontend_was_heard(seen)
    assert max(seen.ready("workers")) >= 2
    assert seen.ready("workers")[-1] == 1
    usage = [status.kv_usage for snapshot in seen.snapshots() if (status := snapshot.pools["workers"]).kv_usage]
    assert max(usage) > 0.5
    busy = [pool for snapshot in seen.snapshots() if (pool := snapshot.pools["workers"]).kv_usage]
    assert all((pool.kv_usage_max or 0) >= (pool.kv_usage or 0) for pool in busy)
    assert any(
        pool.traffic and pool.traffic.token_gap_ms and pool.traffic.preemptions_per_s is not None for pool in busy
    )
    assert {pool.stages.queue_ms for pool in busy} == {None}, "the mocker does not observe it"


def test_sglang_workers_scale_by_the_requests_in_them(dynamo: Service, tmp_path: Path) -> None:
    pools = {"workers": dynamo.pool("aggregated", {"engine-type": "sglang", **ENGINE})}
    seen = run(dynamo, pools, by_requests({"workers": SLOTS}), tmp_path)
    check_nothing_was_lost(seen)
    check_the_frontend_was_heard(seen)
    assert max(seen.ready("workers")) >= 2
    assert seen.ready("workers")[-1] == 1
    busy = [snapshot for snapshot in seen.snapshots() if snapshot.pools["workers"].running]
    assert {snapshot.pools["workers"].kv_usage for snapshot in busy} == {None}
    assert all(
        "sglang:token_usage" in snapshot.missing["pools.workers.kv_usage"] for snapshot in busy
    )  # left out by it


def test_prefill_and_decode_workers_scale_apart(dynamo: Service, tmp_path: Path) -> None:
    """A prefill worker of the mocker tells no engine metrics; what Dynamo itself tells of it is a mapping away."""
    prefilling = {
        "waiting": Gauge(names=("dynamo_component_inflight_requests",), where={"dynamo_endpoint": "generate"}),
        "running": Gauge(names=("dynamo_work_handler_queue_depth",)),
    }
    vocabulary = VLLM.replace(by_role={"prefill": prefilling})
    vocabulary = Vocabulary.model_validate(vocabulary.model_dump())
    pools = {
        "prefill": dynamo.pool("prefill", {"max-num-seqs": 1, "block-size": 16, "speedup-ratio": 0.05}),
        "decode": dynamo.pool("decode", ENGINE),
    }
    seen = run(dynamo, pools, by_requests({"prefill": 2, "decode": SLOTS}), tmp_path, vocabulary)
    check_nothing_was_lost(seen)
    check_the_frontend_was_heard(seen)
    for pool in pools:
        assert max(seen.ready(pool)) >= 2
        assert seen.ready(pool)[-1] == 1
