"""Stabilization: timelines worked out by hand, the Kubernetes HPA's own rule as a law, and a state that stays small."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dynamo_planner import Decision, Hold, Policy, PoolSpec, PoolStatus, Proposal, Replicas, Snapshot, State, Want
from dynamo_planner.guards import Stabilization
from dynamo_planner.guards.stabilization import EXACT_RECOMMENDATIONS
from tests.support.laws import examples

law = examples(derandomize=True)


class Said(Policy, kind="said"):
    """Proposes what ``service`` knob ``wanted`` says: the test's way of telling it."""

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        wanted = snapshot.knobs["wanted"]
        return Proposal(pools={"a": Hold("unknown") if wanted == "hold" else Want(int(wanted), 0.5)}), state


def seen(at_s: float, present: int | None, wanted: int | str) -> Snapshot:
    spec = PoolSpec(role="aggregated", min_replicas=0)
    replicas = None if present is None else Replicas(ready=present)
    return Snapshot(at_s=at_s, pools={"a": PoolStatus(spec=spec, replicas=replicas)}, knobs={"wanted": wanted})


def timeline(guard: Stabilization, steps: list[tuple[float, int | str]], present: int) -> list[int]:
    """The targets at each of (at_s, wanted), each decision carried out before the next, the state through JSON."""
    policy, state, targets = Said() | guard, None, []
    for at_s, wanted in steps:
        decision = policy.decide(seen(at_s, present, wanted), state)
        present = decision.targets.get("a", present)
        targets.append(present)
        state = json.loads(decision.state.model_dump_json()) if decision.state else None
    return targets


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


def test_down_only_as_far_as_the_highest_recommendation_of_the_window() -> None:
    """Window 300 s, from 10. At 0 the present 10 counts as recommended, until 300 when it is exactly 300 s old."""
    steps: list[tuple[float, int | str]] = [(0, 4), (60, 7), (299, 5), (300, 5), (359, 4), (360, 4), (598, 3), (599, 3)]
    assert timeline(Stabilization(), steps, present=10) == [10, 10, 10, 7, 7, 5, 5, 5]
    assert timeline(Stabilization(), [*steps, (600, 3), (659, 3), (660, 3)], present=10)[-3:] == [4, 4, 3]


def test_up_at_once_by_default_and_the_rise_is_remembered_for_the_way_down() -> None:
    steps: list[tuple[float, int | str]] = [(0, 4), (15, 9), (30, 2), (314, 2), (315, 2)]
    assert timeline(Stabilization(), steps, present=4) == [4, 9, 9, 9, 2]


def test_up_only_as_far_as_the_lowest_recommendation_of_its_window() -> None:
    guard = Stabilization(up_window_s=60, down_window_s=0)
    steps: list[tuple[float, int | str]] = [(0, 8), (30, 6), (59, 8), (60, 8), (89, 8), (90, 8), (91, 3)]
    assert timeline(guard, steps, present=2) == [2, 2, 2, 6, 6, 8, 3]


def test_between_the_two_windows_the_pool_stays() -> None:
    """Recommended within the last 100 s: 4 (the start), 9 and 2. Up to at most 2, down to at least 9: 4 is between."""
    guard = Stabilization(up_window_s=100, down_window_s=100)
    assert timeline(guard, [(0, 9), (10, 2), (20, 6)], present=4) == [4, 4, 4]


def test_what_is_remembered_is_the_recommendation_before_stabilization() -> None:
    """From 10 with 3 wanted throughout: were the stabilized 10 recorded, the window would never end."""
    assert timeline(Stabilization(down_window_s=60), [(0, 3), (30, 3), (59, 3), (60, 3)], present=10)[-1] == 3


def test_a_hold_is_left_alone_and_is_no_recommendation() -> None:
    """8 was recommended at 0. The holds in between neither prolong the window nor count as a recommendation of 8."""
    steps: list[tuple[float, int | str]] = [(0, 8), (100, "hold"), (299, "hold"), (300, 5)]
    assert timeline(Stabilization(), steps, present=8) == [8, 8, 8, 5]
    held = (Said() | Stabilization()).decide(seen(0, 8, "hold"))
    assert (held.targets, codes(held)) == ({}, ["Held"])


