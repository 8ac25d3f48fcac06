"""StepLimit: timelines, and that no stretch of a period moves a pool further than it says."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dynamo_planner import Hold, PoolSpec, PoolStatus, Proposal, Replicas, Snapshot, State, Want
from dynamo_planner.guards import StepLimit
from dynamo_planner.guards.step_limit import CHANGES_PER_PERIOD
from tests.support.laws import examples

law = examples(derandomize=True)


def seen(at_s: float, **present: int | None) -> Snapshot:
    spec = PoolSpec(role="aggregated", min_replicas=0)
    pools = {n: PoolStatus(spec=spec, replicas=None if c is None else Replicas(ready=c)) for n, c in present.items()}
    return Snapshot(at_s=at_s, pools=pools)


def look(guard: StepLimit, at_s: float, present: int, wanted: int, state: Any = None) -> tuple[int, Any]:
    """The granted replicas of one pool, and the state after a round trip through JSON."""
    snapshot = seen(at_s, a=present)
    proposal, value = guard.limit(snapshot, Proposal(pools={"a": Want(wanted)}), guard.recall(state)[0])
    remembered = guard.remember(value)
    assert remembered is not None
    granted = proposal.wanted(snapshot, "a")
    assert granted is not None
    return granted, State.model_validate(json.loads(remembered.model_dump_json()))


def timeline(guard: StepLimit, present: int, steps: Sequence[tuple[float, int]]) -> list[int]:
    """The targets at each of (at_s, wanted), each decision carried out before the next."""
    state, targets = None, []
    for at_s, wanted in steps:
        present, state = look(guard, at_s, present, wanted, state)
        targets.append(present)
    return targets


@pytest.mark.parametrize(
    ("guard", "present", "wanted", "granted"),
    [
        (StepLimit(), 1, 100, 5),
        (StepLimit(), 10, 100, 20),
        (StepLimit(), 0, 100, 4),
        (StepLimit(), 100, 0, 0),
        (StepLimit(up_replicas=None), 3, 100, 6),
        (StepLimit(up_replicas=None), 0, 100, 2),
        (StepLimit(up_replicas=None, up_factor=1.5), 3, 100, 5),
        (StepLimit(up_replicas=None, up_factor=1.1), 10, 100, 11),
        (StepLimit(up_factor=None), 50, 100, 54),
        (StepLimit(up_replicas=0, up_factor=None), 5, 100, 5),
        (StepLimit(up_replicas=None, up_factor=None), 1, 100, 100),
        (StepLimit(down_replicas=2), 10, 0, 8),
        (StepLimit(down_factor=2), 7, 0, 3),
        (StepLimit(down_factor=2), 1, 0, 0),
        (StepLimit(down_factor=100 / 90), 10, 0, 9),
        (StepLimit(down_replicas=4, down_factor=2), 20, 0, 10),
        (StepLimit(down_replicas=4, down_factor=2), 6, 0, 2),
        (StepLimit(down_replicas=0), 6, 0, 6),
        (StepLimit(down_replicas=9), 6, 0, 0),
        (StepLimit(down_replicas=2), 10, 9, 9),
        (StepLimit(), 10, 10, 10),
    ],
)
def test_one_decision(guard: StepLimit, present: int, wanted: int, granted: int) -> None:
    assert look(guard, 0, present, wanted)[0] == granted


def test_up_by_the_larger_of_four_and_double_each_15_s() -> None:
    steps = [(at_s, 100) for at_s in (0, 5, 10, 15, 20, 25, 30, 45, 60)]
    assert timeline(StepLimit(), 2, steps) == [6, 6, 6, 12, 12, 12, 24, 48, 96]


def test_down_by_half_each_minute() -> None:
    steps = [(at_s, 0) for at_s in (0, 30, 59, 60, 90, 120, 180, 240)]
    assert timeline(StepLimit(down_factor=2, period_s=60), 10, steps) == [5, 5, 5, 2, 2, 1, 0, 0]


def test_a_period_of_zero_limits_each_decision() -> None:
    guard = StepLimit(up_replicas=2, up_factor=None, period_s=0)
    assert timeline(guard, 1, [(0, 9), (1, 9), (2, 9), (3, 9)]) == [3, 5, 7, 9]


def test_what_counts_is_what_is_there_not_what_was_decided() -> None:
    """The decisions of 0 and 5 were not carried out; the one of 10 was, and counts from then on."""
    guard = StepLimit(up_replicas=4, up_factor=None)
    granted, state = look(guard, 0, 2, 100)
    assert granted == 6
    granted, state = look(guard, 5, 2, 100, state)
    assert granted == 6
    granted, state = look(guard, 20, 2, 100, state)
    assert granted == 6
    granted, state = look(guard, 25, 6, 100, state)
    assert granted == 6
    granted, state = look(guard, 34, 6, 100, state)
    assert granted == 6
    assert look(guard, 35, 6, 100, state)[0] == 10


def test_what_others_changed_is_not_undone() -> None:
    guard = StepLimit(up_replicas=4, up_factor=None, down_replicas=1)
    _, state = look(guard, 0, 2, 2)
    granted, after = look(guard, 5, 30, 31, state)
    assert granted == 30
    assert look(guard, 5, 30, 29, state)[0] == 29
    assert look(guard, 20, 30, 40, after)[0] == 34


def test_a_fall_and_a_rise_within_the_period_go_from_where_it_began() -> None:
    """The HPA's rule: 10 at the start of the period, so up to 14 even from the 2 that are there now."""
    guard = StepLimit(up_replicas=4, up_factor=None)
    assert timeline(guard, 10, [(0, 10), (5, 2), (10, 100)]) == [10, 2, 14]


