"""Measured saturation beats the model: what a full pool shows, by hand, and what SlaPolicy makes of it."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo_planner import Dist, PoolSpec, PoolStatus, Replicas, Snapshot, Traffic
from dynamo_planner.policies.sla.lengths import ObservedLengths, learned
from dynamo_planner.policies.sla.saturation import (
    Backlog,
    Crowd,
    Saturated,
    backlog_of,
    crowd_of,
    part_that_comes,
    saturated,
    with_crowd,
)
from dynamo_planner.policies.sla.tick import Engine, Tick
from tests.support.sla_service import Service


def found(before: float, running: float, queued: float, *, ready: int = 1, **pool: Any) -> Saturated | None:
    """What a pool asks for to which 8 requests/s come, with so many requests 30 s ago; a start takes 90 s."""
    status = PoolStatus(spec=PoolSpec(role="decode"), replicas=ready, queued=queued, running=running, **pool)
    traffic = Traffic(window_s=30, requests_per_s=8)
    snapshot = Snapshot(at_s=30, traffic=traffic, pools={"decode": status})
    tick = Tick("decode", status, Replicas(ready=ready), snapshot, 1.0, Engine(), 90.0)
    waited = before / 2
    return saturated(tick, (Crowd(0.0, ready, before, waited),), crowd_of(tick, queued), 30.0)


def test_a_full_cache_asks_for_room_for_all_that_come_until_a_start_is_ready() -> None:
    """10 requests/s stay, more than come: (310 + 8 * 90) / 230 = 4.5."""
    full = found(10, 230, 80, kv_usage=1.0)
    assert full is not None
    assert full.replicas == 5
    assert full.message == "KV usage is 100%, with 80 of 310 requests waiting, 10 more each second"


def test_where_requests_leave_again_soon_keeping_up_is_enough() -> None:
    """5 of 8 requests/s leave: (8 + 60 / 60) / 5 = 1.8, and not (290 + 3 * 90) / 230 = 2.4."""
    full = found(200, 230, 60, kv_usage=0.97)
    assert full is not None
    assert full.replicas == 2
    assert found(200, 230, 0, kv_usage=0.97) is None  # full, but no one waits


def test_a_queue_that_grows_asks_for_what_keeps_up() -> None:
    """300 more in 30 s would be 10 a second: 8 come, nothing leaves, and nothing is known. 120 more are 4 a second, so
    that two replicas complete 2 a second each: (8 + 120 / 60) / 2 = 5."""
    assert found(100, 10, 390, ready=2, kv_usage=0.2) is None
    growing = found(10, 10, 120, ready=2, kv_usage=0.2)
    assert growing is not None
    assert growing.replicas == 5
    assert found(125, 10, 120, ready=2, kv_usage=0.2) is None  # 5 more are chance


def test_it_says_nothing_of_replicas_that_have_just_come() -> None:
    status = PoolStatus(spec=PoolSpec(role="decode"), replicas=3, queued=80, running=230, kv_usage=1.0)
    snapshot = Snapshot(at_s=30, traffic=Traffic(window_s=30, requests_per_s=8), pools={"decode": status})
    tick = Tick("decode", status, Replicas(ready=3), snapshot, 1.0, Engine(), 90.0)
    assert saturated(tick, (Crowd(0.0, 1, 10.0, 0.0),), crowd_of(tick, 80), 30.0) is None


def test_a_pool_with_a_backlog_shows_how_fast_it_is() -> None:
    """8 requests/s for 30 s, and 60 fewer in the pool: 300 are done, by 2 replicas 5 a second each. 100 that wait last
    for 30 s where no more than ``100 / 30 + 8`` are done a second."""

    def shown(queued_then: float, queued: float, ready_then: int = 2, between: float | None = None) -> Backlog | None:
        status = PoolStatus(spec=PoolSpec(role="prefill"), replicas=2, queued=queued, running=10)
        snapshot = Snapshot(at_s=30, traffic=Traffic(window_s=30, requests_per_s=8), pools={"prefill": status})
        tick = Tick("prefill", status, Replicas(ready=2), snapshot, 1.0, Engine(), 90.0)
        crowds: tuple[Crowd, ...] = (Crowd(0.0, ready_then, queued_then + 10, queued_then),)
        if between is not None:
            crowds = (*crowds, Crowd(20.0, 2, between + 10, between))
        return backlog_of(tick, crowds, crowd_of(tick, queued), 30.0)

    assert shown(100, 40) == pytest.approx((5, (100 / 30 + 8) / 2))
    assert shown(100, 40, between=10) == pytest.approx((5, (10 / 10 + 8) / 2))  # for all of its last 10 s: 1 a second
    assert shown(100, 3) is None  # one of them may have been idle
    assert shown(3, 100) is None
    assert shown(100, 40, ready_then=1) is None


def test_replicas_for_what_waits_are_not_for_what_comes() -> None:
    assert part_that_comes(20, 600) == pytest.approx(2 / 3)
    assert part_that_comes(20, 0) == part_that_comes(0, 600) == 1


def test_counts_are_kept_for_a_window_and_stay_few() -> None:
    crowds: tuple[Crowd, ...] = ()
    for second in range(1000):
        crowds = with_crowd(crowds, Crowd(float(second), 1, 5.0, 0.0), window_s=300.0)
        assert len(crowds) <= 26
    assert min(abs(crowd.at_s - (999 - 300)) for crowd in crowds) <= 25


def test_a_full_pool_that_the_model_calls_idle_is_raised_and_the_reason_says_so() -> None:
    service = Service(prefill=2, decode=1)
    service.run(8, 300, isl=500, osl=200)
    assert service.target("decode") == 1
    for tick in range(4):
        waits = {"running": 230, "queued": 40.0 * tick, "kv_usage": 1.0}
        service.see(8, isl=500, osl=200, pools={"decode": waits})
    assert service.target("decode") >= 2
    assert "Saturated" in service.codes("decode")


def test_answers_that_get_longer_count_at_once_and_chance_does_not() -> None:
    """From 200 to 3,000 tokens: the second window of 50 answers weighs 80 %. 260 is within 5 standard deviations."""
    lengths: ObservedLengths | None = None
    for _ in range(200):
        lengths = learned(lengths, Dist(mean=200, count=50, cv2=1), 50, 10.0)
    once = learned(lengths, Dist(mean=3000, count=50, cv2=1), 50, 10.0)
    twice = learned(once, Dist(mean=3000, count=50, cv2=1), 50, 10.0)
    assert once is not None and twice is not None
    assert once.mean < 500
    assert twice.mean == pytest.approx((0.25 * once.mean + 3000) / 1.25)
    chance = learned(lengths, Dist(mean=260, count=50, cv2=1), 50, 10.0)
    assert chance is not None
    assert chance.mean < 206
    left = learned(once, Dist(mean=3000, count=50, cv2=1), 50, 10.0, may_grow=False)
    assert left is not None
    assert left.mean < 700  # the last of a crowd
