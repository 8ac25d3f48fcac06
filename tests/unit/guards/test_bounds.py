"""Bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dynamo_planner import Decision, PoolSpec, PoolStatus, Replicas, Role, Snapshot, Traffic
from dynamo_planner.core.policy import as_policy
from dynamo_planner.guards import Bounds
from dynamo_planner.guards.bounds import PoolBounds
from tests.support.laws import examples

law = examples(derandomize=True)


def pool(role: Role = "aggregated", replicas: Any = 2, **spec: Any) -> PoolStatus:
    return PoolStatus(spec=PoolSpec(role=role, **spec), replicas=replicas)


def decide(guard: Bounds, wants: dict[str, int | None], requests_per_s: float | None = 1, **pools: Any) -> Decision:
    snapshot = Snapshot(at_s=0, traffic=Traffic(requests_per_s=requests_per_s), pools=pools)
    return (as_policy(lambda _: wants) | guard).decide(snapshot)


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


@pytest.mark.parametrize(
    ("wanted", "granted", "reasons"),
    [(0, 2, ["TooFewReplicas"]), (2, 2, []), (6, 6, []), (7, 6, ["TooManyReplicas"])],
)
def test_by_default_the_specs(wanted: int, granted: int, reasons: list[str]) -> None:
    decision = decide(Bounds(), {"a": wanted}, a=pool(replicas=3, min_replicas=2, max_replicas=6))
    assert (decision.targets, codes(decision)) == ({"a": granted}, reasons)


@pytest.mark.parametrize(
    ("own", "wanted", "granted"),
    [
        (PoolBounds(min_replicas=3, max_replicas=5), 1, 3),
        (PoolBounds(min_replicas=3, max_replicas=5), 9, 5),
        (PoolBounds(max_replicas=5), 1, 2),
        (PoolBounds(min_replicas=3), 9, 8),
        (PoolBounds(min_replicas=1, max_replicas=20), 30, 8),
        (PoolBounds(min_replicas=1, max_replicas=20), 0, 2),
        (PoolBounds(min_replicas=12, max_replicas=20), 0, 8),
        (PoolBounds(max_replicas=1), 9, 2),
    ],
)
def test_narrower_bounds_bind_as_far_as_the_spec_allows_them(own: PoolBounds, wanted: int, granted: int) -> None:
    decision = decide(Bounds(pools={"a": own}), {"a": wanted}, a=pool(min_replicas=2, max_replicas=8))
    assert decision.targets == {"a": granted}


@pytest.mark.parametrize(
    ("own", "least", "most"),
    [
        (PoolBounds(), 2, 8),
        (PoolBounds(min_replicas=3, max_replicas=5), 3, 5),
        (PoolBounds(min_replicas=1, max_replicas=20), 2, 8),
        (PoolBounds(min_replicas=12), 8, 8),
        (PoolBounds(max_replicas=1), 2, 2),
    ],
)
def test_a_spec_within_bounds(own: PoolBounds, least: int, most: int) -> None:
    spec = PoolSpec(role="decode", min_replicas=2, max_replicas=8)
    assert own.within(spec) == spec.replace(min_replicas=least, max_replicas=most)
    open_spec = PoolSpec(role="decode", min_replicas=2)
    assert PoolBounds(max_replicas=1).within(open_spec) == open_spec.replace(max_replicas=2)


def test_a_held_pool_is_brought_inside_and_one_that_was_not_read_is_not() -> None:
    bounds = Bounds(pools=dict.fromkeys("ab", PoolBounds(max_replicas=3)))
    decision = decide(bounds, {"a": None, "b": 9}, a=pool(replicas=7), b=pool(replicas=None))
    assert decision.targets == {"a": 3}
    assert codes(decision) == ["TooManyReplicas", "ReplicasUnknown"]


def test_a_pool_that_the_service_does_not_have_yet_does_no_harm() -> None:
    decision = decide(Bounds(pools={"later": PoolBounds(max_replicas=3)}), {"a": 4}, a=pool())
    assert (decision.targets, decision.reasons) == ({"a": 4}, ())


def test_an_unknown_pool_in_the_proposal_is_told_once() -> None:
    assert codes(decide(Bounds(), {"a": 2, "b": 4}, a=pool())) == ["UnknownPool"]


def test_prefill_and_decode_sleep_and_wake_together() -> None:
    stages: dict[str, Any] = {"p": pool("prefill", 2, min_replicas=0), "d": pool("decode", 2, min_replicas=0)}
    assert decide(Bounds(), {"p": 0, "d": 2}, **stages).targets == {"p": 1, "d": 2}
    kept = Bounds(pools={"d": PoolBounds(min_replicas=1)})
    assert decide(kept, {"p": 0, "d": 0}, **stages).targets == {"p": 1, "d": 1}


def test_zero_is_refused_where_nothing_could_wake_the_pool_up() -> None:
    assert decide(Bounds(), {"a": 0}, requests_per_s=None, a=pool(min_replicas=0)).targets == {"a": 1}


@law
@given(
    st.integers(0, 6),
    st.none() | st.integers(0, 9),
    st.integers(0, 6),
    st.none() | st.integers(0, 9),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_the_specs_have_nothing_to_add(
    least: int, most: int | None, own_least: int, own_most: int | None, present: int, wanted: int
) -> None:
    spec = PoolSpec(
        role="decode", min_replicas=least, max_replicas=None if most is None or most == 0 else max(least, most)
    )
    own = PoolBounds(min_replicas=own_least, max_replicas=None if own_most is None else max(own_least, own_most))
    status = PoolStatus(spec=spec, replicas=Replicas(ready=present))
    guarded = decide(Bounds(pools={"a": own}), {"a": wanted}, a=status)
    granted = guarded.targets["a"]
    assert granted >= spec.min_replicas
    assert spec.max_replicas is None or granted <= spec.max_replicas
    inside = own.within(spec)
    assert granted == max(
        inside.min_replicas, wanted if inside.max_replicas is None else min(wanted, inside.max_replicas)
    )
    assert (granted == wanted) == (guarded.reasons == ())


def test_bounds_that_are_none_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"max_replicas \(2\) must be at least min_replicas \(3\)"):
        PoolBounds(min_replicas=3, max_replicas=2)
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        PoolBounds(min_replicas=-1)
    with pytest.raises(ValidationError, match=r"pools\.a\.max"):
        Bounds(pools={"a": {"max": 3}})
