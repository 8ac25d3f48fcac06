"""Knobs of a simulated cluster: workers are replaced one after the other, and capacity stays."""

from __future__ import annotations

import numpy as np
import pytest

from dynamo_planner import LoadPolicy, Planner, ScaleTo, SetKnob
from dynamo_planner.simulator.cluster import SimulatedCluster
from dynamo_planner.workloads.generators import poisson
from tests.support.clusters import aggregated, cluster, requests


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
