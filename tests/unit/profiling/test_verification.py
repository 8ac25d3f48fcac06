"""Whether a profile predicts its engine: the same requests in the simulator, and what differs."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner.profiles import Profile
from dynamo_planner.profiling.engine import Burst, Limits, ProfilingError, Prompt
from dynamo_planner.profiling.simulated import SimulatedEngine
from dynamo_planner.profiling.verification import Comparison, drawn_load, verify
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming

LIMITS = Limits(max_num_seqs=4, max_num_batched_tokens=2000, kv_tokens=8000, max_context=2000)
BATCH = EngineLimits(max_num_seqs=4, max_num_batched_tokens=2000, kv_tokens=8000)


def law(factor: float = 1.0) -> LinearTiming:
    return LinearTiming(base_ms=10 * factor, prefill_ms_per_token=0.05 * factor, kv_ms_per_token=0)


@pytest.fixture(scope="module")
def profile() -> Profile:
    """Of an engine of 10 ms a step and 0.05 ms a prompt token, whose answers are 20 ms on the way."""
    isl, batches = np.array([16, 100, 500, 1000, 2000]), np.array([1, 2, 4, 1, 2, 4])
    exact = Profile.from_points(
        isl=isl,
        ttft_ms=10 + 0.05 * isl,
        max_kv_tokens=8000,
        batch=batches,
        context=[500] * 3 + [2000] * 3,
        itl_ms=[10] * 6,
    )
    return exact.replace(about={"offset_ms": 20.0})


def of(rows: list[Comparison]) -> dict[str, Comparison]:
    return {row.what: row for row in rows if row.quantile == 0.5}


def test_a_load_takes_its_times() -> None:
    engine = SimulatedEngine(law(), BATCH, offset_s=0.02)
    first, second = engine.run(Burst((Prompt(1000, 11), Prompt(200, 1)), at_s=(0.0, 5.0))).together
    assert (first.first_s, first.last_s) == pytest.approx((0.08, 0.18))
    assert (second.sent_s, second.ttft_ms) == pytest.approx((5.0, 40.0))


def test_the_engine_that_was_measured_is_predicted(profile: Profile) -> None:
    load = drawn_load(profile, LIMITS, seconds=30)
    rows = verify(SimulatedEngine(law(), BATCH, offset_s=0.02), profile, LIMITS, load)
    assert {row.what for row in rows} == {"TTFT alone", "ITL alone", "TTFT under load", "ITL under load"}
    assert all(row.ratio == pytest.approx(1, abs=0.03) for row in rows)
    assert of(rows)["ITL alone"].measured_ms == pytest.approx(10)


def test_an_engine_that_refuses_requests_is_told_and_not_compared(profile: Profile) -> None:
    load = drawn_load(profile, LIMITS, seconds=30)
    small = EngineLimits(max_num_seqs=4, max_num_batched_tokens=2000, kv_tokens=100)
    with pytest.raises(ProfilingError, match=r"1 of \d requests alone failed; the first: .*KV cache"):
        verify(SimulatedEngine(law(), small, offset_s=0.02), profile, LIMITS, load)


def test_an_engine_that_became_slower_shows_alone_and_one_with_fewer_places_under_load(profile: Profile) -> None:
    load = drawn_load(profile, LIMITS, seconds=30)
    slower = of(verify(SimulatedEngine(law(1.5), BATCH, offset_s=0.03), profile, LIMITS, load))
    assert slower["TTFT alone"].ratio == pytest.approx(1 / 1.5, abs=0.02)
    assert slower["ITL alone"].ratio == pytest.approx(1 / 1.5, abs=0.02)
    one = EngineLimits(max_num_seqs=1, max_num_batched_tokens=2000, kv_tokens=8000)
    fewer = of(verify(SimulatedEngine(law(), one, offset_s=0.02), profile, LIMITS, load))
    assert fewer["TTFT alone"].ratio == pytest.approx(1, abs=0.02)
    assert fewer["TTFT under load"].ratio < 0.5
