"""Fallback: timelines of metrics that go away and come back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from dynamo_planner import Hold, PoolSpec, PoolStatus, Proposal, Replicas, Snapshot, Want
from dynamo_planner.guards import Fallback

BLIND = Hold("kv_usage is unknown", "MetricUnknown")


def timeline(
    guard: Fallback, present: int, steps: Sequence[tuple[float, Want | Hold]], most: int | None = None
) -> list[int]:
    """The targets at each of (at_s, proposed), each decision carried out before the next."""
    state, targets = None, []
    spec = PoolSpec(role="decode", min_replicas=0, max_replicas=most)
    for at_s, entry in steps:
        snapshot = Snapshot(at_s=at_s, pools={"decode": PoolStatus(spec=spec, replicas=Replicas(ready=present))})
        proposal, state = guard.limit(snapshot, Proposal(pools={"decode": entry}), state)
        present = proposal.wanted(snapshot, "decode") or 0
        targets.append(present)
    return targets


@pytest.mark.parametrize(
    ("guard", "targets"),
    [
        (Fallback(after_s=60, replicas=6), [4, 4, 4, 6, 3]),
        (Fallback(after_s=60, replicas=2), [4, 4, 4, 4, 3]),
        (Fallback(after_s=60, replicas=2, behavior="static"), [4, 4, 4, 2, 3]),
        (Fallback(after_s=60, replicas=2, behavior="current_if_lower"), [4, 4, 4, 2, 3]),
        (Fallback(after_s=60, replicas=6, behavior="current_if_lower"), [4, 4, 4, 4, 3]),
        (Fallback(after_s=60, replicas=6, behavior="current"), [4, 4, 4, 4, 3]),
        (Fallback(after_s=60, of_last_good=1.3), [4, 4, 4, 6, 3]),
        (Fallback(after_s=60, of_max=0.5), [4, 4, 4, 5, 3]),
    ],
)
def test_after_a_minute_without_metrics(guard: Fallback, targets: list[int]) -> None:
    steps: list[tuple[float, Want | Hold]] = [
        (0.0, Want(4)),
        (30.0, BLIND),
        (80.0, BLIND),
        (90.0, BLIND),
        (120.0, Want(3)),
    ]
    assert timeline(guard, 4, steps, most=10) == targets


def test_metrics_that_come_back_begin_the_wait_anew() -> None:
    steps: list[tuple[float, Want | Hold]] = [
        (0.0, BLIND),
        (50.0, Want(2)),
        (60.0, BLIND),
        (110.0, BLIND),
        (120.0, BLIND),
    ]
    assert timeline(Fallback(after_s=60, replicas=6), 2, steps) == [2, 2, 2, 2, 6]


def test_another_hold_says_nothing_of_metrics() -> None:
    """As a policy that collects for an interval and finds nothing at the end of it, again and again."""
    collects = Hold("the next adjustment is in 50 s", "Collecting")
    steps = [(0.0, BLIND), (50.0, collects), (100.0, BLIND), (150.0, collects)]
    assert timeline(Fallback(after_s=60, replicas=6), 2, steps) == [2, 2, 6, 6]


def test_a_pool_at_zero_wakes_up() -> None:
    assert timeline(Fallback(after_s=60, replicas=2), 0, [(0.0, BLIND), (60.0, BLIND)]) == [0, 2]


def test_one_number_is_given() -> None:
    with pytest.raises(ValidationError, match="replicas and of_max is given"):
        Fallback(replicas=2, of_max=0.5)
    with pytest.raises(ValidationError, match="none is given"):
        Fallback()
