"""LoadPolicy on timelines: at this time, with these metrics, expect this."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dynamo_planner import (
    Decision,
    Policy,
    PoolSpec,
    PoolStatus,
    Replicas,
    Snapshot,
    State,
    Traffic,
    highest,
    load_policy,
)
from dynamo_planner.guards import Stabilization
from dynamo_planner.policies import LoadPolicy

BUSY = Traffic(requests_per_s=5)
PREFILL = PoolSpec(role="prefill")
DECODE = PoolSpec(role="decode")
POLICY = LoadPolicy(adjustment_interval_s=30)


def prefill(replicas: Any, queued: float | None, running: float | None = 0, **more: Any) -> PoolStatus:
    return PoolStatus(**{"spec": PREFILL, "replicas": replicas, "queued": queued, "running": running, **more})


def decode(replicas: Any, kv_usage: float | None, queued: float | None = 0, **more: Any) -> PoolStatus:
    return PoolStatus(
        **{"spec": DECODE, "replicas": replicas, "kv_usage": kv_usage, "queued": queued, "running": 4, **more}
    )


class Timeline:
    """Feeds a policy one snapshot after the other, and says what it wanted."""

    def __init__(self, policy: Policy = POLICY, traffic: Traffic = BUSY) -> None:
        self.policy = policy
        self.traffic = traffic
        self.missing: dict[str, str] = {}
        self.state: State | None = None
        self.decision = Decision(at_s=0)

    def see(self, at_s: float, /, **pools: PoolStatus) -> Decision:
        snapshot = Snapshot(at_s=at_s, traffic=self.traffic, pools=pools, missing=self.missing)
        self.decision = self.policy.decide(snapshot, self.state)
        self.state = self.decision.state
        return self.decision

    def expect(self, at_s: float, want: Mapping[str, int], /, **pools: PoolStatus) -> None:
        """These targets and no other; a pool that is held is left out."""
        assert self.see(at_s, **pools).targets == want, f"at {at_s} s: {self.decision.explain()}"

    def codes(self, pool: str) -> list[str]:
        return [reason.code for reason in self.decision.reasons if reason.pool == pool]


def interval(timeline: Timeline, start_s: float, want: Mapping[str, int], /, **pools: PoolStatus) -> None:
    """One interval of the same metrics, that ends with this."""
    for at_s in range(int(start_s) + (10 if timeline.state else 0), int(start_s) + 30, 10):
        timeline.expect(at_s, {}, **pools)
    timeline.expect(start_s + 30, want, **pools)


# The rules of the original, worked by hand


def test_prefill_goes_up_on_a_queue_and_decode_on_kv_usage_in_one_adjustment() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, prefill=prefill(1, 2), decode=decode(1, 0.92))
    timeline.expect(10, {}, prefill=prefill(1, 6), decode=decode(1, 0.95))
    timeline.expect(20, {}, prefill=prefill(1, 8), decode=decode(1, 0.90))
    assert timeline.codes("prefill") == ["Collecting"]
    # queue: (2 + 6 + 8 + 10) / 4 = 6.5 > 5, trend 10 + 3 * (10 - 2) = 34 > 5; KV: (.92 + .95 + .90 + .95) / 4 = .93
    timeline.expect(30, {"prefill": 2, "decode": 2}, prefill=prefill(1, 10), decode=decode(1, 0.95))
    assert list(timeline.decision.targets) == ["prefill", "decode"]
    means = {reason.pool: reason.values["load"] for reason in timeline.decision.reasons}
    assert means == {"prefill": 6.5, "decode": pytest.approx(0.93)}


def test_waiting_requests_weigh_into_kv_usage() -> None:
    timeline = Timeline()
    interval(timeline, 0, {"decode": 2}, decode=decode(2, 0.85, queued=4))  # .85 + .02 * 4 / 2 = .89
    interval(timeline, 30, {"decode": 3}, decode=decode(2, 0.85, queued=6))  # .85 + .02 * 6 / 2 = .91


def test_a_queue_that_is_falling_is_waited_for() -> None:
    timeline = Timeline()
    for at_s, queued in ((0, 20.0), (10, 14.0), (20, 8.0)):
        timeline.expect(at_s, {}, prefill=prefill(1, queued))
    # mean 11 > 5, but 2 + 3 * (2 - 20) < 5
    timeline.expect(30, {"prefill": 1}, prefill=prefill(1, 2))
    assert timeline.codes("prefill") == ["QueueFalling"]
    for at_s, queued in ((40, 20.0), (50, 19.5), (60, 19.0)):
        timeline.see(at_s, prefill=prefill(1, queued))
    assert timeline.decision.targets == {"prefill": 2}  # 19 + 3 * (19 - 20) = 16 > 5


def test_the_queue_counts_per_ready_replica() -> None:
    timeline = Timeline()
    interval(timeline, 0, {"prefill": 3}, prefill=prefill(3, 15))  # 5 each, not over 5
    interval(timeline, 30, {"prefill": 4}, prefill=prefill(3, 15.3))


def test_both_go_down_when_little_is_going_on() -> None:
    timeline = Timeline()
    low = {"prefill": prefill(2, 0.1), "decode": decode(3, 0.4)}  # .4 * 3 / 2 = .6 < .9
    interval(timeline, 0, {"prefill": 1, "decode": 2}, **low)


def test_prefill_may_go_down_while_decode_goes_up() -> None:
    interval(Timeline(), 0, {"prefill": 1, "decode": 2}, prefill=prefill(2, 0), decode=decode(1, 0.95))


def test_between_the_thresholds_nothing_changes_and_the_need_is_told() -> None:
    proposal, state = POLICY.propose(Snapshot(at_s=0, pools={"d": decode(3, 0.6), "p": prefill(2, 4, running=1)}), None)
    proposal, _ = POLICY.propose(Snapshot(at_s=30, pools={"d": decode(3, 0.6), "p": prefill(2, 4, running=1)}), state)
    loads = {name: want.load for name, want in proposal.pools.items()}  # type: ignore[union-attr]
    # decode: 3 * .6 / .9; prefill: 2 * 2 / 5 = .8 by its queue, but 2 * (4 + 1) / 2 requests keep both replicas busy
    assert loads == {"d": pytest.approx(2.0), "p": 2.0}


def test_the_minimum_is_kept() -> None:
    timeline = Timeline()
    two = PoolSpec(role="decode", min_replicas=2)
    interval(timeline, 0, {"decode": 2}, decode=decode(2, 0.1, spec=two))
    assert timeline.codes("decode") == ["AtMinimum"]


# Better than the original


@pytest.mark.parametrize(("kv_usage", "target"), [(0.44, 1), (0.45, 2), (0.49, 2)])
def test_scale_down_leaves_room_on_the_replicas_that_remain(kv_usage: float, target: int) -> None:
    timeline = Timeline()
    interval(timeline, 0, {"decode": target}, decode=decode(2, kv_usage))  # .45 * 2 / 1 = .9 is not under .9
    assert timeline.codes("decode") == ["KvUsageLow" if target == 1 else "NoRoom"]


@pytest.mark.parametrize(("running", "target"), [(1.9, 2), (2.0, 3), (3.0, 3)])
def test_prefill_without_a_queue_keeps_the_replicas_that_are_busy(running: float, target: int) -> None:
    interval(Timeline(), 0, {"prefill": target}, prefill=prefill(3, 0, running=running))


def test_a_new_decode_replica_is_protected_for_the_full_intervals_it_says() -> None:
    timeline = Timeline()
    interval(timeline, 0, {"decode": 3}, decode=decode(2, 0.95))
    timeline.expect(40, {}, decode=decode(3, 0.2))  # the new one is ready, an interval starts
    assert timeline.codes("decode") == ["ReplicasMoving"]
    for start_s in (40, 70, 100):
        interval(timeline, start_s, {"decode": 3}, decode=decode(3, 0.2))
        assert timeline.codes("decode") == ["GracePeriod"]
    interval(timeline, 130, {"decode": 2}, decode=decode(3, 0.2))


def test_an_interval_that_is_not_full_does_not_use_up_the_grace() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, decode=decode(2, 0.2))
    timeline.expect(9000, {"decode": 3}, decode=decode(3, 0.2))  # after a gap there is a new one
    for start_s in (9000, 9030, 9060):
        interval(timeline, start_s, {"decode": 3}, decode=decode(3, 0.2))
        assert timeline.codes("decode") == ["GracePeriod"]
    interval(timeline, 9090, {"decode": 2}, decode=decode(3, 0.2))


def test_prefill_has_no_grace() -> None:
    timeline = Timeline()
    interval(timeline, 0, {"prefill": 2}, prefill=prefill(1, 9))
    timeline.expect(40, {}, prefill=prefill(2, 0))
    interval(timeline, 40, {"prefill": 1}, prefill=prefill(2, 0))


def test_nothing_is_adjusted_while_a_pool_starts_or_drains() -> None:
    timeline = Timeline()
    starting = Replicas(ready=1, starting=1, starting_since_s=(0,))
    draining = Replicas(ready=1, draining=1)
    for at_s in range(0, 100, 10):
        timeline.expect(at_s, {}, prefill=prefill(1, 9), decode=decode(starting, 0.99))
    assert timeline.codes("prefill") == ["ReplicasMoving"]
    assert "decode has 1 replicas starting" in timeline.decision.explain()
    for at_s in range(100, 200, 10):
        timeline.expect(at_s, {}, prefill=prefill(draining, 9), decode=decode(1, 0.99))
    assert "prefill has 1 replicas draining" in timeline.decision.explain()
    timeline.expect(200, {}, prefill=prefill(1, 9), decode=decode(1, 0.99))
    timeline.expect(220, {"prefill": 2, "decode": 2}, prefill=prefill(1, 9), decode=decode(1, 0.99))


def test_an_interval_in_which_a_replica_became_ready_does_not_count() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, decode=decode(2, 0.99))
    timeline.expect(20, {}, decode=decode(3, 0.99))
    timeline.expect(30, {}, decode=decode(3, 0.99))
    timeline.expect(50, {"decode": 4}, decode=decode(3, 0.99))


def test_a_start_that_takes_too_long_does_not_freeze_it() -> None:
    timeline = Timeline()
    stuck = Replicas(ready=1, starting=1, starting_since_s=(0,))
    timeline.expect(360, {}, decode=decode(stuck, 0.95))  # three start-up times of 120 s: may still come
    assert timeline.codes("decode") == ["ReplicasMoving"]
    timeline.expect(361, {}, decode=decode(stuck, 0.95))
    timeline.expect(391, {"decode": 3}, decode=decode(stuck, 0.95))
    assert timeline.codes("decode") == ["StartsStuck", "KvUsageHigh"]


@pytest.mark.parametrize(
    "replicas", [Replicas(ready=2, starting=1), Replicas(ready=2, draining=1), Replicas(ready=2, target=3), None]
)
def test_what_moves_for_ever_without_an_age_does_not_freeze_the_other_pool_for_ever(replicas: Replicas | None) -> None:
    timeline = Timeline()
    seen = []
    for at_s in range(0, 1000, 10):
        decision = timeline.see(at_s, prefill=prefill(replicas, 9), decode=decode(1, 0.95))
        seen += [at_s] if decision.targets.get("decode") == 2 else []
    assert seen[0] == 3 * 120 + 2 * 30 + 30  # patience: three start-up times and two intervals; then one interval


def test_it_says_that_it_waited_long_enough() -> None:
    timeline = Timeline()
    while not timeline.decision.targets:
        timeline.see(timeline.decision.at_s + 10, prefill=prefill(Replicas(ready=2, draining=1), 9))
    why = timeline.decision.explain()
    assert "it adjusts although prefill has 1 replicas draining: no interval was completed for 450 s" in why


@pytest.mark.parametrize("pool", ["decode", "prefill"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queued": None, "kv_usage": None}, "is unknown: the worker did not answer"),
        ({"observed_at_s": None}, "the age of its metrics is unknown"),
        ({"observed_at_s": -100}, "they were last seen 130 s ago"),
        ({"coverage": 0}, "no ready replica was seen"),
    ],
)
def test_unknown_metrics_hold_and_are_named(pool: str, change: dict[str, Any], message: str) -> None:
    timeline = Timeline()
    build = decode if pool == "decode" else prefill
    timeline.missing = {f"pools.{pool}": "the worker did not answer"}
    status = build(3, 0.01).model_copy(update=change)
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


# Time


def test_ticks_may_be_irregular_and_the_same_observation_counts_once() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, decode=decode(2, 0.80))
    timeline.expect(7, {}, decode=decode(2, 0.99))
    for at_s in (8, 9, 9.5):
        timeline.expect(at_s, {}, decode=decode(2, 0.99, observed_at_s=7))
    timeline.expect(31.5, {"decode": 2}, decode=decode(2, 0.82))  # (.80 + .99 + .82) / 3 = .87
    assert timeline.decision.reasons[0].values["samples"] == 3
    timeline.expect(61, {}, decode=decode(2, 0.95))  # 29.5 s after the last adjustment
    timeline.expect(61.5, {"decode": 3}, decode=decode(2, 0.95))


def test_a_tick_that_is_repeated_gives_the_same_again_and_counts_once() -> None:
    timeline = Timeline()
    first = timeline.see(0, decode=decode(2, 0.80))
    for at_s in (0, -5, 0):
        again = timeline.see(at_s, decode=decode(2, 0.99))
        assert (again.targets, again.reasons, again.state) == (first.targets, first.reasons, first.state)
    timeline.expect(30, {"decode": 2}, decode=decode(2, 0.90))  # (.80 + .90) / 2


def test_after_a_gap_the_samples_before_it_are_dropped() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, decode=decode(2, 0.1))
    timeline.expect(10, {}, decode=decode(2, 0.1))
    timeline.expect(1000, {"decode": 3}, decode=decode(2, 0.95))
    assert timeline.decision.reasons[0].values["samples"] == 1


def test_ticks_further_apart_than_the_interval_each_decide() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, decode=decode(2, 0.95))
    timeline.expect(60, {"decode": 3}, decode=decode(2, 0.95))
    timeline.expect(120, {"decode": 2}, decode=decode(2, 0.85))
    timeline.expect(180, {"decode": 3}, decode=decode(2, 0.95))


def test_unix_seconds_do_not_make_an_interval_a_tick_longer() -> None:
    timeline = Timeline(LoadPolicy(adjustment_interval_s=0.3))
    adjusted = []
    for n in range(31):
        decision = timeline.see(1_700_000_000.1 + n * 0.1, decode=decode(2, 0.7))
        adjusted += [n] if decision.targets else []
    assert adjusted == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]


def test_a_clock_of_a_worker_that_runs_ahead_does_not_blind_it() -> None:
    timeline = Timeline()
    timeline.see(0, decode=decode(2, 0.95, observed_at_s=1e9))
    for at_s in (10, 20, 30):
        timeline.see(at_s, decode=decode(2, 0.95))
    assert timeline.decision.reasons[0].values["samples"] == 4


# Partial coverage


def test_means_are_over_the_workers_that_were_seen() -> None:
    timeline = Timeline()
    half = prefill(4, 11, coverage=0.5)  # 11 waiting at two of four: 5.5 each
    interval(timeline, 0, {"prefill": 5}, prefill=half)


# State


def test_state_goes_through_json_in_the_middle_of_an_interval() -> None:
    native, revived = Timeline(), Timeline()
    for n in range(40):
        pools = {
            "prefill": prefill(2, (n * 7) % 13, running=n % 3),
            "decode": decode(3 if n < 20 else 4, (n * 37 % 100) / 100),
        }
        a, b = native.see(n * 10, **pools), revived.see(n * 10, **pools)
        assert (a.targets, a.reasons) == (b.targets, b.reasons)
        text = json.dumps(b.state.model_dump(mode="json") if b.state else None)
        assert len(text) < 3000
        revived.state = json.loads(text)


def test_without_the_state_nothing_changes() -> None:
    for n in range(50):
        snapshot = Snapshot(at_s=n * 10, traffic=BUSY, pools={"decode": decode(3, 0.01), "prefill": prefill(3, 99)})
        assert POLICY.decide(snapshot).actions == ()


def test_pools_may_come_and_go() -> None:
    timeline = Timeline()
    timeline.expect(0, {}, gone=decode(2, 0.95))
    timeline.expect(10, {}, new=decode(2, 0.95))
    timeline.expect(40, {"new": 3}, new=decode(2, 0.95))
    assert timeline.state is not None
    assert "gone" not in timeline.state.model_dump_json()


def test_while_it_collects_the_other_of_highest_may_raise_and_not_lower() -> None:
    def both(wanted: int) -> Decision:
        return highest(POLICY, lambda _: {"decode": wanted}).decide(Snapshot(at_s=0, pools={"decode": decode(3, 0.6)}))

    assert (both(5).targets, both(2).targets) == ({"decode": 5}, {})


def test_it_scales_down_behind_a_stabilization_window_though_it_holds_most_of_the_time() -> None:
    timeline = Timeline(LoadPolicy(adjustment_interval_s=60) | Stabilization(down_window_s=150))
    lowered = []
    for at_s in range(0, 600, 10):
        decision = timeline.see(at_s, decode=decode(3, 0.1))
        lowered += [at_s] if decision.actions else []
    # adjustments at 60, 120, ...; at 60 the present target counts as recommended, until 210
    assert lowered == [240, 300, 360, 420, 480, 540]


# Construction


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prefill_queue_up": -1}, r"prefill_queue_up\n.*greater than or equal to 0.*-1"),
        ({"decode_kv_up": 90}, r"decode_kv_up\n.*less than or equal to 1.*90"),
        ({"adjustment_interval_s": 0}, r"adjustment_interval_s\n.*greater than 0"),
        ({"decode_grace_intervals": -1}, "decode_grace_intervals"),
        ({"kv_per_waiting": float("nan")}, "kv_per_waiting"),
        (
            {"decode_kv_up": 0.4},
            r"decode_kv_up \(0.4\) must be above decode_kv_down \(0.5\).*: raise decode_kv_up or lower decode_kv_down",
        ),
        ({"prefill_queue_down": 5}, r"prefill_queue_up \(5.0\) must be above prefill_queue_down \(5.0\)"),
        ({"kv_up": 0.8}, "kv_up"),
    ],
)
def test_what_cannot_work_is_refused_by_name(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LoadPolicy(**fields)


def test_it_is_data() -> None:
    data = {"kind": "load", "decode_kv_up": 0.8, "decode_kv_down": 0.3}
    policy = load_policy(data)
    assert policy == LoadPolicy(decode_kv_up=0.8, decode_kv_down=0.3)
    assert load_policy(policy.model_dump()) == policy


# It cannot flap


def moves(policy: LoadPolicy, replicas: int, seconds: int, pool: Any) -> list[int]:
    """The targets over time in a plant where a replica starts within a tick."""
    timeline, targets = Timeline(policy), [replicas]
    for at_s in range(0, seconds, 10):
        decision = timeline.see(at_s, pool=pool(targets[-1]))
        targets.append(decision.targets.get("pool", targets[-1]))
    return targets


THRESHOLDS = st.tuples(st.floats(0.05, 1), st.floats(0, 0.95)).filter(lambda pair: pair[0] > pair[1] + 0.01)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(demand=st.floats(0, 8), replicas=st.integers(1, 8), thresholds=THRESHOLDS, waiting=st.floats(0, 20))
def test_a_constant_load_settles_and_stays(
    demand: float, replicas: int, thresholds: tuple[float, float], waiting: float
) -> None:
    """``demand`` replicas' worth of KV cache, spread evenly; what does not fit waits."""
    up, down = thresholds
    policy = LoadPolicy(adjustment_interval_s=20, decode_kv_up=up, decode_kv_down=down, decode_grace_intervals=1)

    def pool(n: int) -> PoolStatus:
        spec = PoolSpec(role="decode", max_replicas=20)
        return decode(n, min(demand / n, 1.0), queued=waiting * max(demand - n, 0.0), spec=spec)

    targets = moves(policy, replicas, 2400, pool)
    assert targets in (sorted(targets), sorted(targets, reverse=True)), "it went both ways under a constant load"
    assert len(set(targets[-60:])) == 1, "it did not settle"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(busy=st.floats(0.01, 6), replicas=st.integers(1, 8))
def test_a_constant_prefill_load_settles_and_stays(busy: float, replicas: int) -> None:
    """``busy`` replicas' worth of prompts: a queue (Sakasegawa's) that is hardly there until it explodes."""

    def pool(n: int) -> PoolStatus:
        share = busy / n
        queued = share ** ((2 * (n + 1)) ** 0.5) / (1 - share) if share < 0.99 else 1000 * share
        return prefill(n, queued, running=min(busy, n), spec=PoolSpec(role="prefill", max_replicas=20))

    targets = moves(LoadPolicy(adjustment_interval_s=20), replicas, 1200, pool)
    assert targets in (sorted(targets), sorted(targets, reverse=True)), "it went both ways under a constant load"
    assert len(set(targets[-60:])) == 1, "it did not settle"
