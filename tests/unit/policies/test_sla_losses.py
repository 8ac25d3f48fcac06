"""Spares for replicas that crash or are preempted. Numbers are worked by hand."""

from __future__ import annotations

import pytest

from dynamo_planner import Replicas
from dynamo_planner.policies.sla.losses import Losses, LossRate, spares, together, watched
from tests.support.sla_service import Service

HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("replicas", "felt_s", "allowed", "count"),
    [
        (8, 60, 0.005, 1),  # one or more are away for 5.6 % of the time, two or more for 0.2 %
        (8, 60, 0.06, 0),
        (8, 600, 0.005, 4),  # four or more for 0.73 %, five or more for 0.16 %
        (1000, 600, 0.005, 8),  # 73 away, and no more than 8
    ],
)
def test_the_spares_cover_what_is_away(replicas: int, felt_s: float, allowed: float, count: int) -> None:
    seen = Losses(0, 8, 0, 8, lost=3, squares=3, exposed_s=8 * HOUR_S)
    assert spares(seen, LossRate(), replicas, felt_s, allowed) == count
    assert spares(seen._replace(lost=0, squares=0), LossRate(), replicas, felt_s, allowed) == 0


def test_a_pool_that_lost_none_has_a_spare_where_others_lose_theirs() -> None:
    # What others lost in 4.5 hours counts as one loss in 3: (4 h / 4.05 h) ** 1, so that one is away for 1.2 %.
    seen, others = Losses(0, 1, 0, 1, exposed_s=HOUR_S), LossRate(1.0, 4.5 * HOUR_S)
    assert spares(seen, others, 1, 180, 0.013) == 0
    assert spares(seen, others, 1, 180, 0.012) == 1
    assert spares(seen, together([]), 1, 180, 0.012) == 0
    assert together([others, LossRate(2.0, HOUR_S)]) == LossRate(3.0, 5.5 * HOUR_S)


def test_replicas_that_go_at_once_are_one_loss_of_that_many() -> None:
    before = watched(None, Replicas(ready=8, target=8), 0)
    seen = watched(before, Replicas(ready=5, starting=3, target=8), 10)
    assert seen.rate.times == 1
    assert spares(seen._replace(exposed_s=8 * HOUR_S), LossRate(), 8, 60, 0.005) == 3


@pytest.mark.parametrize(
    ("now", "lost"),
    [
        (Replicas(ready=7, starting=1, target=8), 1),
        (Replicas(ready=6, target=6), 0),  # asked away
        (Replicas(ready=8, target=6), 0),  # asked away, and still there
        (Replicas(ready=6, draining=2, target=8), 0),  # drains
        (Replicas(ready=6, target=7), 1),
    ],
)
def test_a_replica_is_lost_that_nobody_asked_away(now: Replicas, lost: float) -> None:
    before = watched(None, Replicas(ready=8, target=8), 0)
    assert watched(before, now, 10).lost == lost
    late = watched(watched(before, Replicas(ready=8, target=6), 10), Replicas(ready=6, target=6), 20)
    assert late.lost == 0


def test_a_pool_that_lost_replicas_gets_a_spare() -> None:
    service = Service(decode=2)
    service.run(20, 600)
    before = service.target("decode")
    for _ in range(3):
        service.ready["decode"] -= 1
        service.since["decode"].append(service.at_s)
        service.run(20, 120)
    assert service.target("decode") == before + 1
    assert "SpareForLosses" in service.codes("decode")
