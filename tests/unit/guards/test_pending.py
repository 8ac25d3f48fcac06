"""Pending."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner import Decision, Hold, PoolSpec, PoolStatus, Proposal, Replicas, Snapshot, Traffic, Want
from dynamo_planner.core.policy import as_policy
from dynamo_planner.guards import Pending
from tests.support.laws import examples

law = examples(derandomize=True)


def seen(at_s: float = 1000, startup_s: float = 120, **replicas: Any) -> Snapshot:
    spec = PoolSpec(role="decode", startup_s=startup_s, min_replicas=0)
    pools = {"a": PoolStatus(spec=spec, replicas=Replicas(**replicas))}
    return Snapshot(at_s=at_s, traffic=Traffic(requests_per_s=0), pools=pools)


def decide(wanted: int | None, snapshot: Snapshot) -> Decision:
    return (as_policy(lambda _: {"a": wanted}) | Pending()).decide(snapshot)


def granted(wanted: int, snapshot: Snapshot) -> int:
    return decide(wanted, snapshot).targets["a"]


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


@pytest.mark.parametrize(
    ("wanted", "target"),
    [(0, 0), (2, 2), (3, 3), (4, 5), (5, 5), (6, 6), (9, 9)],
)
def test_three_ready_and_two_starting(wanted: int, target: int) -> None:
    assert granted(wanted, seen(ready=3, starting=2)) == target


def test_no_rise_on_top_of_what_is_on_its_way() -> None:
    """Told to go back to 3, and two are starting still: 5 are there or coming, so 4 and 5 need nothing more."""
    snapshot = seen(ready=3, starting=2, target=3)
    assert [granted(wanted, snapshot) for wanted in (2, 3, 4, 5, 6)] == [2, 3, 3, 3, 6]


def test_a_policy_that_goes_by_the_ready_replicas_neither_cancels_nor_doubles_what_is_starting() -> None:
    policy = as_policy(lambda snapshot: {"a": snapshot.pools["a"].replicas.ready + 1}) | Pending()  # type: ignore[union-attr]
    for snapshot in (seen(ready=2), seen(ready=2, starting=1), seen(ready=2, starting=1, target=3)):
        assert policy.decide(snapshot).targets == {"a": 3}
    assert policy.decide(seen(ready=2, starting=2)).targets == {"a": 4}
    assert policy.decide(seen(ready=4)).targets == {"a": 5}


def test_nothing_is_starting_nothing_is_limited() -> None:
    assert [granted(wanted, seen(ready=3, failed=2)) for wanted in range(8)] == list(range(8))


def test_a_start_that_is_stuck_is_not_coming_capacity_and_is_said_so() -> None:
    """Start-up takes 120 s: at 1000, what began before 640 is stuck."""
    fresh = decide(4, seen(ready=3, starting=2, starting_since_s=(640, 900)))
    assert (fresh.targets, codes(fresh)) == ({"a": 5}, ["ReplicasStarting"])
    one = decide(4, seen(ready=3, starting=2, starting_since_s=(639, 900)))
    assert codes(one) == ["StartStuck", "ReplicasStarting"]
    both = decide(4, seen(ready=3, starting=2, starting_since_s=(100, 639)))
    assert (both.targets, codes(both)) == ({"a": 4}, ["StartStuck"])
    assert both.explain() == (
        "a: 5 -> 4 replicas\n"
        "  StartStuck: 2 starting for more than 360 s, no longer counted as coming capacity (stuck=2, startup_s=120)"
    )


def test_stuck_starts_do_not_freeze_a_pool_that_needs_more() -> None:
    stuck = seen(ready=3, starting=2, starting_since_s=(0, 0), target=3)
    assert granted(4, stuck) == 4


def test_stuck_starts_of_a_held_pool_are_told_too() -> None:
    decision = decide(None, seen(ready=3, starting=1, starting_since_s=(0,)))
    assert (decision.targets, codes(decision)) == ({}, ["StartStuck", "Held"])


def test_starts_of_unknown_age_are_coming() -> None:
    assert granted(4, seen(ready=3, starting=2)) == 5


def test_reasons_have_the_numbers_and_loads_are_kept() -> None:
    proposal, _ = Pending().limit(seen(ready=3, starting=2), Proposal(pools={"a": Want(4, 3.7)}), None)
    assert proposal.pools["a"] == Want(5, 3.7)
    assert [dict(reason.values) for reason in proposal.reasons] == [{"wanted": 4, "ready": 3, "coming": 2, "target": 5}]


def test_holds_and_pools_that_could_not_be_read_are_left_alone() -> None:
    spec = PoolSpec(role="decode")
    snapshot = Snapshot(at_s=0, pools={"a": PoolStatus(spec=spec), "b": PoolStatus(spec=spec, replicas=2)})
    proposal = Proposal(pools={"a": Want(3), "b": Hold("unknown")})
    assert Pending().limit(snapshot, proposal, None) == (proposal, None)


@law
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 20), st.integers(0, 20))
def test_it_never_goes_beyond_the_proposal_and_never_turns_round(
    ready: int, starting: int, target: int, wanted: int
) -> None:
    after = granted(wanted, seen(ready=ready, starting=starting, target=target))
    assert after in (wanted, target)
    if wanted <= ready or wanted > ready + starting or not starting:
        assert after == wanted
