"""Scores of runs, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner import Profile, Sla
from dynamo_planner.evaluation.score import score
from dynamo_planner.evaluation.work_floor import unattainable
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.simulator.results import Served
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.trace import Trace

SLA = Sla(ttft_ms=500, itl_ms=25, attainment=0.9)
NAN = float("nan")


def served(arrival_s: list[float], ttft_ms: list[float], itl_ms: list[float] | None = None) -> Served:
    count = len(arrival_s)
    ttft, itl = np.array(ttft_ms, float), np.array(itl_ms or [20.0] * count, float)
    itl[np.isnan(ttft)] = NAN
    return Served(
        arrival_s=np.array(arrival_s, float),
        isl=np.ones(count, np.int64),
        osl=np.ones(count, np.int64),
        ttft_ms=ttft,
        itl_ms=itl,
        scheduled_s=np.zeros(len(arrival_s)),
        place=np.zeros(len(arrival_s), int),
        finished_s=np.array(arrival_s) + ttft / 1000,
        dropped=np.zeros(count, bool),
        preemptions=np.zeros(count, np.int64),
        retries=np.zeros(count, np.int64),
    )


def test_each_target_and_both() -> None:
    run = served([0, 1, 2, 3], [100, 900, 200, NAN], [20, 20, 30, NAN])
    result = score(run, SLA, gpu_s=1800, starts=2, duration_s=60)
    assert (result.requests, result.unfinished, result.starts) == (4, 1, 2)
    assert (result.attainment, result.ttft_attainment, result.itl_attainment) == (0.25, 0.5, 0.5)
    assert (result.gpu_hours, result.goodput_per_gpu_hour) == (0.5, 2.0)
    assert result.ttft_ms[0.5] == 200


def test_requests_without_a_chance_are_counted_apart() -> None:
    run = served([0, 1, 2, 3], [100, 900, 200, 300])
    result = score(run, SLA, gpu_s=0, starts=0, duration_s=60, unattainable=np.array([False, True, False, False]))
    assert (result.attainment, result.attainment_possible, result.unattainable) == (0.75, 1.0, 1)
    assert result.goodput_per_gpu_hour is None


def test_minutes_in_violation_the_worst_five_and_recovery() -> None:
    # ten minutes, two requests each; in minutes 2 to 4 all miss, in minute 7 one of two; none come in minute 9
    arrivals = [60.0 * minute + second for minute in range(9) for second in (1, 2)]
    ttft = [900.0 if minute in {2, 3, 4} or (minute == 7 and n) else 100.0 for minute in range(9) for n in (0, 1)]
    result = score(served(arrivals, ttft), SLA, gpu_s=1, starts=0, duration_s=600)
    assert result.violation_share == pytest.approx(4 / 9)
    assert result.worst_5_min == pytest.approx(4 / 10)
    assert result.recovery_s == 180


def test_no_request_at_all_misses_nothing() -> None:
    result = score(served([], []), SLA, gpu_s=1, starts=0, duration_s=600)
    assert (result.attainment, result.violation_share, result.worst_5_min, result.ttft_ms) == (1.0, 0.0, 1.0, {})


def test_a_prompt_is_unattainable_where_it_takes_longer_than_the_target_by_itself() -> None:
    # 10 ms and 0.1 ms a token, in steps of 2048: 4000 tokens take 20 + 400 ms, 5000 take 30 + 500 ms
    timing = LinearTiming(base_ms=10, prefill_ms_per_token=0.1, kv_ms_per_token=0)
    at_s, isl, osl = np.arange(3.0), np.array([100, 4000, 5000]), np.full(3, 5)
    trace = Trace(at_s, isl, osl)
    for cluster in (ClusterSetup.aggregated(timing, 1), ClusterSetup.disaggregated(timing, 1, 1)):
        assert unattainable(trace, cluster, SLA).tolist() == [False, False, True]
    far = ClusterSetup.disaggregated(timing, 1, 1, kv_transfer_s=0.1)
    assert unattainable(trace, far, SLA).tolist() == [False, True, True]
    cached = Trace(at_s, isl, osl, np.array([0, 0, 4990]))
    assert not unattainable(cached, ClusterSetup.aggregated(timing, 1), SLA).any()
    slow = ClusterSetup.disaggregated(Profile.bundled("llama31-8b_h100_vllm_tp1"), 1, 1)
    assert unattainable(trace, slow, Sla(ttft_ms=1, itl_ms=25)).all()
