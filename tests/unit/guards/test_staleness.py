"""Staleness."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dynamo_planner import Decision, Hold, PoolSpec, PoolStatus, Proposal, Replicas, Snapshot, Traffic, Want
from dynamo_planner.core.policy import as_policy
from dynamo_planner.guards import Staleness
from tests.support.laws import examples

law = examples(derandomize=True)

NOW = 10_000.0


def pool(replicas: Any = 4, **seen: Any) -> PoolStatus:
    return PoolStatus(spec=PoolSpec(role="decode", min_replicas=0), replicas=replicas, **seen)


def decide(wanted: int, status: PoolStatus, traffic: Traffic | None = None, **guard: Any) -> Decision:
    traffic = traffic or Traffic(requests_per_s=1)
    snapshot = Snapshot(at_s=NOW, traffic=traffic, pools={"a": status})
    return (as_policy(lambda _: {"a": wanted}) | Staleness(**guard)).decide(snapshot)


def held_by(decision: Decision) -> list[str]:
    assert not decision.actions or not decision.reasons
    return [reason.code for reason in decision.reasons]


@pytest.mark.parametrize("wanted", [0, 2, 4, 7])
@pytest.mark.parametrize("age_s", [61.0, 3600.0, None])
def test_old_metrics_hold_the_pool_whichever_way_it_would_go(wanted: int, age_s: float | None) -> None:
    decision = decide(wanted, pool(observed_at_s=None if age_s is None else NOW - age_s))
    assert (decision.targets, held_by(decision)) == ({}, ["MetricsStale"])
    assert ("of unknown age" if age_s is None else f"{age_s:g} s old, more than 60 s") in decision.explain()


@pytest.mark.parametrize("age_s", [0.0, 59.9, 60.0, -5.0])
def test_fresh_metrics_do_not(age_s: float) -> None:
    assert decide(2, pool(observed_at_s=NOW - age_s)).targets == {"a": 2}


def test_the_limit_is_configured() -> None:
    assert decide(2, pool(observed_at_s=NOW - 100), max_age_s=100).targets == {"a": 2}
    assert decide(2, pool(observed_at_s=NOW - 100), max_age_s=99).targets == {}


def test_a_worker_that_sleeps_was_observed() -> None:
    assert decide(2, pool(coverage=0.75, asleep=1)).targets == {"a": 2}
    assert held_by(decide(2, pool(coverage=0.5, asleep=1))) == ["CoverageLow"]


@pytest.mark.parametrize("observed_at_s", [NOW - 61, None])
def test_old_traffic_holds_every_pool(observed_at_s: float | None) -> None:
    decision = decide(2, pool(), Traffic(requests_per_s=1, observed_at_s=observed_at_s))
    assert (decision.targets, held_by(decision)) == ({}, ["MetricsStale"])
    assert "the traffic is" in decision.explain()


def test_a_fresh_zero_is_not_stale() -> None:
    idle = pool(queued=0, running=0, kv_usage=0)
    assert decide(0, idle, Traffic(requests_per_s=0, queued=0)).targets == {"a": 0}


def test_at_zero_replicas_a_pool_has_no_metrics_to_grow_old() -> None:
    asleep = pool(replicas=0, observed_at_s=None, coverage=0)
    assert decide(1, asleep, Traffic(queued=3)).targets == {"a": 1}
    assert decide(1, asleep, Traffic(queued=3, observed_at_s=None)).targets == {}
    waking = pool(replicas=Replicas(ready=0, starting=2), observed_at_s=None)
    assert decide(1, waking).targets == {}


@pytest.mark.parametrize(
    ("coverage", "wanted", "held"),
    [(0.5, 2, True), (0.5, 4, False), (0.5, 6, False), (0.9, 2, False), (1.0, 2, False), (None, 2, False)],
)
def test_too_few_workers_seen_let_a_pool_rise_not_fall(coverage: float | None, wanted: int, held: bool) -> None:
    decision = decide(wanted, pool(coverage=coverage))
    assert decision.targets == ({} if held else {"a": wanted})
    assert held_by(decision) == (["CoverageLow"] if held else [])


def test_the_coverage_is_configured() -> None:
    assert decide(2, pool(coverage=0.5), min_coverage=0.5).targets == {"a": 2}
    decision = decide(2, pool(coverage=0.999), min_coverage=1)
    assert "it may rise, not fall" in decision.explain()


def test_fresh_pools_go_on_beside_a_stale_one() -> None:
    snapshot = Snapshot(at_s=NOW, pools={"a": pool(observed_at_s=0), "b": pool()})
    assert (as_policy(lambda _: {"a": 2, "b": 2}) | Staleness()).decide(snapshot).targets == {"b": 2}


def test_holds_and_pools_that_nobody_speaks_of_are_left_alone() -> None:
    snapshot = Snapshot(at_s=NOW, pools=dict.fromkeys("abc", pool(observed_at_s=None)))
    proposal = Proposal(pools={"a": Hold("its own reason"), "b": Want(3)})
    after = Staleness().limit(snapshot, proposal, None)[0]
    assert after.pools["a"] == Hold("its own reason")
    assert isinstance(after.pools["b"], Hold)
    assert "c" not in after.pools


ages = st.none() | st.floats(60.001, 1e9)


@law
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 12), ages), min_size=1, max_size=5),
    ages,
    st.none() | st.floats(0, 1),
)
def test_where_all_is_stale_nothing_moves(
    pools: list[tuple[int, int, float | None]], age_s: float | None, coverage: float | None
) -> None:
    statuses = {
        f"p{n}": pool(replicas, observed_at_s=None if age is None else NOW - age, coverage=coverage)
        for n, (replicas, _, age) in enumerate(pools)
    }
    traffic = Traffic(requests_per_s=0, observed_at_s=None if age_s is None else NOW - age_s)
    snapshot = Snapshot(at_s=NOW, traffic=traffic, pools=statuses)
    policy = as_policy(lambda _: {f"p{n}": wanted for n, (_, wanted, _) in enumerate(pools)}) | Staleness()
    assert policy.decide(snapshot).actions == ()


@pytest.mark.parametrize(
    ("field", "value"), [("max_age_s", 0), ("max_age_s", -1), ("min_coverage", 1.5), ("min_coverage", -1)]
)
def test_limits_that_are_none_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=rf"(?s){field}.*(greater|less) than"):
        Staleness(**{field: value})
