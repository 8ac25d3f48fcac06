"""Every guard that is shipped keeps the laws, after policies that do."""

from __future__ import annotations

import math

import pytest

from dynamo_planner import Guard, LoadPolicy, Snapshot, highest
from dynamo_planner.conformance import check_policy
from dynamo_planner.guards import (
    Bounds,
    Calendar,
    CalendarEntry,
    Fallback,
    GpuBudget,
    Multiples,
    Override,
    Pending,
    Ratio,
    Spare,
    Stabilization,
    Staleness,
    StepLimit,
    Tolerance,
)
from dynamo_planner.guards.bounds import PoolBounds
from dynamo_planner.guards.override import Floor, Pause, Pin
from dynamo_planner.guards.registry import GUARDS
from tests.support.laws import scaled

QUICK = LoadPolicy(adjustment_interval_s=10, decode_grace_intervals=0, prefill_trend_intervals=0)
FAR_S = 2e9

CASES: tuple[Guard, ...] = (
    Bounds(pools={"decode": PoolBounds(min_replicas=2, max_replicas=4), "workers": PoolBounds(max_replicas=1)}),
    GpuBudget(max_gpus=0),
    GpuBudget(max_gpus=5),
    GpuBudget(max_gpus=8, min_gpus=4),
    Fallback(after_s=60, replicas=3),
    Fallback(after_s=0, of_last_good=0.5, behavior="static"),
    Spare(replicas=1, share=0.2),
    Ratio(least=0.5, most=2),
    Tolerance(up=0.3, down=0.3),
    Multiples(of={"decode": 2, "workers": 3}),
    Calendar(entries=(CalendarEntry(min_replicas=2, max_replicas=4, end="12:00", reason="mornings"),)),
    StepLimit(),
    StepLimit(up_replicas=1, up_factor=None, down_replicas=1, period_s=120),
    Stabilization(),
    Stabilization(up_window_s=60, down_window_s=120),
    Pending(),
    Staleness(),
    Override(),
    Override(
        pins=(Pin(pool="workers", replicas=4, until_s=FAR_S, reason="a load test"),),
        floors=(Floor(pool="decode", replicas=3, until_s=FAR_S, reason="a launch"),),
        pauses=(Pause(pools=("prefill",), until_s=FAR_S, reason="a migration"),),
    ),
)


def by_rate(snapshot: Snapshot) -> dict[str, int | None]:
    """A replica for every four requests per second."""
    rate = snapshot.traffic.requests_per_s
    return dict.fromkeys(snapshot.pools, None if rate is None else math.ceil(rate / 4))


@pytest.mark.slow
@pytest.mark.parametrize("guard", CASES, ids=lambda guard: guard.kind)
def test_each_guard_keeps_the_laws_after_policies_that_do(guard: Guard) -> None:
    check_policy(highest(QUICK, by_rate) | guard, examples=scaled(6))


def test_no_guard_is_left_out() -> None:
    assert {guard.kind for guard in CASES} == set(GUARDS)
