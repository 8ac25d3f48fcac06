"""A simulated cluster as its users see it: driven by a planner, billed, drained, crashed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dynamo_planner import LoadPolicy, Planner, PoolSpec, ScaleTo, Sla
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.setup import ClusterSetup, Faults, MetricsSetup, Outage, PoolSetup
from dynamo_planner.workloads.generators import poisson
from tests.support.clusters import TIMING, aggregated, cluster, disaggregated, one, requests, scale


def test_a_request_alone_takes_its_steps() -> None:
    made = cluster(aggregated(), one())
    made.finish()
    served = made.served()
    assert served.ttft_ms == pytest.approx([50])
    assert served.itl_ms == pytest.approx([10])
    assert served.finished_s == pytest.approx([1.07])
    assert served.attainment(Sla(ttft_ms=50.1, itl_ms=10.1)) == 1
    assert served.attainment(Sla(ttft_ms=49.9, itl_ms=10.1)) == 0
    assert made.over


def test_disaggregated_the_first_token_comes_from_decode_after_the_transfer() -> None:
    setup = disaggregated(kv_transfer_s=0.2, kv_transfer_s_per_token=0.001)
    made = cluster(setup, one())
    made.finish()
    assert made.served().ttft_ms == pytest.approx([50 + 200 + 400 + 10])
    assert made.served().itl_ms == pytest.approx([10])


def test_short_prompts_are_prefilled_where_they_decode() -> None:
    trace = requests([1.0, 10.0], [400, 401], [3, 3])
    made = cluster(disaggregated(max_local_prefill=400, kv_transfer_s=1.0), trace)
    made.finish()
    assert made.served().ttft_ms == pytest.approx([50, 50.1 + 1000 + 10])


def test_without_local_prefill_even_a_prompt_that_is_cached_whole_goes_to_prefill() -> None:
    """It comes to a prefill worker that does not have it: 400 tokens take 50 ms, the transfer 1 s, and the first step
    of decode 10 ms. At the decode worker, 50 ms would be all."""
    trace = requests([1.0], [400], [3], prefix_hit=np.array([400]))
    made = cluster(disaggregated(kv_transfer_s=1.0), trace)
    made.finish()
    assert made.served().ttft_ms == pytest.approx([50 + 1000 + 10])


def test_a_start_takes_its_time_and_is_billed_from_the_launch() -> None:
    made = cluster(aggregated(1), one())
    made.advance(10)
    scale(made, "workers", 3)
    assert made.executor.observe()["workers"].model_dump() == {  # type: ignore[union-attr]
        "ready": 1,
        "starting": 2,
        "starting_since_s": (10.0, 10.0),
        "failed": 0,
        "draining": 0,
        "target": 3,
    }
    made.advance_to(39.9)
    assert made.executor.observe()["workers"].ready == 1  # type: ignore[union-attr]
    made.advance_to(40)
    assert made.executor.observe()["workers"].ready == 3  # type: ignore[union-attr]
    assert made.gpu_seconds() == pytest.approx(2 * (40 + 30 + 30))
    scale(made, "workers", 1)
    made.advance(100)
    assert made.gpu_seconds() == pytest.approx(2 * (140 + 30 + 30))


def test_a_draining_worker_finishes_what_it_has_and_is_billed_until_then() -> None:
    made = cluster(aggregated(2, routing="round_robin"), requests([0.0, 0.0], [10, 10], [1001, 1001]))
    made.advance(1)
    scale(made, "workers", 1)
    made.advance(1)
    assert made.executor.observe()["workers"].draining == 1  # type: ignore[union-attr]
    made.finish()
    end_s = made.served().finished_s
    assert end_s == pytest.approx([10.011, 10.011])
    drained = made.workers[1]
    assert drained.end == "drained"
    assert drained.released_s == pytest.approx(10.011)


def test_a_cancelled_start_is_billed_for_what_it_used() -> None:
    made = cluster(aggregated(1), one())
    scale(made, "workers", 2)
    made.advance(12)
    scale(made, "workers", 1)
    made.advance(12)
    assert [(life.end, life.gpu_seconds(24)) for life in made.workers] == [("", 48), ("cancelled", 24)]


def test_launches_beyond_the_gpus_wait_for_them() -> None:
    made = cluster(aggregated(1, max_gpus=4), one())
    scale(made, "workers", 3)
    made.advance(100)
    seen = made.executor.observe()["workers"]
    assert seen is not None
    assert (seen.ready, seen.starting, seen.starting_since_s) == (2, 1, (0.0,))
    assert made.gpu_seconds() == 2 * 100 * 2


def test_requests_wait_in_front_of_a_pool_without_workers() -> None:
    made = cluster(aggregated(0), one())
    made.advance(5)
    assert made.source.observe(5).traffic.queued == 1
    scale(made, "workers", 1)
    made.advance(5)
    assert made.source.observe(10).traffic.queued == 1
    made.finish()
    assert made.served().ttft_ms == pytest.approx([34e3 + 50])


def test_one_that_never_fits_is_dropped_and_missed() -> None:
    made = cluster(aggregated(), requests([1.0, 2.0], [49_998, 49_998], [3, 4]))
    made.finish()
    assert made.served().dropped.tolist() == [False, True]
    assert made.served().attainment(Sla(ttft_ms=1e6, itl_ms=1e6)) == 0.5


def test_a_crash_sends_requests_back_with_the_tokens_that_they_have() -> None:
    setup = aggregated(1, faults=Faults(outages=(Outage(at_s=1.005, share=1.0),)))
    made = cluster(setup, requests([0.0], [10], [201]))
    made.finish()
    served = made.served()
    # 11 ms for the first token, then 99 more by 1.001 s; a new worker 30 s later computes all 110 anew: 21 ms
    assert served.ttft_ms == pytest.approx([11])
    assert served.finished_s == pytest.approx([1.005 + 30 + 0.021 + 1.0])
    assert served.retries.tolist() == [1]
    assert [life.end for life in made.workers] == ["crashed", ""]


def test_crashed_workers_are_replaced_and_nothing_is_lost() -> None:
    trace = poisson(5, 600, seed=1)
    made = cluster(disaggregated(3, 3, faults=Faults(crash_mtbf_s=120)), trace)
    made.finish()
    served = made.served()
    assert np.isfinite(served.finished_s).all()
    assert served.retries.sum() > 0
    assert sum(life.end == "crashed" for life in made.workers) > 10
    for pool in made.executor.observe().values():
        assert pool is not None and pool.ready + pool.starting == 3


def test_failed_launches_are_tried_again() -> None:
    made = cluster(aggregated(1, faults=Faults(launch_failure_share=0.7)), one(), seed=3)
    scale(made, "workers", 9)
    failed = 0
    for _ in range(400):
        made.advance(1)
        seen = made.executor.observe()["workers"]
        assert seen is not None and seen.ready + seen.starting + seen.failed == 9
        failed = max(failed, seen.failed)
    assert failed > 0
    assert seen is not None and seen.ready == 9
    assert sum(life.end == "failed" for life in made.workers) > 3


def test_stuck_starts_never_end() -> None:
    made = cluster(aggregated(1, faults=Faults(stuck_share=1.0)), one())
    scale(made, "workers", 2)
    made.advance(1e5)
    assert made.executor.observe()["workers"].starting == 1  # type: ignore[union-attr]


def test_start_ups_are_log_normal_with_the_mean_of_the_spec() -> None:
    made = cluster(aggregated(1, faults=Faults(startup_cv=0.3)), one())
    scale(made, "workers", 401)
    made.advance(1000)
    takes = np.array([life.ready_s - life.launched_s for life in made.workers[1:]])
    assert takes.mean() == pytest.approx(30, rel=0.05)
    assert takes.std() / takes.mean() == pytest.approx(0.3, rel=0.15)


def test_slow_workers_take_longer_for_each_step() -> None:
    made = cluster(aggregated(1, faults=Faults(slow_share=1.0, slowness=2.0)), one())
    made.finish()
    assert made.served().ttft_ms == pytest.approx([100])


@pytest.mark.parametrize("setup", [aggregated(), disaggregated()])
def test_a_planner_drives_it_unchanged(setup: ClusterSetup) -> None:
    made = cluster(setup, poisson(10, 300, seed=2), origin_s=1.7e9)
    policy = LoadPolicy(adjustment_interval_s=30, prefill_queue_up=0.5, decode_kv_up=0.1, decode_kv_down=0.05)
    planner = Planner(policy, made.source, made.executor, clock=lambda: made.now_s)
    while not made.over:
        made.advance(5)
        step = planner.step()
        assert step.at_s == made.now_s
        assert not any(outcome.status == "failed" for outcome in step.outcomes)
    assert step.snapshot.pools.keys() == setup.pools.keys()
    assert len(made.workers) > sum(pool.replicas for pool in setup.pools.values())
    assert np.isfinite(made.served().finished_s).all()
    assert math.fsum(life.gpu_seconds(made.elapsed_s) for life in made.workers) == pytest.approx(made.gpu_seconds())


def test_prefix_hits_are_where_the_prefix_was() -> None:
    trace = requests(np.arange(1.0, 401.0), [1000] * 400, [2] * 400, prefix_hit=np.full(400, 900))
    for routing, share in (("hash", 0.9), ("round_robin", 0.9 / 4)):
        made = cluster(aggregated(4, routing=routing, metrics=MetricsSetup(window_s=1000)), trace)
        made.finish()
        assert made.source.observe(0).traffic.prefix_hit_rate == pytest.approx(share, abs=0.05)
        hit = made.served().ttft_ms < 50
        assert hit.mean() == pytest.approx(share / 0.9, abs=0.05)


def test_setups_that_make_no_sense_are_refused() -> None:
    pool = PoolSetup(spec=PoolSpec(role="prefill"), replicas=1, timing=TIMING)
    with pytest.raises(ValueError, match="one aggregated pool, or one prefill and one decode"):
        ClusterSetup(pools={"prefill": pool})
    made = cluster(aggregated(), one())
    made.advance(5)
    with pytest.raises(ValueError, match="time only goes forward"):
        made.advance_to(4)
    assert made.executor.apply([ScaleTo(pool="gone", replicas=1)])[0].status == "failed"
    assert made.executor.apply([ScaleTo(pool="workers", replicas=1, expected=7)])[0].status == "refused"
    assert made.executor.apply([ScaleTo(pool="workers", replicas=2)])[0].status == "unchanged"


@pytest.mark.slow
@pytest.mark.timeout(900)  # compiling takes a while on a busy machine
def test_the_compiled_rules_give_the_same_results() -> None:
    pytest.importorskip("numba", reason="the extra fast is not installed")
    faults = Faults(crash_mtbf_s=300, slow_share=0.3, startup_cv=0.3)
    trace = poisson(30, 120, seed=4)
    for setup in (
        aggregated(2, faults=faults, kv_tokens=20_000, max_num_seqs=32),
        disaggregated(2, 2, faults=faults, kv_tokens=20_000, routing="hash", kv_transfer_s=0.01),
        disaggregated(2, 2, routing="pull"),
    ):
        results = []
        for compiled in (False, True):
            made = SimulatedCluster(setup, trace, seed=5, compiled=compiled)
            policy = LoadPolicy(adjustment_interval_s=15, prefill_queue_up=0.5, decode_kv_up=0.5, decode_kv_down=0.2)
            planner = Planner(policy, made.source, made.executor, clock=lambda: made.now_s)  # noqa: B023
            snapshots = []
            while not made.over:
                made.advance(5)
                snapshots.append(planner.step().snapshot)
            results.append(
                (made.served(), made.gpu_seconds(), snapshots, [made.preemptions(pool) for pool in setup.pools])
            )
        objects, records = results
        for column in ("ttft_ms", "itl_ms", "finished_s", "preemptions", "retries"):
            assert np.array_equal(getattr(objects[0], column), getattr(records[0], column), equal_nan=True)
        assert objects[1:] == records[1:]