def test_after_a_pause_longer_than_the_window_it_goes_on_and_starts_a_new_window() -> None:
    steps: list[tuple[float, int | str]] = [(0, 8), (10_000, 5), (10_010, 4), (10_300, 4)]
    assert timeline(Stabilization(), steps, present=8) == [8, 5, 5, 4]


def test_looks_that_are_further_apart_than_the_window_are_not_held_back_for_ever() -> None:
    steps: list[tuple[float, int | str]] = [(0, 5), (600, 4), (1200, 3), (1800, 2)]
    assert timeline(Stabilization(), steps, present=5) == [5, 4, 3, 2]


def test_without_a_state_the_present_target_was_recommended_just_now() -> None:
    policy = Said() | Stabilization()
    for at_s in (0, 300, 600, 90_000):
        decision = policy.decide(seen(at_s, 9, 2))
        assert (decision.targets, codes(decision)) == ({"a": 9}, ["ScaleDownStabilized"])


def test_reasons_have_the_numbers_and_come_exactly_when_it_binds() -> None:
    down = (Said() | Stabilization()).decide(seen(0, 9, 2))
    assert down.explain() == (
        "a: stays at 9\n"
        "  ScaleDownStabilized: 9 was recommended within the last 300 s (wanted=2, recommended=9, window_s=300)"
    )
    up = (Said() | Stabilization(up_window_s=30)).decide(seen(0, 2, 9))
    assert [(r.code, dict(r.values)) for r in up.reasons] == [
        ("ScaleUpStabilized", {"wanted": 9, "recommended": 2, "window_s": 30.0})
    ]
    for free in (Stabilization(), Stabilization(up_window_s=30)):
        assert (Said() | free).decide(seen(0, 9, 9)).reasons == ()
    assert (Said() | Stabilization(down_window_s=0)).decide(seen(0, 9, 2)).reasons == ()


def test_the_load_is_kept() -> None:
    proposal, _ = Stabilization().limit(seen(0, 9, 2), Proposal(pools={"a": Want(2, 1.5)}), None)
    assert proposal.pools["a"] == Want(9, 1.5)


def test_pools_come_and_go() -> None:
    guard = Stabilization()

    def look(at_s: float, state: Any, **present: int | None) -> tuple[dict[str, Any], Any]:
        spec = PoolSpec(role="aggregated")
        pools = {n: PoolStatus(spec=spec, replicas=count) for n, count in present.items()}
        wants = Proposal(pools=dict.fromkeys(present, Want(1)))
        proposal, state = guard.limit(Snapshot(at_s=at_s, pools=pools), wants, state)
        return dict(proposal.pools), state

    first, state = look(0, None, a=5)
    assert first == {"a": Want(5)}
    second, state = look(200, state, a=5, b=7)
    assert second == {"a": Want(5), "b": Want(7)}
    third, state = look(300, state, b=7)
    assert third == {"b": Want(7)}
    assert set(state.pools) == {"b"}
    fourth, state = look(310, state, a=5, b=None)
    assert fourth == {"a": Want(5), "b": Want(1)}, "a starts anew, b could not be read"
    fifth, state = look(499, state, a=5, b=7)
    assert fifth["b"] == Want(7), "the window of b went on"


recommendations = st.lists(
    st.tuples(st.sampled_from([1, 5, 15, 15, 60, 299, 300, 1000]), st.integers(0, 12), st.integers(0, 12)), max_size=60
)


@law
@given(recommendations, st.sampled_from([0, 15, 60]), st.sampled_from([0, 60, 300]), st.integers(0, 12))
def test_it_decides_as_the_hpa_does(
    ticks: list[tuple[int, int, int]], up_window_s: int, down_window_s: int, start: int
) -> None:
    """The HPA keeps every recommendation, the first being the present count, and looks through all of them."""
    guard, state, now = Stabilization(up_window_s=up_window_s, down_window_s=down_window_s), None, 0
    history: list[tuple[int, int]] = []
    for gap, present, wanted in [(1, start, start), *ticks]:
        now += gap
        history = history or [(now, present)]
        up = min([wanted, *(count for at_s, count in history if at_s > now - up_window_s)])
        down = max([wanted, *(count for at_s, count in history if at_s > now - down_window_s)])
        expected = up if present < up else present
        expected = down if expected > down else expected
        history.append((now, wanted))
        proposal, state = guard.limit(seen(now, present, wanted), Proposal(pools={"a": Want(wanted)}), state)
        assert proposal.pools["a"] == Want(expected)


