"""Laws of the simulated cluster, and queues whose waiting times are in the textbooks."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner import ScaleTo, Sla
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.simulator.setup import ClusterSetup, Faults, Outage
from dynamo_planner.workloads.generators import LogNormalLengths, poisson
from dynamo_planner.workloads.trace import Trace
from tests.support.laws import examples

TIMING = LinearTiming(base_ms=8, prefill_ms_per_token=0.05, kv_ms_per_token=2e-4)
KV_TOKENS = 3000

searched = examples(40)


@st.composite
def setups(draw: st.DrawFn) -> ClusterSetup:
    faults = Faults(
        startup_cv=draw(st.sampled_from([0.0, 0.5])),
        launch_failure_share=draw(st.sampled_from([0.0, 0.3])),
        crash_mtbf_s=draw(st.sampled_from([None, 60.0])),
        outages=draw(st.sampled_from([(), (Outage(at_s=20, share=0.5),)])),
        slow_share=draw(st.sampled_from([0.0, 0.5])),
    )
    options: dict[str, Any] = {
        "startup_s": draw(st.sampled_from([0.0, 7.0])),
        "gpus": draw(st.integers(1, 2)),
        "kv_tokens": KV_TOKENS,
        "max_num_seqs": draw(st.sampled_from([2, 16])),
        "max_num_batched_tokens": draw(st.sampled_from([64, 512])),
        "routing": draw(st.sampled_from(["least_loaded", "round_robin", "hash", "pull"])),
        "max_gpus": draw(st.sampled_from([None, 6])),
        "kv_transfer_s": draw(st.sampled_from([0.0, 0.05])),
        "max_local_prefill": draw(st.sampled_from([0, 100])),
        "faults": faults,
    }
    if draw(st.booleans()):
        return ClusterSetup.aggregated(TIMING, draw(st.integers(1, 3)), **options)
    return ClusterSetup.disaggregated(TIMING, draw(st.integers(1, 2)), draw(st.integers(1, 2)), **options)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    lengths = LogNormalLengths(median=150, mean=250, maximum=KV_TOKENS // 2)
    made = poisson(draw(st.sampled_from([1.0, 6.0])), 60, draw(st.integers(0, 10**6)), lengths, lengths.scaled(0.3))
    hits = made.isl // 2 if draw(st.booleans()) else None
    return Trace(made.arrival_s, made.isl, made.osl, hits, made.name, made.duration_s)


def run(setup: ClusterSetup, trace: Trace, scaling: list[int], seed: int = 0) -> SimulatedCluster:
    """The trace served while all pools are set to these counts, one after the other, every 5 s."""
    made = SimulatedCluster(setup, trace, seed=seed, compiled=False)
    for replicas in scaling:
        made.advance(5)
        made.executor.apply([ScaleTo(pool=pool, replicas=replicas) for pool in setup.pools])
        check_state(made)
    made.finish(at_most_s=20_000)
    return made


def check_state(made: SimulatedCluster) -> None:
    """No engine holds more KV than there is, and every worker is in one state."""
    world = made._backend
    for place in range(len(world.world.next_event_s)):
        engine = world.engine(place)
        assert engine.kv <= engine.kv_tokens or not engine.steps
        assert engine.running <= engine.max_num_seqs
        status = world.status(place)
        assert status.kv_usage is not None and 0 <= status.kv_usage <= 1
    for pool, seen in made.executor.observe().items():
        assert seen is not None
        assert seen.ready + seen.starting + seen.failed == seen.target
        if made.setup.max_gpus is not None:
            gpus = sum(
                life.gpus for life in made.workers if math.isnan(life.released_s) and life.launched_s <= made.elapsed_s
            )
            start = sum(p.replicas * p.spec.gpus for p in made.setup.pools.values())
            assert gpus <= max(made.setup.max_gpus, start), pool


@searched
@given(setups(), traces(), st.lists(st.integers(1, 4), max_size=8))
def test_no_request_is_lost_or_served_twice(setup: ClusterSetup, trace: Trace, scaling: list[int]) -> None:
    made = run(setup, trace, scaling)
    served = made.served()
    assert made.over
    assert len(served) == len(trace)
    assert np.isfinite(served.finished_s).all() and not served.dropped.any()
    counted = made._backend.counters()
    assert counted.finished == counted.first_tokens == len(trace)
    assert counted.osl == trace.osl.sum()
    least_s = (trace.osl + (len(setup.pools) > 1)) * TIMING.base_ms / 1e3
    assert np.all(served.finished_s - served.arrival_s >= least_s - 2 * TIMING.base_ms / 1e3)
    assert np.all(served.ttft_ms > 0) and np.all(served.itl_ms >= 0)


@searched
@given(setups(), traces(), st.lists(st.integers(1, 4), max_size=8))
def test_gpu_seconds_are_those_of_the_workers(setup: ClusterSetup, trace: Trace, scaling: list[int]) -> None:
    made = run(setup, trace, scaling)
    by_worker = math.fsum(life.gpu_seconds(made.elapsed_s) for life in made.workers)
    by_pool = math.fsum(made.gpu_seconds(pool) for pool in setup.pools)
    assert by_worker == pytest.approx(made.gpu_seconds()) == pytest.approx(by_pool)
    for life in made.workers:
        assert not life.released_s < life.launched_s
        assert not life.ready_s < life.launched_s
    if setup.faults == Faults():
        counts = {pool: [c for c in made.timeline if c.pool == pool] for pool in setup.pools}
        for pool, changes in counts.items():
            ends = [*(change.at_s for change in changes[1:]), made.elapsed_s]
            held = math.fsum(
                (end_s - change.at_s) * (change.ready + change.starting + change.draining)
                for change, end_s in zip(changes, ends, strict=True)
            )
            if setup.max_gpus is None:
                assert held * setup.pools[pool].spec.gpus == pytest.approx(made.gpu_seconds(pool))


@searched
@given(setups(), traces(), st.lists(st.integers(1, 4), max_size=4), st.integers(0, 5))
def test_the_same_seed_gives_the_same_run(setup: ClusterSetup, trace: Trace, scaling: list[int], seed: int) -> None:
    first, second = (run(setup, trace, scaling, seed) for _ in range(2))
    assert np.array_equal(first.served().finished_s, second.served().finished_s)
    assert first.gpu_seconds() == second.gpu_seconds()
    assert first.timeline == second.timeline


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["aggregated", "prefill", "decode"])
@pytest.mark.parametrize("rate", [3.0, 8.0, 20.0])
def test_one_more_worker_never_costs_attainment(kind: Literal["aggregated", "prefill", "decode"], rate: float) -> None:
    """By more than half a point, under least-loaded routing."""
    sla = Sla(ttft_ms=300, itl_ms=12)
    trace = poisson(
        rate, 200, seed=7, isl=LogNormalLengths(median=600, mean=900), osl=LogNormalLengths(median=80, mean=120)
    )
    before = 0.0
    for replicas in range(1, 7):
        options: dict[str, Any] = {"kv_tokens": 100_000, "max_num_batched_tokens": 1024}
        if kind == "aggregated":
            setup = ClusterSetup.aggregated(TIMING, replicas, **options)
        else:
            prefill, decode = (replicas, 3) if kind == "prefill" else (3, replicas)
            setup = ClusterSetup.disaggregated(TIMING, prefill, decode, **options)
        made = SimulatedCluster(setup, trace, compiled=False)
        made.finish(at_most_s=10_000)
        attainment = made.served().attainment(sla)
        assert attainment >= before - 0.005
        before = attainment


# Queues with known answers: prefill workers that take one prompt at a time, out of one queue.

SERVICE_MS_PER_TOKEN = 1.0


def waits_s(arrivals: np.ndarray, service_s: np.ndarray, servers: int) -> np.ndarray:
    """How long each prompt waits before a prefill worker begins with it."""
    timing = LinearTiming(base_ms=1e-3, prefill_ms_per_token=SERVICE_MS_PER_TOKEN, kv_ms_per_token=0)
    isl = np.maximum(np.rint(service_s * 1e3 / SERVICE_MS_PER_TOKEN), 1).astype(int)
    setup = ClusterSetup.disaggregated(
        timing, servers, 1, kv_tokens=10**9, max_num_seqs=1, max_num_batched_tokens=10**5, routing="pull"
    )
    made = SimulatedCluster(setup, Trace(arrivals, isl, np.ones_like(isl)), compiled=False)
    made.finish(at_most_s=1e6)
    scheduled_s = made._backend.column("scheduled_s", len(isl))
    return np.asarray(scheduled_s - arrivals)


def erlang_c(servers: int, load: float) -> float:
    """The share of arrivals that wait in an M/M/m queue, from the definition: Erlang's formula over its states."""
    states = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(states) + last)


