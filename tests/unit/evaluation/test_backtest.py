"""Backtests: the loop of production on simulated time, the report, and the yardstick."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dynamo_planner import LoadPolicy, Policy, Sla, Snapshot, StaticLaw, Traffic
from dynamo_planner.core.policy import PlainFunction
from dynamo_planner.evaluation.backtest import backtest, run_policy
from dynamo_planner.evaluation.lower_bound import LowerBound
from dynamo_planner.evaluation.oracle import bound, oracle
from dynamo_planner.evaluation.report import Report
from dynamo_planner.evaluation.report_plot import plot_pareto
from dynamo_planner.simulator.setup import ClusterSetup
from dynamo_planner.workloads.from_history import trace_of
from dynamo_planner.workloads.generators import poisson
from dynamo_planner.workloads.trace import TraceError
from tests.support.backtests import CLUSTER, POLICIES, SLA, TIMING, TRACE


@pytest.fixture(scope="module")
def report() -> Report:
    return backtest(POLICIES, TRACE, CLUSTER, sla=SLA, processes=1)


def test_a_report_says_of_each_policy_what_it_attained_and_what_it_cost(report: Report) -> None:
    two, six, hpa = (report[name].score for name in ("two", "six", "hpa"))
    assert list(report.runs) == list(POLICIES)
    assert two.attainment < hpa.attainment < 1.001
    assert six.attainment > 0.95 > two.attainment
    assert two.gpu_hours == pytest.approx(4 * TRACE.duration_s / 3600, rel=1e-6)
    assert two.gpu_hours < hpa.gpu_hours < six.gpu_hours
    # decided first after 10 s: four of each are launched then
    assert six.gpu_hours == pytest.approx((12 * TRACE.duration_s - 8 * 10) / 3600, rel=1e-6)
    assert (two.starts, six.starts) == (0, 8)
    for run in report.runs.values():
        billed_s = sum(worker.gpu_seconds(TRACE.duration_s) for worker in run.workers)
        assert run.score.gpu_hours == pytest.approx(billed_s / 3600, rel=1e-9)
        assert len(run.served) == len(TRACE)


def test_a_lambda_runs_in_this_process() -> None:
    policies: dict[str, Policy | PlainFunction] = {"ask": lambda snapshot: {"decode": 3}, "load": LoadPolicy()}
    mixed = backtest(policies, TRACE.between(0, 60), CLUSTER, sla=SLA, processes=2)
    assert mixed["ask"].score.starts == 1


def test_the_decisions_of_a_minute_are_told_with_their_reasons(report: Report) -> None:
    run = report["hpa"]
    at_s = run.worst().at_s
    assert at_s % 60 == 0
    told = run.explain(60, 120)
    assert "HpaMetric" in told and "prefill" in told
    assert all(decision.state is None for decision in run.decisions)
    assert run.explain(1e6, 2e6) == "nothing new was decided from 1000000 s to 2000000 s"


@pytest.mark.slow
def test_table_json_picture_and_page(report: Report, tmp_path: Path) -> None:
    table = report.table().splitlines()
    assert len(table) == 2 + len(POLICIES) and "GPU-hours" in table[0]
    data = json.loads(json.dumps(report.as_data()))
    assert data["scores"]["two"]["gpu_hours"] == pytest.approx(report["two"].score.gpu_hours)
    figure = report.plot(["two", "hpa"])
    assert len(figure.axes) == 2 * 6
    report.save(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<svg" in page and "worst minute" in page
    assert "Content-Security-Policy\" content=\"default-src 'none';" in page and " src=" not in page
    curve = {"static": {float(k): report[name].score for k, name in enumerate(("two", "six"))}}
    assert plot_pareto(curve, SLA, feasible=0.5).axes[0].get_xscale() == "log"


def test_what_cannot_be_run_is_refused() -> None:
    with pytest.raises(ValueError, match="policies: there are none"):
        backtest({}, TRACE, CLUSTER, sla=SLA)
    with pytest.raises(ValueError, match="interval_s must be a positive number of seconds, got 0"):
        backtest(POLICIES, TRACE, CLUSTER, sla=SLA, interval_s=0)


def test_nobody_gets_below_the_bound_and_the_schedule_does_what_it_says() -> None:
    best = oracle(TRACE, CLUSTER, SLA, budget=60)
    assert best.bound_gpu_hours is not None and best.feasible_gpu_hours is not None and best.gap is not None
    assert 1.0 <= best.gap < 2.5
    assert best.attainment is not None and best.attainment >= SLA.attainment
    assert best.schedule is not None and best.evaluations <= 60
    run = run_policy("schedule", best.schedule, trace=TRACE, cluster=CLUSTER, sla=SLA)
    assert run.score.gpu_hours == pytest.approx(best.feasible_gpu_hours)
    assert run.score.attainment_possible == pytest.approx(best.attainment)
    for prefill in (2, 3, 4, 6):
        policy = StaticLaw(replicas={"prefill": prefill, "decode": 2})
        score = run_policy("static", policy, trace=TRACE, cluster=CLUSTER, sla=SLA).score
        if (score.attainment_possible or 0) >= SLA.attainment:
            assert score.gpu_hours >= best.feasible_gpu_hours
            assert score.gpu_hours >= best.bound_gpu_hours


def test_the_yardstick_of_an_aggregated_cluster() -> None:
    cluster = ClusterSetup.aggregated(TIMING, 3, startup_s=20, max_replicas=8, kv_tokens=100_000)
    best = oracle(TRACE.between(0, 150), cluster, SLA, budget=30)
    assert best.gap is not None and 1.0 <= best.gap < 3.0


def test_where_nothing_is_good_enough_there_is_no_yardstick() -> None:
    cluster = ClusterSetup.disaggregated(TIMING, prefill=1, decode=1, max_replicas=1, kv_tokens=100_000)
    trace = poisson(20, 60, seed=1)
    assert bound(trace, cluster, SLA) is None
    best = oracle(trace, cluster, SLA, budget=5)
    assert (best.bound_gpu_hours, best.feasible_gpu_hours, best.schedule, best.gap) == (None, None, None, None)
    assert bound(trace, cluster, Sla(ttft_ms=1, itl_ms=1)) is None  # no prompt has a chance


def test_what_local_prefill_may_take_over_is_not_in_the_bound_of_prefill() -> None:
    def replica_s(cluster: ClusterSetup) -> float:
        found = bound(TRACE, cluster, SLA)
        assert found is not None
        part: LowerBound = found["prefill"]
        return part.replica_s

    local = CLUSTER.replace(max_local_prefill=1000)
    assert replica_s(local) < replica_s(CLUSTER)


def test_a_trace_out_of_what_was_measured() -> None:
    traffic = [Traffic(requests_per_s=rate, isl=800, osl=100) for rate in (5, 5, None, 20)]
    seen = [Snapshot(at_s=1000 + 60 * n, traffic=each) for n, each in enumerate(traffic)]
    trace = trace_of(seen, seed=1)
    counts = np.histogram(trace.arrival_s, [0, 60, 120, 180])[0]
    assert counts.tolist() == [300, 0, 1200]
    assert trace.isl.mean() == pytest.approx(800, rel=0.1)
    assert trace.osl.var() / trace.osl.mean() ** 2 == pytest.approx(1.0, rel=0.4)
    for few, message in (
        (seen[:1], "1 snapshots; at least two"),
        ([Snapshot(at_s=0), Snapshot(at_s=1)], "traffic.isl"),
    ):
        with pytest.raises(TraceError, match=message):
            trace_of(few, seed=1)
