"""Which share of the requests missed the SLA because of which role, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo_planner import Dist, PoolSpec, PoolStatus, Sla, Snapshot, Traffic
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.misses import MissMemory, Tail, Waits, missed_by_role

SLA = Sla(ttft_ms=500, itl_ms=25)


def missed(
    ttft_ms: Dist | None,
    memory: MissMemory | None = None,
    itl_ms: Dist | None = None,
    elapsed_s: float = 600,
    rate: float = 10,
    roles: tuple[str, ...] = ("prefill", "decode"),
    queued: dict[str, float] | None = None,
    **expected: float,
) -> tuple[dict[Any, float] | None, MissMemory]:
    """What was missed; of ITL nothing, where nothing else is said."""
    queued = queued or {}
    pools = {
        role: PoolStatus(spec=PoolSpec.model_validate({"role": role}), replicas=4, queued=queued.get(role, 0))
        for role in roles
    }
    traffic = Traffic(
        window_s=30,
        requests_per_s=rate,
        queued=queued.get("front", 0),
        ttft_ms=ttft_ms,
        itl_ms=itl_ms or Dist(mean=10, buckets={25: 1.0}),
    )
    snapshot = Snapshot(at_s=1000, traffic=traffic, pools=pools)
    arrivals = ArrivalWindow(1000, rate, 30, elapsed_s)
    return missed_by_role(memory or MissMemory(), snapshot, SLA, arrivals, expected)  # type: ignore[arg-type]


WHERE = 0.5503397  # ln(500 / 400) / ln(600 / 400)


@pytest.mark.parametrize(
    ("dist", "tail", "late"),
    [
        (Dist(mean=100, buckets={400: 0.9, 500: 0.95, 600: 0.97}), None, 0.05),  # known at the target
        (Dist(mean=100, buckets={400: 0.9, 600: 0.97}), None, 0.1 ** (1 - WHERE) * 0.03**WHERE),
        (Dist(mean=100, quantiles={0.9: 400, 0.97: 600}), None, 0.1 ** (1 - WHERE) * 0.03**WHERE),
        # tails of 0.2 and 0.01 ten minutes ago, a half-life: 0.15 and 0.02 on average, and in that proportion
        (
            Dist(mean=100, buckets={400: 0.9, 600: 0.97}),
            Tail(0.2, 0.01),
            0.03 + (0.15 ** (1 - WHERE) * 0.02**WHERE - 0.02) / 0.13 * 0.07,
        ),
        (Dist(mean=500, buckets={400: 0.9, 600: 0.97}), None, 0.065),  # a mean at the target: half of the way
        (Dist(mean=100, buckets={600: 0.97}), None, 0.03 + 0.97 / 6),  # and from nothing on
        (Dist(mean=100, buckets={400: 0.9, 600: 0.9}), None, 0.1),
        (Dist(mean=100, buckets={400: 0.9, 600: 1.0}), None, 0.0),
        (Dist(mean=100, buckets={400: 0.9}), None, 0.02),  # beyond the last bound what the sizing expects
        (Dist(mean=100, buckets={400: 0.99}), None, 0.01),  # as far as it fits
    ],
)
def test_the_share_over_a_target(dist: Dist, tail: Tail | None, late: float) -> None:
    found, _ = missed(dist, MissMemory(ttft=tail), prefill=0.02)
    assert found == {"prefill": pytest.approx(late, rel=1e-5), "decode": 0.0}


def test_the_tail_around_a_target_is_remembered() -> None:
    dist = Dist(mean=100, buckets={400: 0.9, 600: 0.97})
    _, memory = missed(dist, MissMemory(ttft=Tail(0.2, 0.01)))
    assert memory.ttft == pytest.approx((0.15, 0.02))
    assert missed(dist)[1].ttft == pytest.approx((0.1, 0.03))
    assert missed(dist, elapsed_s=1200, memory=MissMemory(ttft=Tail(0.2, 0.01)))[1].ttft == pytest.approx(
        (0.125, 0.025)
    )


@pytest.mark.parametrize(
    ("queued", "waits", "for_decode"),
    [
        ({}, Waits(), 0.0),
        ({"decode": 20}, Waits(), 2 / 2.25),  # 20 at 10/s wait for 2 s, and half of the target is 0.25 s
        ({"decode": 20, "prefill": 10, "front": 20}, Waits(), 2 / (2 + 3 + 0.25)),
        ({"decode": 5}, Waits(8.0, 4.0), 2 / (2 + 4 + 0.25)),  # peaks of 20 s ago have half of their weight
    ],
)
def test_what_is_late_is_charged_to_whom_it_waited_for(
    queued: dict[str, float], waits: Waits, for_decode: float
) -> None:
    late, slow = Dist(mean=100, buckets={500: 0.8}), Dist(mean=10, buckets={25: 0.95})
    found, _ = missed(late, MissMemory(waits=waits), itl_ms=slow, elapsed_s=20, queued=queued)
    assert found is not None
    share = found["prefill"] + found["decode"] - 0.05
    assert share >= 0.2 - 1e-9  # those that wait for longer than the target are late as well
    assert found["prefill"] == pytest.approx(share * (1 - for_decode))


def test_an_aggregated_pool_is_charged_with_both() -> None:
    late, slow = Dist(mean=100, buckets={500: 0.8}), Dist(mean=10, buckets={25: 0.95})
    found, _ = missed(late, itl_ms=slow, roles=("aggregated",))
    assert found is not None
    assert found["aggregated"] == pytest.approx(1 - 0.8 * 0.95)


def test_without_arrivals_a_wait_stays_and_no_wait_is_for_ever() -> None:
    late = Dist(mean=100, buckets={500: 0.8})
    assert missed(late, MissMemory(waits=Waits(3.0, 4.0)), rate=0)[1].waits == Waits(3.0, 4.0)
    assert missed(late, rate=1e-9, queued={"prefill": 9, "decode": 9})[1].waits == Waits(86_400.0, 86_400.0)
    assert missed(None)[0] is None
