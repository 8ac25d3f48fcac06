"""LoadPolicy: the numbers behind a verdict, each of four samples worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from dynamo_planner import Dist, PoolSpec, PoolStatus, Replicas, Sla, Snapshot, Traffic, Want
from dynamo_planner.policies import LoadPolicy
from dynamo_planner.policies.reactive_memory import Shortfalls, refused, rose
from dynamo_planner.policies.reactive_samples import PoolSamples
from dynamo_planner.policies.reactive_verdict import Thresholds, verdict
from tests.support.timeline import Timeline, decode, prefill

SLA = Sla(ttft_ms=500, itl_ms=25, attainment=0.98)


def last(policy: LoadPolicy, statuses: Sequence[PoolStatus], traffics: Sequence[Traffic]) -> Timeline:
    """Four ticks that end an interval of 30 s."""
    timeline = Timeline(policy)
    for tick in range(4):
        timeline.traffic = traffics[tick % len(traffics)]
        timeline.see(10 * tick, pool=statuses[tick % len(statuses)])
    return timeline


BUSY = Traffic(requests_per_s=5)
POLICY = LoadPolicy(adjustment_interval_s=30)
AWARE = LoadPolicy(adjustment_interval_s=30, sla=SLA)


@pytest.mark.parametrize(
    ("statuses", "target", "code", "values"),
    [
        (
            [decode(4, kv) for kv in (0.92, 0.96, 0.98, 0.98)],
            5,
            "KvUsageHigh",
            {"load": 0.96, "up": 0.9, "down": 0.5, "ready": 4, "samples": 4},
        ),
        ([decode(4, 0.9, queued=40)], 5, "KvUsageHigh", {"load": 1.1}),  # 0.9 + 0.02 * 10, of 0.9 are 4.9
        ([decode(4, 0.9, queued=60)], 6, "KvUsageHigh", {"load": 1.2}),  # 5.33
        ([decode(4, 1.0, queued=600)], 8, "KvUsageHigh", {"load": 4.0}),  # 17.8, but at most as many again
        ([decode(4, 0.7, queued=4, coverage=0.5)], 4, "WithinThresholds", {"load": 0.74}),  # 2 at each of two
        ([decode(4, 0.5)], 4, "WithinThresholds", {"load": 0.5}),
        ([prefill(4, 20)], 4, "WithinThresholds", {"load": 5.0, "up": 5.0, "down": 0.2}),
        ([prefill(4, queued) for queued in (40, 30, 20, 10)], 4, "QueueFalling", {"load": 6.25, "trend": -20}),
        ([prefill(4, queued) for queued in (40, 40, 36, 35)], 4, "QueueFalling", {"trend": 5.0}),  # 8.75 - 3 * 1.25
        ([prefill(4, queued) for queued in (40, 40, 36, 35.2)], 5, "QueueHigh", {}),  # 8.8 - 3 * 1.2 is 5.2
        ([prefill(4, queued) for queued in (24, 24, 24, 21.6)], 5, "QueueHigh", {}),  # 5.4 of 6 are just 0.9
        ([prefill(4, 0, running=2.9)], 3, "QueueLow", {}),
        ([prefill(4, 0, running=3)], 4, "NoRoom", {"remain": 3, "busy": 0.75}),
        ([decode(4, 0.49)], 3, "KvUsageLow", {}),
        ([decode(2, 0.45)], 2, "NoRoom", {"remain": 1, "busy": 2.0}),  # 0.45 * 2 is not under 0.9
        ([decode(2, 0.4, spec=PoolSpec(role="decode", min_replicas=2))], 2, "AtMinimum", {}),
        ([decode(Replicas(ready=2, failed=2), 0.95)], 4, "RiseOutstanding", {"lost": 2}),  # 2 + 1 and one in place
        ([decode(Replicas(ready=3, failed=1), 0.95)], 5, "KvUsageHigh", {}),
    ],
)
def test_the_numbers_of_a_verdict(statuses: list[PoolStatus], target: int, code: str, values: dict[str, float]) -> None:
    timeline = last(POLICY, statuses, [BUSY])
    assert timeline.codes("pool") == [code]
    assert timeline.decision.targets == {"pool": target}
    assert {name: timeline.decision.reasons[0].values[name] for name in values} == pytest.approx(values)


@pytest.mark.parametrize(
    ("status", "load"),
    [
        (decode(4, 0.72), 3.2),  # 4 * 0.72 / 0.9
        (prefill(4, 24), 4.8),  # 4 * 6 / 5
        (prefill(4, 12), 4.0),  # 2.4 by the queue, but 3 requests keep a replica busy
        (prefill(4, 1.2, running=1.2), 2.4),  # 0.6 of them do in part
    ],
)
def test_the_load_is_in_replicas(status: PoolStatus, load: float) -> None:
    state = None
    for at_s in (0, 30):
        proposal, state = POLICY.propose(Snapshot(at_s=at_s, traffic=BUSY, pools={"pool": status}), state)
    want = proposal.pools["pool"]
    assert isinstance(want, Want)
    assert want.load == pytest.approx(load)


def late(share: float) -> Traffic:
    """Traffic of which a share is over the target of ITL, and the rest far below it."""
    return Traffic(requests_per_s=5, itl_ms=Dist(mean=10, buckets={15: 1 - share, 25: 1 - share, 100: 1.0}))


@pytest.mark.parametrize(
    ("statuses", "target", "code", "values"),
    [
        ([decode(4, 0.2, running=4)], 5, "RequestsLate", {"missed": 0.02}),  # just one in each replica
        ([decode(4, kv, running=40) for kv in (0.8, 0.8, 0.6, 0.57)], 5, "RequestsLate", {"load": 0.6925}),
        ([decode(4, kv, running=40) for kv in (0.8, 0.8, 0.6, 0.55)], 4, "QueueFalling", {"trend": -0.2}),  # of 0.56
        ([decode(4, 0.95, running=40)], 5, "KvUsageHigh", {"missed": 0.02}),
        ([decode(4, 0.9, running=40)], 5, "RequestsLate", {"load": 0.9}),
    ],
)
def test_late_requests_raise_a_pool_that_is_busy_and_not_on_its_way_down(
    statuses: list[PoolStatus], target: int, code: str, values: dict[str, float]
) -> None:
    timeline = last(AWARE, statuses, [late(0.02)])
    assert (timeline.codes("pool"), timeline.decision.targets) == ([code], {"pool": target})
    assert {name: timeline.decision.reasons[0].values[name] for name in values} == pytest.approx(values)


def test_the_share_that_is_late_is_the_mean_of_the_samples_that_tell() -> None:
    traffics = [late(0.02), late(0.06), late(0.06), Traffic(requests_per_s=5)]
    timeline = last(AWARE, [decode(4, 0.2, running=40)], traffics)
    assert timeline.codes("pool") == ["RequestsLate"]
    assert timeline.decision.reasons[0].values["missed"] == pytest.approx(0.14 / 3)
    timeline = last(AWARE, [decode(4, 0.2, running=40)], [late(0.0), Traffic(requests_per_s=5)])
    assert timeline.codes("pool") == ["MetricUnknown"]  # a fall takes all of them


def test_an_aggregated_pool_misses_what_is_worse_of_ttft_and_itl() -> None:
    """exp(-500 / 100) = 0.7 % over the target of TTFT, and 25 / 16 - 1 are 2.8 fifths for ITL, 0.2 %. With one of 4
    less, latencies 1 + 0.5 / 3 times as long: 1.4 %, and 1.70 fifths for ITL, 4.5 %."""
    status = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=4, kv_usage=0.2, queued=0, running=40)
    timeline = last(AWARE, [status], [Traffic(requests_per_s=5, ttft_ms=100, itl_ms=16)])
    values = timeline.decision.reasons[0].values
    assert timeline.codes("pool") == ["NoSlack"]
    assert values["missed"] == pytest.approx(math.exp(-5))
    fifths = (25 / 16 / (1 + 0.5 / 3) - 1) / 0.2
    assert values["missed_with_less"] == pytest.approx(0.5 * math.erfc(fifths / math.sqrt(2)))
    timeline = last(AWARE, [status], [Traffic(requests_per_s=5, ttft_ms=200, itl_ms=16)])
    assert timeline.codes("pool") == ["RequestsLate"]  # exp(-2.5) = 8 %, of 2 % that may


def test_just_as_many_late_requests_as_may_be_are_neither_too_many_now_nor_with_one_less() -> None:
    assert last(AWARE, [decode(4, 0.2, running=40)], [late(0.01)]).codes("pool") == ["KvUsageLow"]


def test_prefill_misses_ttft_and_would_miss_more_with_one_less() -> None:
    """exp(-5) are 0.7 % of 1 % that may be late, and with latencies 1 + 0.5 / 3 times as long 1.4 %."""
    timeline = last(AWARE, [prefill(4, 0.4, running=2)], [Traffic(requests_per_s=5, ttft_ms=100)])
    assert timeline.codes("pool") == ["NoSlack"]
    assert timeline.decision.reasons[0].values["missed_with_less"] == pytest.approx(math.exp(-5 / (1 + 0.5 / 3)))
    alone = last(AWARE, [decode(1, 0.2)], [Traffic(requests_per_s=5, itl_ms=10)])  # the only one has none to spare
    assert alone.codes("pool") == ["AtMinimum"]


def test_latencies_of_nothing_are_in_time_and_an_idle_service_needs_none() -> None:
    assert last(AWARE, [decode(4, 0.2)], [Traffic(requests_per_s=5, itl_ms=0)]).codes("pool") == ["KvUsageLow"]
    idle = decode(4, 0.0).model_copy(update={"running": 0})
    assert last(AWARE, [idle], [Traffic(requests_per_s=0, queued=0)]).codes("pool") == ["KvUsageLow"]


def test_metrics_as_old_as_an_interval_count_and_older_ones_hold() -> None:
    for age_s, kv_usage, targets in ((30, 0.95, {"pool": 5}), (30, 0.2, {"pool": 3}), (31, 0.95, {}), (31, 0.2, {})):
        timeline = Timeline(POLICY)
        for at_s in (0, 10, 20, 30):
            timeline.see(at_s, pool=decode(4, kv_usage, observed_at_s=at_s - age_s))
        assert timeline.decision.targets == targets


def test_an_interval_in_which_nothing_new_was_observed_holds() -> None:
    timeline = Timeline(LoadPolicy(adjustment_interval_s=60))
    for at_s in (0, 30, 60, 90, 120):
        timeline.see(at_s, pool=decode(4, 0.95, observed_at_s=min(at_s, 60)))
    assert timeline.decision.targets == {}
    assert "nothing new was observed of it in this interval" in timeline.decision.explain()


def test_what_was_measured_while_replicas_moved_does_not_count() -> None:
    """The sample at 90 s, the last with one that drains, begins the interval: (0.99 + 3 * 0.6) / 4."""
    timeline = Timeline(POLICY)
    for at_s in range(0, 130, 10):
        drains = at_s < 100
        timeline.see(at_s, pool=decode(Replicas(ready=2, draining=int(drains)), 0.99 if drains else 0.6))
    assert timeline.decision.reasons[0].values["load"] == pytest.approx(2.79 / 4)


def test_a_pool_says_how_many_of_its_replicas_are_ready_now() -> None:
    timeline = Timeline(POLICY)
    timeline.see(0, pool=decode(2, 0.6))
    timeline.see(10, pool=decode(3, 0.6))
    assert "pool now has 3 replicas ready, not 2" in timeline.decision.explain()
    timeline.see(20, pool=decode(3, 0.6), other=decode(1, 0.6))
    assert "other now has 1 replicas ready" in timeline.decision.explain()
    assert "not" not in timeline.decision.reasons[0].message


def test_an_urgent_rise_waits_for_thirty_seconds_of_samples() -> None:
    timeline = Timeline(LoadPolicy(sla=SLA), late(0.06))
    targets = [timeline.see(at_s, pool=decode(4, 0.2, running=40)).targets for at_s in range(1000, 1040, 10)]
    assert targets == [{}, {}, {}, {"pool": 5}]


def test_a_load_is_cut_off() -> None:
    timeline = last(LoadPolicy(adjustment_interval_s=30, kv_per_waiting=1e6), [decode(1, 0.5, queued=1e300)], [BUSY])
    assert timeline.decision.reasons[0].values["load"] == pytest.approx(1e9)


def test_room_is_for_the_replicas_that_are_wanted_and_ready() -> None:
    """Of 3 ready replicas 2 are wanted, so with one less a single one remains: 0.4 * 3 are too much for it."""
    limits = Thresholds(up=0.9, down=0.5, missed=None, trend_intervals=3)
    own = PoolSamples(ready=3, samples=1, load=0.4)
    for target, code in ((3, "KvUsageLow"), (2, "NoRoom")):
        replicas = Replicas(ready=3, target=target)
        _, reason = verdict(0.0, decode(replicas, 0.4), replicas, own, limits, None)
        assert reason is not None and reason.code == code


def after_a_rise(traffic: Traffic, first: Traffic = BUSY, interval_s: float = 60) -> Timeline:
    """Two replicas that did not do at the first traffic, in the end of an interval with three and the other."""
    timeline = Timeline(LoadPolicy(adjustment_interval_s=interval_s, decode_grace_intervals=0), first)
    for at_s in (0, 30, 60):
        timeline.see(at_s, pool=decode(2, 0.95))
    timeline.traffic = traffic
    for at_s in (70, 100, 130):
        timeline.see(at_s, pool=decode(3, 0.2))
    return timeline


def test_a_fall_that_failed_before_says_at_which_demand_and_for_how_long() -> None:
    """Two did not do at 5 requests/s at 60 s, which lasts 80 * 60 s. 70 s of 4 requests/s bring the usual demand to
    4 + 2^(-70 / 180)."""
    timeline = after_a_rise(Traffic(requests_per_s=4))
    values = timeline.decision.reasons[0].values
    assert timeline.codes("pool") == ["FallFailedBefore"]
    assert values["demand"] == pytest.approx(4 + 2 ** (-70 / 180))
    assert [values["failed_at"], values["hours"]] == pytest.approx([5, (60 + 80 * 60 - 130) / 3600])
    # 2.1 are clearly lower: twice as many are less than 0.85 * 5, where the usual demand, 4.3, is not
    assert after_a_rise(Traffic(requests_per_s=2.1)).codes("pool") == ["KvUsageLow"]


def test_an_unknown_demand_may_be_any() -> None:
    for first, demand in ((BUSY, 5.0), (Traffic(), 0.0)):
        timeline = after_a_rise(Traffic(), first)
        assert timeline.codes("pool") == ["FallFailedBefore"]
        assert timeline.decision.reasons[0].values["demand"] == demand


def test_rises_are_counted_by_the_longest_hold() -> None:
    """Each time that a count fails again after its hold it is refused for twice as long, up to 480 intervals."""
    shortfalls: Shortfalls = ()
    held, at_s = [], 0.0
    for _ in range(4):
        shortfalls = rose(shortfalls, replicas=3, demand=10.0, at_s=at_s, interval_s=60.0)
        held.append(shortfalls[0].hold_s / 60)
        again = rose(shortfalls, replicas=3, demand=12.0, at_s=at_s + 1, interval_s=60.0)  # before it is over
        assert (again[0].hold_s, again[0].demand, again[0].until_s) == (held[-1] * 60, 12.0, at_s + 1 + held[-1] * 60)
        at_s = shortfalls[0].until_s
    assert held == [80, 160, 320, 480]


@pytest.mark.parametrize(
    ("replicas", "demand", "at_s", "by"),
    [
        (3, 9.0, 0.0, 3),
        (2, 9.0, 0.0, 3),
        (4, 9.0, 0.0, 5),
        (6, 99.0, 0.0, None),
        (3, 8.5, 0.0, 5),  # 0.85 * 10 is not above 8.5, and 0.85 * 8 is below it
        (3, 6.8, 0.0, None),
        (3, None, 0.0, 3),
        (3, 9.0, 4799.9, 3),
        (3, 9.0, 4800.0, None),
    ],
)
def test_counts_that_did_not_do_are_refused(replicas: int, demand: float | None, at_s: float, by: int | None) -> None:
    shortfalls = rose((), replicas=5, demand=8.0, at_s=0.0, interval_s=60.0)
    shortfalls = rose(shortfalls, replicas=3, demand=10.0, at_s=0.0, interval_s=60.0)
    found = refused(shortfalls, replicas, demand, at_s)
    assert (found and found.replicas) == by


def test_eight_counts_are_remembered_the_largest() -> None:
    shortfalls: Shortfalls = ()
    for replicas in (3, 9, 1, 2, 4, 8, 5, 6, 7):
        shortfalls = rose(shortfalls, replicas, demand=1.0, at_s=0.0, interval_s=60.0)
    assert [shortfall.replicas for shortfall in shortfalls] == [2, 3, 4, 5, 6, 7, 8, 9]