def run(guard: Stabilization, wanted: list[int], every_s: float) -> tuple[int, list[int]]:
    """The largest state in bytes, and the targets of a pool that stays where it is at 20,000."""
    state, largest, targets = None, 0, []
    for tick, count in enumerate(wanted):
        snapshot = seen(tick * every_s, 20_000, count)
        proposal, state = guard.limit(snapshot, Proposal(pools={"a": Want(count)}), state)
        targets.append(proposal.wanted(snapshot, "a") or 0)
        if tick % 20 == 0:
            largest = max(largest, len(state.model_dump_json()))
    return largest, targets


@pytest.mark.slow
@pytest.mark.parametrize("every_s", [0.01, 1.0])
@pytest.mark.parametrize("falling", [True, False])
def test_the_state_stays_small_whatever_the_tick_rate(every_s: float, falling: bool) -> None:
    """One replica less at each tick (or more, for the way up) is the worst case: no recommendation covers another."""
    wanted = [10_000 - tick if falling else tick for tick in range(10_000)]
    largest, _ = run(Stabilization(up_window_s=300, down_window_s=300), wanted, every_s)
    assert largest < 2 * 20 * (EXACT_RECOMMENDATIONS + 2)


def test_few_recommendations_are_remembered_to_the_second() -> None:
    """With the present 1000 these are as many as are kept apart: 0.1 s each, from 999 down."""
    steps: list[tuple[float, int | str]] = [(tick / 10, 999 - tick) for tick in range(EXACT_RECOMMENDATIONS - 1)]
    assert timeline(Stabilization(), [*steps, (300.05, 1)], present=1000)[-1] == 998


def test_in_a_crowded_window_the_first_of_a_slot_stands_until_its_last() -> None:
    """70 recommendations, 100, 99, ..., half a second apart, in slots of a second: the first stands for 0.0 and 0.5."""
    guard, state = Stabilization(down_window_s=64), None
    held = []
    for at_s, wanted in [*((tick / 2, 100 - tick) for tick in range(70)), (64.4, 31), (64.6, 31), (65.6, 31)]:
        proposal, state = guard.limit(seen(at_s, 100, "x"), Proposal(pools={"a": Want(wanted)}), state)
        held.append(proposal.wanted(seen(at_s, 100, "x"), "a"))
    assert held == [100] * 71 + [98, 96]


@pytest.mark.slow
def test_a_crowded_window_is_longer_by_at_most_a_slot() -> None:
    """At 100 looks a second, 1000 down to 1; exactly, the target at a look is what was wanted 30 s before."""
    wanted = [1000 - min(tick // 9, 999) for tick in range(9000)]
    _, targets = run(Stabilization(down_window_s=30), wanted, every_s=0.01)
    slot = round(30 / EXACT_RECOMMENDATIONS / 0.01) + 1
    for tick in range(3000 + slot, 9000):
        exact = wanted[tick - 2999]
        assert exact <= targets[tick] <= wanted[max(tick - 2999 - slot, 0)]


@pytest.mark.parametrize("field", ["up_window_s", "down_window_s"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_window_that_is_no_time_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValidationError, match=field):
        Stabilization(**{field: value})


@pytest.mark.parametrize("data", [{"pools": {"a": {"highest": [["x", 1]]}}}, {"pools": {"a": {"highest": [[0, -1]]}}}])
def test_a_state_that_does_not_read_is_reset(data: Any) -> None:
    value, reasons = Stabilization().recall(State(kind="stabilization", version=1, data=data))
    assert (value, [reason.code for reason in reasons]) == (None, ["StateReset"])
