"""The lower bound: hand-worked programs, and no schedule that is good enough costs less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dynamo_planner import Sla
from dynamo_planner.evaluation.lower_bound import PoolWork, least_replica_time
from dynamo_planner.evaluation.work_floor import pool_work, step_floor
from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
from dynamo_planner.simulator.engine.step_time import GridTiming, LinearTiming
from dynamo_planner.workloads.generators import poisson
from dynamo_planner.workloads.trace import Trace
from tests.support.laws import examples

Floats = NDArray[np.float64]
SLOT_S = 10.0


def pulses(*spans: tuple[float, float], level: float = 1.0) -> PoolWork:
    """Work at this level from one time to another, due in the slot in which it comes."""
    at_s = np.concatenate([np.arange(start, end, SLOT_S) for start, end in spans])
    return PoolWork(arrival_s=at_s, deadline_s=at_s + SLOT_S / 2, work_s=np.full(len(at_s), level * SLOT_S))


@pytest.mark.parametrize(
    ("gap_s", "cost"),
    [
        (60, 100 + 60 + 100 + 100),  # two pulses of 100 s, one start, and kept in between
        (200, 100 + 100 + 100 + 100),  # started twice
    ],
)
def test_between_two_pulses_a_replica_is_kept_where_that_is_cheaper_than_to_start_it_again(
    gap_s: float, cost: float
) -> None:
    work_due = pulses((200, 300), (300 + gap_s, 400 + gap_s))
    bound = least_replica_time(work_due, attainment=1 - 1e-9, startup_s=100, start=0, slot_s=SLOT_S, duration_s=1000)
    assert bound.replica_s == pytest.approx(cost, rel=1e-6)


def test_what_there_is_at_the_start_need_not_be_started_and_nothing_is_ready_before_a_startup() -> None:
    early = pulses((0, 50))
    bound = least_replica_time(early, attainment=1 - 1e-9, startup_s=100, start=1, slot_s=SLOT_S)
    assert bound.replica_s == pytest.approx(50)
    with pytest.raises(ValueError, match="no schedule is enough, with 0 replicas"):
        least_replica_time(early, attainment=1 - 1e-9, startup_s=100, start=0, slot_s=SLOT_S)


def test_work_that_may_wait_is_spread() -> None:
    burst = PoolWork(arrival_s=np.zeros(10), deadline_s=np.full(10, 95.0), work_s=np.full(10, 10.0))
    bound = least_replica_time(burst, attainment=1 - 1e-9, startup_s=1000, start=9, slot_s=SLOT_S)
    assert bound.replica_s == pytest.approx(100)
    one_at_a_time = least_replica_time(burst, attainment=1 - 1e-9, startup_s=1000, start=1, slot_s=SLOT_S)
    assert one_at_a_time.replica_s == pytest.approx(100)


def test_the_costliest_requests_may_go_and_no_more_than_attainment_allows() -> None:
    work = np.concatenate([np.full(90, 1.0), np.full(10, 20.0)])
    at_s = np.arange(0, 100 * SLOT_S, SLOT_S)
    bound = least_replica_time(
        PoolWork(at_s, at_s + SLOT_S, work), attainment=0.95, startup_s=0, start=0, slot_s=SLOT_S
    )
    assert bound.replica_s == pytest.approx(90 + 5 * 20)


def test_bounds_of_the_pool_hold() -> None:
    bound = least_replica_time(
        pulses((0, 100)), attainment=0.99, startup_s=0, start=3, slot_s=SLOT_S, duration_s=1000, min_replicas=2
    )
    assert bound.replica_s == pytest.approx(2000)
    with pytest.raises(ValueError, match="no schedule is enough"):
        least_replica_time(
            pulses((0, 100), level=3.0), attainment=0.99, startup_s=0, start=2, slot_s=SLOT_S, max_replicas=2
        )


@examples(40)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 30.0, 120.0]), st.sampled_from([0.9, 0.99]))
def test_no_schedule_that_is_good_enough_costs_less(seed: int, startup_s: float, attainment: float) -> None:
    """Random whole schedules that serve a random load in the order of deadlines, judged request by request."""
    random = np.random.default_rng(seed)
    count = int(random.integers(20, 80))
    arrival_s = np.sort(random.uniform(0, 600, count))
    work_due = PoolWork(arrival_s, arrival_s + random.uniform(1, 60, count), random.gamma(1.0, 15.0, count))
    replicas = np.repeat(random.integers(1, 9, 7), 10)  # a change each 100 s, in slots of 10 s
    on_time = _served(work_due, replicas)
    cost = SLOT_S * replicas.sum() + startup_s * np.maximum(np.diff(replicas), 0).sum()
    if on_time < attainment:
        return
    early = int(replicas[: int(startup_s // SLOT_S) + 1].max())  # none can come sooner, so they are there
    bound = least_replica_time(work_due, attainment=attainment, startup_s=startup_s, start=early, slot_s=SLOT_S)
    assert bound.replica_s <= cost * (1 + 1e-9)


def _served(work_due: PoolWork, replicas: NDArray[np.int64], step_s: float = 0.5) -> float:
    """The share of requests whose work is done in time, the earliest deadline first."""
    left, late = work_due.work_s.copy(), np.zeros(len(work_due.work_s), bool)
    for step in range(int(len(replicas) * SLOT_S / step_s)):
        now_s, room = step * step_s, replicas[int(step * step_s // SLOT_S)] * step_s
        late |= (left > 1e-9) & (work_due.deadline_s < now_s + step_s)
        ready = np.flatnonzero((work_due.arrival_s <= now_s) & (left > 1e-9) & ~late)
        for request in ready[np.argsort(work_due.deadline_s[ready])]:
            done = min(room, left[request])
            left[request] -= done
            room -= done
    return float(1 - (late | (left > 1e-9)).mean())


LIMITS = EngineLimits(max_num_seqs=32, max_num_batched_tokens=1024, kv_tokens=60_000)
CURVED = GridTiming(lambda p, d, k: 8 + 0.02 * p + 1e-6 * p * p + 0.1 * d + 1e-4 * k + 2e-4 * d * d, 2048)


@pytest.mark.parametrize("timing", [LinearTiming(), CURVED], ids=["linear", "curved"])
@pytest.mark.parametrize("role", ["prefill", "decode", "aggregated"])
def test_an_engine_is_busy_for_longer_than_the_work(timing: LinearTiming | GridTiming, role: str) -> None:
    """Real engines at several loads: those that kept the ITL target took at least the work that the bound counts."""
    trace = poisson(3.0, 200.0, seed=1)
    for rate in (2.0, 8.0, 30.0):
        _busy_enough(trace.at_rate(rate, seed=2), timing, role)


def _busy_enough(trace: Trace, timing: LinearTiming | GridTiming, role: str) -> None:
    sla = Sla(ttft_ms=1e7, itl_ms=20.0)
    engine = Engine(LIMITS, timing)
    cached = trace.isl if role == "decode" else np.zeros_like(trace.isl)
    osl = np.ones_like(trace.osl) if role == "prefill" else trace.osl
    columns = zip(trace.isl.tolist(), osl.tolist(), trace.arrival_s.tolist(), cached.tolist(), strict=True)
    requests = [engine.submit(*column) for column in columns]
    first_s = requests[0].arrival_s
    engine.advance(float("inf"))
    end_s = max(request.finished_s or 0.0 for request in requests)
    took = [((r.finished_s or 0) - (r.first_token_s or 0)) / max(r.osl - 1, 1) for r in requests]
    kept = 1000 * np.array(took) <= sla.itl_ms
    work_due = pool_work(trace, timing, LIMITS, role, sla)  # type: ignore[arg-type]
    parts = work_due.work_s.reshape(-1, len(trace))
    work_s = parts[0].sum() if role == "prefill" else parts.sum(axis=0)[kept].sum()
    assert work_s <= end_s - first_s
    if role == "prefill" and end_s > 1.02 * trace.duration_s:  # it was busy all the time, with full steps
        assert work_s > 0.9 * (end_s - first_s)


def test_the_floor_of_a_linear_engine_is_itself() -> None:
    timing = LinearTiming(base_ms=5, prefill_ms_per_token=0.02, kv_ms_per_token=1e-4)
    floor = step_floor(timing, LIMITS, "aggregated", context=1000, itl_ms=8)
    assert floor == pytest.approx((5, 0.02, 0.0, 1e-4), rel=1e-6, abs=1e-9)
