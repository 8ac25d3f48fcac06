"""What waits for a pool, by what its workers and the frontend report. Numbers are worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from dynamo_planner import PoolSpec, PoolStatus, Replicas, Snapshot, Traffic
from dynamo_planner.core.snapshot import Role
from dynamo_planner.policies.sla.tick import Engine, Queue, Tick, queue_of

AT_S, MAX_AGE_S = 1000.0, 90.0


def waiting(role: Role, front: float | None = None, *, seen: bool = False, **pool: Any) -> Queue:
    """The queue of a pool that gets 0.4 of the requests."""
    replicas = Replicas(ready=4)
    status = PoolStatus(spec=PoolSpec(role=role), replicas=replicas, **{"observed_at_s": AT_S, **pool})
    snapshot = Snapshot(at_s=AT_S, traffic=Traffic(queued=front), pools={"workers": status})
    return queue_of(Tick("workers", status, replicas, snapshot, 0.4, Engine(), 60.0), seen, seen, MAX_AGE_S)


@pytest.mark.parametrize(
    ("role", "front", "pool", "requests"),
    [
        ("decode", None, {"queued": 6}, 6),
        ("decode", None, {"queued": 6, "coverage": 0.5}, 12),  # of half of the workers
        ("decode", None, {"queued": 6, "coverage": 0.01}, 60),  # at most 10 times as many
        ("decode", 10, {"queued": 6}, 6),  # what waits in front waits for a prompt
        ("prefill", 10, {"queued": 6, "coverage": 0.5}, 16),
        ("prefill", 10, {"queued": None}, 4),
        ("prefill", None, {"queued": 6, "observed_at_s": AT_S - 90}, 6),
        ("prefill", None, {"queued": 6, "observed_at_s": AT_S - 91}, None),
    ],
)
def test_what_waits(role: Role, front: float | None, pool: dict[str, Any], requests: float | None) -> None:
    assert waiting(role, front, **pool).requests == (None if requests is None else pytest.approx(requests))


def test_a_queue_that_was_seen_before_and_is_not_now_is_said() -> None:
    assert waiting("decode", queued=None).unknown is None
    assert waiting("decode", queued=None, seen=True).unknown == "pools.workers.queued is unknown"
    assert waiting("prefill", queued=3, seen=True).unknown == "traffic.queued is unknown"
