"""The plan by itself: a target from demand, queue and replicas. Numbers are worked by hand."""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

import pytest

from dynamo_planner import PoolSpec, PoolStatus, Replicas, Sla, Snapshot, Traffic, Want
from dynamo_planner.core.snapshot import Role
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.demand import Outlook, demand
from dynamo_planner.policies.sla.plan import PlanInputs, Planned, SkiRental
from dynamo_planner.policies.sla.tick import Engine, Queue, Tick
from dynamo_planner.sizing import Requirement

AT_S, STARTUP_S, LEVEL_S = 1000.0, 60.0, 60.0


class Known(NamedTuple):
    """A rate that is known for certain, or whose upper quantile is far from its mean."""

    mean: float
    upper: float | None = None

    def quantile(self, level: float) -> float:
        return self.mean if self.upper is None or level <= 0.5 else self.upper


def four_per_replica(rate: float, near: int) -> Requirement:
    return Requirement("decode", rate / 4, ceil(rate / 4))


def planned(
    rate: float, replicas: Replicas, role: Role = "decode", queued: float = 0.0, caution: float = 0.0
) -> Planned:
    """The first plan of a pool that gets this rate, which stays, of which a replica does 4 requests a second."""
    pool = PoolStatus(spec=PoolSpec(role=role, startup_s=STARTUP_S), replicas=replicas, queued=queued)
    traffic = Traffic(requests_per_s=rate, window_s=30, isl=1000, osl=100)
    snapshot = Snapshot(at_s=AT_S, traffic=traffic, pools={"workers": pool})
    tick = Tick("workers", pool, replicas, snapshot, 1.0, Engine(), STARTUP_S)
    arrivals = ArrivalWindow(AT_S, rate, 30.0, 30.0)
    outlook = Outlook(arrivals, lambda ahead_s: Known(rate), lambda rate: None, 0.0, LEVEL_S, [])
    sla = Sla(ttft_ms=500, itl_ms=25)
    return SkiRental().plan(None, PlanInputs(tick, outlook, Queue(queued), four_per_replica, sla, caution=caution))


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


def test_caution_plans_for_more() -> None:
    """32 requests/s with a caution of 2 are planned for as ``1.3 * 32 = 41.6``, for which 11 replicas are required."""
    assert target(planned(32, Replicas(ready=8), caution=2.0)) == 11
    assert target(planned(32, Replicas(ready=8), caution=-2.0)) == 9  # busy for 90 % of the time: 8 / 0.9
