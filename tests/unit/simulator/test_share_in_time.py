"""The share in time that a simulated cluster shows is that of the requests it served, and its buckets bound it."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner import Sla
from dynamo_planner.core.in_time import served_in_time
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.simulator.setup import ClusterSetup, MetricsSetup
from dynamo_planner.workloads.generators import LogNormalLengths, poisson
from dynamo_planner.workloads.trace import Trace

TIMING = LinearTiming(base_ms=8, prefill_ms_per_token=0.1, kv_ms_per_token=2e-4)
SLA = Sla(ttft_ms=700, itl_ms=24)


def served_to_the_end(rate: float, compiled: bool, sla: Sla | None = SLA, dropped: int = 0) -> SimulatedCluster:
    """A trace of a minute, and requests that no worker can hold; observed once at its beginning, and at its end."""
    lengths = LogNormalLengths(median=300, mean=400, maximum=2000)
    made = poisson(rate, 60, 11, lengths, lengths.scaled(0.2))
    isl = np.where(np.arange(len(made)) < dropped, 50_000, made.isl)
    trace = Trace(made.arrival_s, isl, np.maximum(made.osl, 2), None, made.name, made.duration_s)
    metrics = MetricsSetup(window_s=10_000, sla=sla)
    setup = ClusterSetup.aggregated(TIMING, 2, kv_tokens=20_000, max_num_seqs=32, metrics=metrics)
    cluster = SimulatedCluster(setup, trace, compiled=compiled)
    cluster.source.observe(cluster.now_s)
    cluster.finish()
    return cluster


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("rate", "dropped"), [(4.0, 0), (14.0, 0), (14.0, 20), (24.0, 0)])
def test_all_requests_of_a_trace(rate: float, dropped: int, compiled: bool) -> None:
    cluster = served_to_the_end(rate, compiled, dropped=dropped)
    traffic, truth = cluster.source.observe(cluster.now_s).traffic, cluster.served().attainment(SLA)
    assert traffic.in_time is not None
    assert traffic.in_time.share == pytest.approx(truth)
    kept = cluster.served()
    attainable = float(kept.meets(SLA)[~kept.dropped].mean())
    bounds = served_in_time(traffic.replace(in_time=None), SLA)
    assert bounds is not None
    assert bounds.lower - 2e-6 <= attainable <= bounds.upper + 2e-6
    assert bounds.upper - bounds.lower < 0.35, "buckets a quarter apart say little"


def test_without_targets_there_are_buckets_and_no_exact_share() -> None:
    traffic = (cluster := served_to_the_end(14.0, compiled=False, sla=None)).source.observe(cluster.now_s).traffic
    assert traffic.in_time is None
    served = cluster.served()
    for dist, values, target in ((traffic.ttft_ms, served.ttft_ms, 700), (traffic.itl_ms, served.itl_ms, 24)):
        assert dist is not None
        share = dist.share_within(target)
        assert share is not None
        assert share.lower - 2e-6 <= float((values <= target).mean()) <= share.upper + 2e-6
