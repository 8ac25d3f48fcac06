"""LoadPolicy: the numbers behind a verdict, each of four samples worked by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from dynamo_planner import Dist, PoolSpec, PoolStatus, Replicas, Sla, Snapshot, Traffic, Want
from dynamo_planner.policies import LoadPolicy
from dynamo_planner.policies.reactive_memory import Shortfalls, refused, rose
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


def test_a_fall_that_failed_before_says_at_which_demand_and_for_how_long() -> None:
    """Two did not do at 5 requests/s at 30 s, which lasts 80 * 30 s. 40 s of 4 requests/s bring the usual demand to
    4 + 2^(-40 / 90)."""
    timeline = Timeline(LoadPolicy(adjustment_interval_s=30, decode_grace_intervals=0))
    for at_s in (0, 10, 20, 30):
        timeline.see(at_s, pool=decode(2, 0.95))
    timeline.traffic = Traffic(requests_per_s=4)
    for at_s in (40, 50, 60, 70):
        timeline.see(at_s, pool=decode(3, 0.2))
    values = timeline.decision.reasons[0].values
    assert timeline.codes("pool") == ["FallFailedBefore"]
    assert values["demand"] == pytest.approx(4 + 2 ** (-40 / 90))
    assert [values["failed_at"], values["hours"]] == pytest.approx([5, (30 + 80 * 30 - 70) / 3600])


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
