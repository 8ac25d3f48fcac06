"""LoadPolicy: metrics that are unknown, services that are idle, pools at zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dynamo_planner import PoolSpec, PoolStatus, Replicas, Traffic
from tests.support.timeline import Timeline, decode, interval, prefill


@pytest.mark.parametrize("pool", ["decode", "prefill"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queued": None, "kv_usage": None}, "is unknown: the worker did not answer"),
        ({"observed_at_s": None}, "the age of its metrics is unknown"),
        ({"observed_at_s": -100}, "they were last observed 130 s ago"),
        ({"coverage": 0}, "no ready replica was observed"),
    ],
)
def test_unknown_metrics_hold_and_are_named(pool: str, change: dict[str, Any], message: str) -> None:
    timeline = Timeline()
    build = decode if pool == "decode" else prefill
    timeline.missing = {f"pools.{pool}": "the worker did not answer"}
    status = build(3, 0.01).replace(**change)
    for at_s in (0, 10, 20, 30):
        timeline.see(at_s, **{pool: status})
    assert (timeline.decision.targets, timeline.codes(pool)) == ({}, ["MetricUnknown"])
    assert message in timeline.decision.explain()


def test_scale_down_needs_what_could_speak_against_it_and_scale_up_does_not() -> None:
    def last(**pools: PoolStatus) -> tuple[Mapping[str, int], str]:
        timeline = Timeline()
        for at_s in (0, 10, 20, 30):
            timeline.see(at_s, **pools)
        return dict(timeline.decision.targets), timeline.decision.explain()

    assert last(decode=decode(2, 0.95, queued=None))[0] == {"decode": 3}
    assert last(prefill=prefill(2, 30, running=None))[0] == {"prefill": 3}
    for low, field in ((decode(2, 0.1, queued=None), "queued"), (prefill(2, 0, running=None), "running")):
        targets, why = last(pool=low)
        assert targets == {}
        assert f"MetricUnknown: {field} is unknown" in why


def test_a_metric_that_is_unknown_at_the_end_holds_and_in_between_is_left_out() -> None:
    timeline = Timeline()
    for at_s, kv_usage in ((0, 0.95), (10, None), (20, None), (30, 0.95)):
        timeline.see(at_s, decode=decode(2, kv_usage))
    assert timeline.decision.targets == {"decode": 3}
    assert timeline.decision.reasons[0].values["samples"] == 2
    for at_s, kv_usage in ((40, 0.1), (50, 0.1), (60, None)):
        timeline.see(at_s, decode=decode(2, kv_usage))
    assert timeline.codes("decode") == ["MetricUnknown"]


def test_an_idle_service_goes_down_though_its_workers_report_nothing() -> None:
    def silent(replicas: int) -> PoolStatus:
        return PoolStatus(spec=PoolSpec(role="aggregated", min_replicas=0), replicas=replicas)

    timeline = Timeline(traffic=Traffic(requests_per_s=0))
    interval(timeline, 0, {"workers": 1}, workers=silent(2))
    timeline.expect(40, {}, workers=silent(1))
    interval(timeline, 40, {"workers": 0}, workers=silent(1))


def test_usage_that_is_only_a_cache_does_not_keep_an_idle_service_up() -> None:
    interval(Timeline(traffic=Traffic(requests_per_s=0)), 0, {"decode": 1}, decode=decode(2, 0.8, running=0))


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(requests_per_s=0, observed_at_s=None),
        Traffic(requests_per_s=0, observed_at_s=-100),
        Traffic(requests_per_s=0, queued=1),
        Traffic(requests_per_s=None),
        Traffic(requests_per_s=0.1),
    ],
)
def test_what_is_not_known_to_be_idle_is_not_idle(traffic: Traffic) -> None:
    timeline = Timeline(traffic=traffic)
    interval(timeline, 0, {}, decode=decode(2, None, running=None))
    assert timeline.codes("decode") == ["MetricUnknown"]


def test_long_answers_keep_decode_up_when_nothing_arrives_any_more() -> None:
    for running in (3, None):
        timeline = Timeline(traffic=Traffic(requests_per_s=0))
        interval(timeline, 0, {"decode": 2}, decode=decode(2, 0.6, running=running))
        assert timeline.codes("decode") == ["WithinThresholds"]


def test_the_last_replica_goes_only_after_an_idle_interval() -> None:
    timeline = Timeline()
    last = decode(1, 0.1, spec=PoolSpec(role="decode", min_replicas=0), running=0)
    timeline.expect(0, {}, decode=last)
    timeline.traffic = Traffic(requests_per_s=0)
    interval(timeline, 0, {"decode": 1}, decode=last)
    assert timeline.codes("decode") == ["NotIdle"]
    interval(timeline, 30, {"decode": 0}, decode=last)


@pytest.mark.parametrize("traffic", [Traffic(requests_per_s=0.1), Traffic(requests_per_s=0, queued=1)])
def test_pools_at_zero_wake_up_at_once_and_together(traffic: Traffic) -> None:
    timeline = Timeline()
    asleep = {
        "prefill": prefill(0, 0, spec=PoolSpec(role="prefill", min_replicas=0)),
        "decode": decode(0, 0, spec=PoolSpec(role="decode", min_replicas=0)),
    }
    for at_s, seen, code in ((0, Traffic(requests_per_s=0, queued=0), "Asleep"), (10, Traffic(), "MetricUnknown")):
        timeline.traffic = seen
        timeline.expect(at_s, {}, **asleep)
        assert timeline.codes("prefill") == [code]
    timeline.traffic = traffic
    timeline.expect(20, {"prefill": 1, "decode": 1}, **asleep)


def test_waking_up_is_not_given_up_when_the_first_start_is_stuck_but_failures_do_not_pile_up() -> None:
    timeline = Timeline()
    stuck = Replicas(ready=0, starting=1, starting_since_s=(-1000,))
    timeline.expect(0, {"decode": 2}, decode=decode(stuck, None))
    two = Replicas(ready=0, starting=2, starting_since_s=(-1000, 0))
    timeline.expect(10, {}, decode=decode(two, None))
    timeline.expect(20, {"decode": 3}, decode=decode(Replicas(ready=0, failed=3), None))  # the present target
