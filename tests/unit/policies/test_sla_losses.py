"""Spares for replicas that crash or are preempted. Numbers are worked by hand."""

from __future__ import annotations

import pytest

from dynamo_planner import Replicas
from dynamo_planner.policies.sla.losses import Losses, spares, watched
from tests.support.sla_service import Service

HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("replicas", "lead_s", "allowed", "count"),
    [
        (8, 60, 0.005, 1),  # 0.05 away: one or more for 4.9 % of the time, two or more for 0.1 %
        (8, 60, 0.05, 0),
        (8, 600, 0.005, 3),  # 0.5 away: three or more for 1.4 %, four or more for 0.2 %
        (1000, 600, 0.005, 8),  # 62 away, and no more than 8
    ],
)
def test_the_spares_cover_what_is_away(replicas: int, lead_s: float, allowed: float, count: int) -> None:
    seen = Losses(0, 8, 0, 8, lost=3, exposed_s=8 * HOUR_S)
    assert spares(seen, replicas, lead_s, allowed) == count
    assert spares(seen._replace(lost=0), replicas, lead_s, allowed) == 0


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
