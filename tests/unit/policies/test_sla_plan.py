"""The plan by itself: a target from demand, queue and replicas. Numbers are worked by hand."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import numpy as np
import pytest

from dynamo_planner import PoolSpec, PoolStatus, Replicas, Sla, Snapshot, Traffic, Want
from dynamo_planner.core.snapshot import Role
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.demand import Outlook, demand
from dynamo_planner.policies.sla.plan import PlanInputs, Planned, SkiRental
from dynamo_planner.policies.sla.planned_quantile import expected_misses
from dynamo_planner.policies.sla.state import LastPlan
from dynamo_planner.policies.sla.tick import Engine, Queue, Tick
from dynamo_planner.sizing import Requirement

AT_S, STARTUP_S, LEVEL_S = 1000.0, 60.0, 60.0


class Spread(NamedTuple):
    """Rates of 9, 10, 11 and 12 in the middle of the parts of the forecast, and between them on lines."""

    mean: float = 9.75

    def quantile(self, level: float) -> float:
        return float(np.interp(level, [0.25, 0.65, 0.875, 0.975], [9, 10, 11, 12]))


class Known(NamedTuple):
    """A rate that is known for certain, or whose upper quantile is far from its mean."""

    mean: float
    upper: float | None = None

    def quantile(self, level: float) -> float:
        return self.mean if self.upper is None or level <= 0.5 else self.upper


def four_per_replica(rate: float, near: int) -> Requirement:
    return Requirement("decode", rate / 4, ceil(rate / 4))


def one_per_replica(rate: float, near: int) -> Requirement:
    return Requirement("decode", 0.9 * rate, ceil(rate))


def planned(
    rate: float,
    replicas: Replicas,
    role: Role = "decode",
    queued: float = 0.0,
    caution: float = 0.0,
    others: tuple[LastPlan, ...] = (),
    before: Planned | None = None,
    after_s: float = 0.0,
    running: float = 0.0,
) -> Planned:
    """The plan of a pool that gets this rate, which stays, of which a replica does 4 requests a second."""
    at_s = AT_S + after_s
    spec = PoolSpec(role=role, startup_s=STARTUP_S)
    pool = PoolStatus(spec=spec, replicas=replicas, queued=queued, running=running)
    traffic = Traffic(requests_per_s=rate, window_s=30, isl=1000, osl=100)
    snapshot = Snapshot(at_s=at_s, traffic=traffic, pools={"workers": pool})
    tick = Tick("workers", pool, replicas, snapshot, 1.0, Engine(), STARTUP_S)
    arrivals = ArrivalWindow(at_s, rate, 30.0, 30.0)
    outlook = Outlook(arrivals, lambda ahead_s: Known(rate), lambda rate: None, 0.0, LEVEL_S, [])
    sla = Sla(ttft_ms=500, itl_ms=25)
    inputs = PlanInputs(tick, outlook, Queue(queued), four_per_replica, sla, caution=caution, others=others)
    return SkiRental().plan(None if before is None else before.state, inputs)


def target(plan: Planned) -> int:
    assert isinstance(plan.want, Want)
    return plan.want.replicas


@pytest.mark.parametrize(
    ("replicas", "count"),
    [
        (Replicas(ready=8), 8),
        (Replicas(ready=7, failed=1, target=8), 9),
        (Replicas(ready=3, failed=5, target=8), 10),  # at most a quarter of 8 more
        (Replicas(ready=7, starting=1, starting_since_s=(AT_S - 60,), target=8), 8),
        (Replicas(ready=7, starting=1, starting_since_s=(AT_S - 181,), target=8), 9),  # stuck after 3 * 60 s
    ],
)
def test_what_failed_or_does_not_start_is_replaced_once(replicas: Replicas, count: int) -> None:
    """32 requests/s need 8 replicas."""
    assert target(planned(32, replicas)) == count


@pytest.mark.parametrize(
    ("mean", "upper", "then"),
    [(10.0, 12.0, 12.0), (10.0, 40.0, 13.05), (0.5, 10.0, 0.7)],  # at most 1.3 times the mean, and 3 in 60 s more
)
def test_wide_forecasts_are_cut_off(mean: float, upper: float, then: float) -> None:
    wide = Known(mean, upper)
    assert demand(wide, wide, 0.0, STARTUP_S, LEVEL_S, 0.9).then == pytest.approx(then)
    assert demand(wide, wide, 20.0, STARTUP_S, LEVEL_S, 0.5).then == 20  # what is certain


@pytest.mark.parametrize(
    ("role", "queued", "count"),
    [
        ("decode", 240, 4),  # (240 + 60 * 16) / 4 = 60 * 5
        ("decode", 245, 5),
        ("decode", 480, 5),  # 60 replica-seconds are left
        ("decode", 484, 6),
        ("prefill", 245, 4),  # 5 * 0.25 replica-seconds may wait for half of 500 ms
        ("prefill", 246, 5),
    ],
)
def test_a_backlog_is_done_a_minute_after_a_start_would_be_ready(role: Role, queued: float, count: int) -> None:
    """16 requests/s keep 4 of 5 replicas busy. What waits is 1/4 s of work each, and what 5 replicas leave of it and of
    what comes in the 60 s of a start is done in 60 s more."""
    last = planned(16, Replicas(ready=5), role, queued).last
    assert last is not None
    assert last.required == count


def test_decode_is_sized_for_what_prefill_drains() -> None:
    """Of 486 prompts and 960 that come, 60.25 replica-seconds are left: 241 prompts in 60 s, beside 16 a second."""
    prefill = planned(16, Replicas(ready=5), "prefill", 486).last
    assert prefill is not None
    assert prefill.drained_per_s == pytest.approx(241 / 60)
    assert target(planned(16, Replicas(ready=4))) == 4
    assert target(planned(16, Replicas(ready=4), others=(prefill,))) == 6


def test_caution_plans_for_more() -> None:
    """32 requests/s with a caution of 2 are planned for as ``1.3 * 32 = 41.6``, for which 11 replicas are required."""
    assert target(planned(32, Replicas(ready=8), caution=2.0)) == 11
    assert target(planned(32, Replicas(ready=8), caution=-2.0)) == 9  # busy for 90 % of the time: 8 / 0.9


def one_in_ten(rate: float, count: int) -> float:
    """One in ten are late where all of the replicas are busy, and all beyond."""
    return 1.0 if rate < count else 0.9 if rate == count else 0.0


def test_expected_misses_are_weighed_by_the_requests_of_each_rate() -> None:
    """11 replicas: 0.15 of the time 11 come, a tenth late, and 0.05 of it 12, all late, of 9.75 on average."""
    rates = [(0.5, 9.0), (0.3, 10.0), (0.15, 11.0), (0.05, 12.0)]
    assert expected_misses(rates, 11, one_in_ten) == pytest.approx((0.15 * 11 * 0.1 + 0.05 * 12) / 9.75)
    assert expected_misses(rates, 11, lambda rate, count: None) is None


@pytest.mark.parametrize(
    ("share", "caution", "count"),
    [(0.9, -2.0, 11), (0.7, -2.0, 10), (0.93, -2.0, 12), (0.9, 0.0, 12)],
)
def test_with_credit_the_plan_takes_the_lowest_quantile_that_is_within_what_is_asked(
    share: float, caution: float, count: int
) -> None:
    """10 replicas, for the 9.6 of the median, miss ``(0.3 * 10 * 0.1 + 0.15 * 11 + 0.05 * 12) / 9.75 = 26 %``; 11, for
    the 10.2 of the 0.7 quantile, miss 7.8 %; 12 are for the 11.25 of the 0.9 quantile."""
    pool = PoolStatus(spec=PoolSpec(role="decode", startup_s=STARTUP_S), replicas=Replicas(ready=9), queued=0)
    snapshot = Snapshot(at_s=AT_S, traffic=Traffic(requests_per_s=9.75, window_s=30), pools={"workers": pool})
    tick = Tick("workers", pool, Replicas(ready=9), snapshot, 1.0, Engine(), STARTUP_S)
    arrivals = ArrivalWindow(AT_S, 9.75, 30.0, 30.0)
    outlook = Outlook(arrivals, lambda ahead_s: Spread(), lambda rate: None, 0.0, LEVEL_S, [])
    inputs = PlanInputs(tick, outlook, Queue(0.0), one_per_replica, Sla(ttft_ms=500, itl_ms=25), caution=caution)
    last = SkiRental().plan(None, inputs._replace(share=share, attained=one_in_ten)).last
    assert last is not None
    assert last.required == count


@pytest.mark.parametrize(
    ("caution", "first", "then"),
    [
        # 8 used and planned for, for 2 * 60 s
        (0.0, 8, [(0.0, 8), (119.0, 8), (120.0, 2)]),
        # 1.3 * 32 are 11, of which the expected 32 use 10.4 / 1.3 + 0.6 / sqrt(1.3) = 8.5; those are kept twice as long
        (2.0, 11, [(0.0, 11), (119.0, 11), (120.0, 9), (239.0, 9), (240.0, 3)]),
    ],
)
def test_what_was_used_is_kept_for_what_a_start_costs_and_what_was_planned_for_two(
    caution: float, first: int, then: list[tuple[float, int]]
) -> None:
    plan = planned(32, Replicas(ready=8), caution=caution)
    assert target(plan) == first
    for after_s, count in then[1:]:
        plan = planned(8, Replicas(ready=first), caution=caution, before=plan, after_s=after_s)
        assert target(plan) == count, after_s


def test_the_reason_for_what_is_kept() -> None:
    before = planned(32, Replicas(ready=8))
    plan = planned(8, Replicas(ready=8), before=before, after_s=60.0)
    (waits,) = [reason for reason in plan.reasons if reason.code == "ScaleDownWaits"]
    assert waits.message == "8 were required within the last 120 s, and to start them again would cost more"
    assert (waits.values["needed"], waits.values["now"]) == (8, 2)


def test_without_requests_all_go_and_none_while_some_run() -> None:
    for running, count, code in ((0.0, 0, "Idle"), (3.0, 8, "RequestsRun")):
        before = planned(0, Replicas(ready=8), running=running)
        assert target(before) == 8  # until a start costs less
        plan = planned(0, Replicas(ready=8), running=running, before=before, after_s=120.0)
        assert target(plan) == count
        assert plan.reasons[0].code == code
