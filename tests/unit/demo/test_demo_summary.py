"""The numbers of a run, worked out by hand from ten requests and a staircase of workers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dynamo_planner import Replicas, Sla
from dynamo_planner.demo.record import Move, Recording, RequestRecord, Sample
from dynamo_planner.demo.summary import Summary, summarize

SLA = Sla(ttft_ms=500, itl_ms=30)
DUE_S = tuple(float(second) for second in range(10))


def answered(due_s: float, ttft_ms: float, itl_ms: float | None) -> RequestRecord:
    return RequestRecord(due_s=due_s, done_s=due_s + 3, tokens=20, ttft_ms=ttft_ms, itl_ms=itl_ms)


def staircase(*steps: tuple[float, Replicas]) -> list[Sample]:
    return [Sample(at_s=at_s, pools={"workers": replicas}, in_flight=0, held=0) for at_s, replicas in steps]


@pytest.fixture
def recording() -> Recording:
    """Ten requests: six within the SLA (one at its very edge, one of a single token), two too late with their first
    token, one too slow between tokens, one lost after its first token."""
    requests = [answered(due_s, 100 + 10 * due_s, 20) for due_s in DUE_S[:4]]
    requests += [answered(4, 500, 30), answered(5, 200, None), answered(6, 501, 20), answered(7, 900, 20)]
    requests += [answered(8, 100, 30.5), replace(answered(9, 100, None), lost="the connection broke")]
    return Recording(
        title="ten requests",
        sla=SLA,
        due_s=DUE_S,
        requests=requests,
        samples=staircase(
            (-2, Replicas(ready=1)),
            (3, Replicas(ready=1, starting=1)),
            (5, Replicas(ready=2)),
            (10, Replicas(ready=1, draining=1)),
            (14, Replicas(ready=1)),
            (18, Replicas(ready=1)),
        ),
        moves=[Move(3, "workers", 1, 2, "busy"), Move(10, "workers", 2, 1, "idle")],
    )


def test_requests_and_latencies(recording: Recording) -> None:
    summary = summarize(recording, wall_s=25)
    assert (summary.requests, summary.lost) == (10, 1)
    assert summary.attainment == 6 / 10  # a lost request is missed, and stays in the count
    assert summary.lost_because == (("the connection broke", 1),)
    # numpy's percentile, over all ten first tokens, and over the eight requests that have an ITL
    assert summary.ttft_ms.p50 == np.percentile([100, 110, 120, 130, 500, 200, 501, 900, 100, 100], 50) == 125
    assert summary.itl_ms.p50 == 20
    assert summary.itl_ms.p99 == pytest.approx(30 + 0.93 * 0.5)  # 0.99 * 7 = 6.93: between the 7th and the 8th


def test_worker_seconds_count_whatever_is_there(recording: Recording) -> None:
    pool = summarize(recording).pools["workers"]
    assert pool.worker_s == 5 * 1 + 2 * 2 + 5 * 2 + 4 * 2 + 4 * 1
    assert pool.static_peak_s == 2 * 20
    assert (pool.scale_ups, pool.scale_downs) == (1, 1)
    assert (pool.lowest, pool.peak, pool.last) == (1, 2, 1)
    assert pool.went_up_and_down


def test_a_lost_request_fails_the_run_and_says_why(recording: Recording) -> None:
    assert summarize(recording).failures == ("1 of 10 requests were lost: 1 x the connection broke",)


def test_requests_without_an_answer_are_lost(recording: Recording) -> None:
    recording.requests[7:] = []
    summary = summarize(recording)
    assert summary.lost == 3
    assert summary.failures == ("3 of 10 requests were lost: 3 x not answered when the run ended",)


@pytest.mark.parametrize(
    ("counts", "seen"),
    [((1, 1, 1), "workers: 1 to 1, 1 at the end"), ((1, 2, 2), "1 to 2, 2 at the end"), ((2, 1, 1), "2 to 2, 1")],
    ids=["never moved", "never came down", "never went up"],
)
def test_a_run_must_scale_up_and_down_again(recording: Recording, counts: tuple[int, ...], seen: str) -> None:
    recording.requests[9] = answered(9, 100, 20)
    recording.samples = staircase(*((float(at_s), Replicas(ready=ready)) for at_s, ready in enumerate(counts)))
    (failure,) = summarize(recording).failures
    assert failure.startswith("the workers never scaled up and down again")
    assert seen in failure


def test_nothing_recorded_is_a_failure_and_no_crash() -> None:
    summary = summarize(Recording(title="nothing", sla=SLA, due_s=()))
    assert summary.attainment is None
    assert len(summary.failures) == 2


def test_the_summary_survives_json(recording: Recording, tmp_path: Path) -> None:
    summary = summarize(recording)
    assert Summary.model_validate_json(summary.model_dump_json()) == summary
    assert json.loads(summary.model_dump_json())["pools"]["workers"]["peak"] == 2