def sample(servers: int, utilization: float, *, fixed: bool, count: int) -> np.ndarray:
    """Waits of a queue with a mean service time of 1 s, after it has warmed up."""
    random = np.random.default_rng(11)
    arrivals = np.cumsum(random.exponential(1 / (servers * utilization), count))
    service_s = np.ones(count) if fixed else random.exponential(1.0, count)
    return waits_s(arrivals, service_s, servers)[count // 20 :]


def error_of(waits: np.ndarray) -> float:
    """Three standard errors of the mean, from the means of 20 batches."""
    means = waits[: len(waits) // 20 * 20].reshape(20, -1).mean(axis=1)
    return float(3 * means.std(ddof=1) / math.sqrt(20))


@pytest.mark.slow
@pytest.mark.parametrize("utilization", [0.5, 0.8])
def test_one_worker_is_an_m_m_1_queue(utilization: float) -> None:
    waits = sample(1, utilization, fixed=False, count=20_000)
    assert waits.mean() == pytest.approx(utilization / (1 - utilization), abs=error_of(waits))
    assert (waits > 1e-6).mean() == pytest.approx(utilization, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("utilization", [0.5, 0.8])
def test_one_worker_with_equal_prompts_is_an_m_d_1_queue(utilization: float) -> None:
    waits = sample(1, utilization, fixed=True, count=20_000)
    assert waits.mean() == pytest.approx(utilization / (2 * (1 - utilization)), abs=error_of(waits))


@pytest.mark.slow
@pytest.mark.parametrize(("servers", "utilization"), [(3, 0.7), (10, 0.9)])
def test_several_workers_wait_as_erlang_says(servers: int, utilization: float) -> None:
    waits = sample(servers, utilization, fixed=False, count=20_000)
    share = erlang_c(servers, servers * utilization)
    assert (waits > 1e-6).mean() == pytest.approx(share, abs=0.04)
    assert waits.mean() == pytest.approx(share / (servers * (1 - utilization)), abs=error_of(waits))