def test_without_a_state_and_after_a_long_pause_the_present_was_there_all_along() -> None:
    guard = StepLimit(up_replicas=4, up_factor=None)
    _, state = look(guard, 0, 2, 2)
    assert look(guard, 1e6, 50, 100)[0] == 54
    assert look(guard, 1e6, 50, 100, state)[0] == 54


def test_a_hold_is_left_alone_but_its_target_is_seen() -> None:
    guard = StepLimit(up_replicas=4, up_factor=None)
    held, state = guard.limit(seen(0, a=3), Proposal(pools={"a": Hold("unknown")}), None)
    assert held == Proposal(pools={"a": Hold("unknown")})
    held, state = guard.limit(seen(10, a=7), Proposal(pools={"a": None}), state)
    assert guard.limit(seen(14, a=7), Proposal(pools={"a": Want(99)}), state)[0].pools["a"] == Want(7)


def test_pools_come_and_go() -> None:
    guard = StepLimit(up_replicas=1, up_factor=None)
    _, state = guard.limit(seen(0, a=3), Proposal(), None)
    wants = Proposal(pools={"a": Want(9), "b": Want(9)})
    proposal, state = guard.limit(seen(5, a=3, b=5), wants, state)
    assert dict(proposal.pools) == {"a": Want(4), "b": Want(6)}
    proposal, state = guard.limit(seen(10, a=None, b=6), wants, state)
    assert dict(proposal.pools) == {"a": Want(9), "b": Want(6)}
    _, state = guard.limit(seen(12, b=6), Proposal(), state)
    assert set(state.pools) == {"b"}


def test_reasons_have_the_numbers_and_loads_are_kept() -> None:
    guard = StepLimit(down_replicas=1)
    up, _ = guard.limit(seen(0, a=3), Proposal(pools={"a": Want(9, 8.5)}), None)
    assert up.pools["a"] == Want(7, 8.5)
    assert [str(reason) for reason in up.reasons] == [
        "ScaleUpLimit: from 3 replicas at most 7 within the period (wanted=9, limit=7, period_start=3, period_s=15)"
    ]
    down, _ = guard.limit(seen(0, a=3), Proposal(pools={"a": Want(1, 0.5)}), None)
    assert [(r.code, dict(r.values)) for r in down.reasons] == [
        ("ScaleDownLimit", {"wanted": 1, "limit": 2, "period_start": 3, "period_s": 15.0})
    ]
    free, _ = guard.limit(seen(0, a=3), Proposal(pools={"a": Want(2)}), None)
    assert free.reasons == ()


gaps = st.sampled_from([1.0, 4.0, 5.0, 7.5, 15.0, 40.0])


@law
@given(
    st.integers(0, 10),
    st.lists(st.tuples(gaps, st.integers(0, 60), st.booleans()), max_size=40),
    st.integers(0, 5),
    st.none() | st.sampled_from([1.0, 1.5, 2.0]),
)
def test_no_period_raises_a_pool_further(
    start: int, ticks: list[tuple[float, int, bool]], by: int, factor: float | None
) -> None:
    """Whether decisions are carried out or not: from a decision back over one period, to the target then."""
    guard, present, at_s, state = StepLimit(up_replicas=by, up_factor=factor), start, 0.0, None
    targets: list[tuple[float, int]] = []
    for gap, wanted, carried_out in ticks:
        at_s += gap
        granted, state = look(guard, at_s, present, wanted, state)
        begin = [count for since_s, count in targets if since_s <= at_s - 15][-1:] or [start]
        most = max(begin[0] + by, math.ceil(max(begin[0], 1) * factor) if factor else 0, present)
        assert granted <= max(most, present)
        assert min(present, wanted) <= granted <= max(present, wanted)
        present = granted if carried_out else present
        targets.append((at_s, present))


@pytest.mark.slow
@pytest.mark.parametrize("every_s", [0.001, 0.1, 10.0])
def test_the_state_stays_small_whatever_the_tick_rate(every_s: float) -> None:
    guard, state, largest = StepLimit(), None, 0
    for tick in range(10_000):
        _, state = look(guard, tick * every_s, 10_000 + tick % 7, 1, state)
        largest = max(largest, len(state.model_dump_json()))
    assert largest < 30 * (CHANGES_PER_PERIOD + 4)


def test_many_changes_in_a_period_still_limit_it() -> None:
    guard = StepLimit(up_replicas=10, up_factor=None)
    targets = timeline(guard, 0, [(tick * 0.01, 10_000) for tick in range(4500)])
    assert all(b >= a for a, b in itertools.pairwise(targets))
    assert targets[-1] <= 10 * (45 / 15) * (1 + 2 / CHANGES_PER_PERIOD)


@pytest.mark.parametrize(
    ("field", "value"),
    [("up_replicas", -1), ("up_factor", 0.5), ("down_replicas", -2), ("down_factor", 0), ("period_s", -1)],
)
def test_limits_that_are_none_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=rf"(?s){field}.*greater than or equal to"):
        StepLimit(**{field: value})
