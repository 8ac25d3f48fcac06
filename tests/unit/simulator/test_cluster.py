"""A simulated cluster as its users see it: driven by a planner, billed, drained, crashed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dynamo_planner import LoadPolicy, Planner, PoolSpec, ScaleTo, SetKnob, Sla
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.simulator.engine.step_time import LinearTiming
from dynamo_planner.simulator.setup import ClusterSetup, Faults, MetricsSetup, Outage, PoolSetup
from dynamo_planner.workloads.generators import poisson
from dynamo_planner.workloads.trace import Trace

TIMING = LinearTiming(base_ms=10, prefill_ms_per_token=0.1, kv_ms_per_token=0)
OPTIONS: dict[str, Any] = {"startup_s": 30.0, "gpus": 2, "kv_tokens": 50_000}


def aggregated(replicas: int = 2, **options: Any) -> ClusterSetup:
    return ClusterSetup.aggregated(TIMING, replicas, **{**OPTIONS, **options})


def disaggregated(prefill: int = 2, decode: int = 2, **options: Any) -> ClusterSetup:
    return ClusterSetup.disaggregated(TIMING, prefill, decode, **{**OPTIONS, **options})


def cluster(setup: ClusterSetup, trace: Trace, **options: Any) -> SimulatedCluster:
    return SimulatedCluster(setup, trace, compiled=False, **options)


def requests(arrival_s: Any, isl: list[int], osl: list[int], **more: Any) -> Trace:
    return Trace(np.asarray(arrival_s, float), np.asarray(isl), np.asarray(osl), **more)


def one(isl: int = 400, osl: int = 3, at_s: float = 1.0) -> Trace:
    return requests([at_s], [isl], [osl])


def scale(made: SimulatedCluster, pool: str, replicas: int) -> None:
    (outcome,) = made.executor.apply([ScaleTo(pool=pool, replicas=replicas)])
    assert outcome.status == "applied"


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


def test_knobs_act_and_say_when_they_cannot() -> None:
    trace = requests([0.0, 0.0, 50.0, 50.0], [100] * 4, [100] * 4)
    made = cluster(aggregated(1, live_knobs=True), trace)
    made.advance(40)
    knob = SetKnob(knob="max_num_seqs", value=1, pool="workers", expected=256)
    assert [made.executor.apply([knob])[0].status for _ in range(2)] == ["applied", "refused"]
    made.finish()
    ttft = made.served().ttft_ms
    assert ttft[:2] == pytest.approx([30, 30])
    assert ttft[2:] == pytest.approx([20, 20 + 990 + 20])
    wrong = SetKnob(knob="max_num_batched_tokens", value=0, pool="workers")
    assert made.executor.apply([wrong])[0].status == "failed"
    assert made.executor.apply([SetKnob(knob="colour", value="red", pool="workers")])[0].status == "failed"
    assert made.executor.apply([SetKnob(knob="max_local_prefill_length", value=100)])[0].status == "applied"
    seen = Planner(LoadPolicy(), made.source, made.executor, clock=lambda: made.now_s).step().snapshot
    assert dict(seen.knobs) == {"max_local_prefill_length": 100}
    assert dict(seen.pools["workers"].knobs) == {"max_num_seqs": 1, "max_num_batched_tokens": 2048}


def turn(made: SimulatedCluster, value: int) -> None:
    knob = SetKnob(knob="max_num_seqs", value=value, pool="workers")
    assert made.executor.apply([knob])[0].status == "applied"
    assert made.executor.knobs["workers"]["max_num_seqs"] == value


def replica_changes(made: SimulatedCluster) -> list[tuple[float, int, int]]:
    """When the replicas changed, and how many were ready and starting from then on."""
    last = {count.at_s: (count.ready, count.starting) for count in made.timeline}
    return [(at_s, *counts) for at_s, counts in last.items()]


def test_a_knob_replaces_one_worker_after_the_other_and_capacity_stays() -> None:
    made = cluster(aggregated(2, startup_s=60), poisson(1, 400, seed=1))
    made.advance(10)
    turn(made, 8)
    made.finish()
    assert replica_changes(made)[:2] == [(0, 2, 0), (10, 2, 1)]
    assert min(ready for _, ready, _ in replica_changes(made)) == 2
    assert max(ready + starting for _, ready, starting in replica_changes(made)) == 3
    assert [worker.end for worker in made.workers] == ["drained", "drained", "", ""]
    assert made.served().retries.sum() == 0
    assert np.isfinite(made.served().finished_s).all()
    assert [round(worker.launched_s) for worker in made.workers][:3] == [0, 0, 10]


def test_a_knob_set_back_keeps_the_workers_that_still_have_its_value() -> None:
    made = cluster(aggregated(2, startup_s=60), poisson(1, 600, seed=1))
    made.advance(10)
    turn(made, 8)
    made.advance_to(80)
    turn(made, 256)
    made.finish()
    assert [worker.end for worker in made.workers[:3]] == ["drained", "", "drained"]
    assert np.isfinite(made.served().finished_s).all()


def test_without_a_free_gpu_a_worker_goes_before_its_successor_comes() -> None:
    made = cluster(aggregated(2, startup_s=60, gpus=1, max_gpus=2), poisson(1, 400, seed=1))
    turn(made, 8)
    made.finish()
    assert min(ready for _, ready, _ in replica_changes(made)) == 1
    assert [worker.end for worker in made.workers] == ["drained", "drained", "", ""]
    assert np.isfinite(made.served().finished_s).all()


def test_an_only_worker_without_a_free_gpu_is_left_alone() -> None:
    made = cluster(aggregated(1, gpus=1, max_gpus=1), poisson(1, 100, seed=1))
    turn(made, 8)
    made.finish()
    assert len(made.workers) == 1


def test_scaling_while_workers_are_replaced() -> None:
    made = cluster(aggregated(4, startup_s=60), poisson(1, 900, seed=1))
    turn(made, 8)
    for at_s, replicas in ((30, 3), (100, 5), (150, 2)):
        made.advance_to(at_s)
        made.executor.apply([ScaleTo(pool="workers", replicas=replicas)])
    made.finish()
    assert replica_changes(made)[-1][1:] == (2, 0)
    assert [worker.end for worker in made.workers[:4]] == ["drained"] * 4
    assert np.isfinite(made.served().finished_s).all()


def test_a_wider_batch_than_at_the_start() -> None:
    trace = requests([0.0] * 20, [10] * 20, [50] * 20)
    made = cluster(aggregated(1, max_num_seqs=2, max_num_batched_tokens=40, live_knobs=True), trace)
    made.advance(0.02)
    for name, value in (("max_num_batched_tokens", 400), ("max_num_seqs", 20)):
        assert made.executor.apply([SetKnob(knob=name, value=value, pool="workers")])[0].status == "applied"
    made.finish()
    assert made.served().finished_s.max() < 1.0


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
