"""What the metrics of a simulated cluster say, late and lost ones too."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.setup import MetricsSetup
from dynamo_planner.workloads.generators import poisson
from tests.support.clusters import aggregated, cluster, disaggregated, requests


def test_metrics_are_those_of_the_window() -> None:
    trace = requests(np.arange(0.25, 200, 0.5), [300] * 399 + [500], [21] * 400)
    made = cluster(disaggregated(1, 1, metrics=MetricsSetup(window_s=20, quantiles=(0.5, 0.99))), trace)
    for _ in range(10):
        made.advance(10)
        seen = made.source.observe(made.now_s)
    traffic = seen.traffic
    assert (traffic.window_s, traffic.observed_at_s, traffic.requests_per_s) == (20, 100, 2)
    assert traffic.isl is not None and (traffic.isl.mean, traffic.isl.count, traffic.isl.cv2) == (300, 40, 0)
    assert traffic.osl is not None and traffic.osl.mean == 21
    assert traffic.ttft_ms is not None and traffic.ttft_ms.mean == pytest.approx(50)
    assert traffic.itl_ms is not None and (traffic.itl_ms.mean, traffic.itl_ms.count) == pytest.approx((10, 40))
    assert traffic.token_gap_ms is not None and traffic.token_gap_ms.mean == pytest.approx(10)
    assert traffic.token_gap_ms.count == pytest.approx(40 * 21)
    assert traffic.ttft_ms.quantiles[0.99] == pytest.approx(50, rel=0.25)
    assert traffic.request_duration_s is not None and traffic.request_duration_s.mean == pytest.approx(0.25)
    assert traffic.arrival_dispersion == 0
    assert seen.pools["decode"].kv_capacity_tokens == 50_000


def test_late_lost_and_frozen_metrics() -> None:
    metrics = MetricsSetup(window_s=10, delay_s=20, missing_share=0.5, frozen=((100.0, 150.0),))
    made = cluster(aggregated(metrics=metrics), poisson(5, 300, seed=3), origin_s=1000.0)
    observations = []
    for _ in range(30):
        made.advance(10)
        observations.append(made.source.observe(made.now_s))
    assert observations[0].missing["traffic"]
    assert observations[5].traffic.observed_at_s == 1000 + 60 - 20
    assert observations[12].traffic.observed_at_s == observations[8].traffic.observed_at_s == 1000 + 90 - 20
    lost = ["workers" not in seen.pools for seen in observations]
    assert 5 < sum(lost) < 25


@pytest.mark.parametrize("compiled", [False, True])
def test_stage_times_are_those_of_the_requests(compiled: bool) -> None:
    """Two requests at once, of which the second waits for the prefill of the first, 50 ms, as a batch
    holds one. A transfer takes 100 ms, the first step of decode 10 ms, and two more tokens 20 ms."""
    setup = disaggregated(1, 1, kv_transfer_s=0.1, max_num_seqs=1, metrics=MetricsSetup(window_s=60))
    made = SimulatedCluster(setup, requests([1.0, 1.0], [400, 400], [3, 3]), compiled=compiled)
    made.source.observe(made.now_s)
    made.finish()
    pools = made.source.observe(made.now_s).pools
    prefill, decode = pools["prefill"].stages, pools["decode"].stages
    means = {name: dist.mean for name, dist in (*prefill, *decode) if dist is not None}
    assert prefill.queue_ms is not None and prefill.queue_ms.mean == pytest.approx(25)
    assert prefill.prefill_ms is not None and prefill.prefill_ms.mean == pytest.approx(50)
    assert (prefill.transfer_ms, prefill.first_token_ms, prefill.decode_ms) == (None, None, None)
    assert decode.first_token_ms is not None and decode.first_token_ms.mean == pytest.approx(110)
    assert (means["transfer_ms"], means["decode_ms"]) == pytest.approx((100, 20))
    served = made.served()
    assert served.ttft_ms.mean() == pytest.approx(25 + 50 + decode.first_token_ms.mean)


@pytest.mark.parametrize("compiled", [False, True])
def test_backlog_and_saturation(compiled: bool) -> None:
    """Two workers with a batch of one each. At 1.01 s the four prompts of 400 tokens are: two in their prefill, and one
    that waits at each; of the others one is held by no worker, since it is to be decoded first."""
    setup = aggregated(2, max_num_seqs=1, metrics=MetricsSetup(window_s=60, workers=True))
    made = SimulatedCluster(setup, requests([1.0] * 4, [400, 100, 300, 200], [200] * 4), compiled=compiled)
    made.source.observe(made.now_s)
    made.advance(1.01)
    (pool,) = made.source.observe(made.now_s).pools.values()
    assert (pool.queued, pool.queued_tokens, pool.asleep) == (2, 500, 0)
    assert sorted(worker.queued_tokens or 0 for worker in pool.workers) == [200, 300]
    assert pool.kv_usage_max == pytest.approx(400 / 50_000) and pool.kv_usage == pytest.approx(250 / 50_000)
    made.finish()
    (pool,) = made.source.observe(made.now_s).pools.values()
    assert (pool.queued_tokens, pool.kv_usage_max) == (0, 0)


@pytest.mark.parametrize("compiled", [False, True])
def test_preemptions_are_counted_in_the_pool_and_of_the_service(compiled: bool) -> None:
    """A cache of 1,000 tokens holds both prompts, and not what both generate: one is preempted, once."""
    setup = aggregated(1, kv_tokens=1000, metrics=MetricsSetup(window_s=60))
    made = SimulatedCluster(setup, requests([1.0, 1.0], [400, 400], [300, 300]), compiled=compiled)
    made.source.observe(made.now_s)
    made.finish()
    observation = made.source.observe(made.now_s)
    traffic, (pool,) = observation.traffic, observation.pools.values()
    assert traffic.window_s is not None and pool.traffic is not None
    assert pool.traffic.preemptions_per_s == traffic.preemptions_per_s == pytest.approx(1 / traffic.window_s)
    assert (traffic.rejected_per_s, traffic.aborted_per_s) == (0, 0)
