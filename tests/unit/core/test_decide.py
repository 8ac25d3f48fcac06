"""What holds for every decision, whichever policy made it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel

from dynamo_planner import (
    Bounds,
    Decision,
    GpuBudget,
    Guard,
    Hold,
    Policy,
    PoolSpec,
    PoolStatus,
    Proposal,
    Reason,
    Replicas,
    Role,
    ScaleTo,
    SetKnob,
    Snapshot,
    State,
    Traffic,
    Want,
    highest,
)
from dynamo_planner.core.policy import as_policy


def pool(role: Role = "aggregated", replicas: Any = 2, **spec: Any) -> PoolStatus:
    return PoolStatus(spec=PoolSpec(role=role, **spec), replicas=replicas)


def seen(at_s: float = 0, traffic: Traffic | None = None, **pools: PoolStatus) -> Snapshot:
    return Snapshot(at_s=at_s, traffic=traffic or Traffic(requests_per_s=1), pools=pools)


def decide(wants: Mapping[str, int | None], snapshot: Snapshot) -> Decision:
    return as_policy(lambda _: wants).decide(snapshot)


def codes(decision: Decision, name: str | None = None) -> list[str]:
    return [reason.code for reason in decision.reasons if name is None or reason.pool == name]


class Counter(Policy, kind="counter"):
    """Wants one replica more each time it is asked."""

    state_type: ClassVar[Any] = int

    def propose(self, snapshot: Snapshot, state: int | None) -> tuple[Proposal, int]:
        count = (state or 0) + 1
        return Proposal(pools={name: Want(count) for name in snapshot.pools}), count


class Cap(Guard, kind="cap"):
    most: int
    rank = 1

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        capped = {
            name: Want(self.most, entry.load)
            for name, entry in proposal.pools.items()
            if isinstance(entry, Want) and entry.replicas > self.most
        }
        return proposal.with_pools(capped), state


class Note(Guard, kind="note"):
    """Counts in a model of its own."""

    class Seen(BaseModel):
        count: int = 0

    state_type: ClassVar[Any] = Seen

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        return proposal, self.Seen(count=(state.count if state else 0) + 1)


def test_actions_are_what_differs_and_reductions_come_first() -> None:
    decision = decide({"a": 3, "b": 1, "c": 2}, seen(a=pool(), b=pool(), c=pool()))
    assert decision.targets == {"a": 3, "b": 1, "c": 2}
    assert decision.actions == (
        ScaleTo(pool="b", replicas=1, expected=2),
        ScaleTo(pool="a", replicas=3, expected=2),
    )


def test_a_held_pool_has_no_target_but_a_reason_with_the_number_it_stays_at() -> None:
    decision = decide({"a": None}, seen(a=pool(), b=pool(replicas=5)))
    assert decision.targets == {}
    assert [(r.code, r.pool, r.values["target"]) for r in decision.reasons] == [("Held", "a", 2), ("NoOpinion", "b", 5)]


def test_a_pool_that_could_not_be_read_is_held() -> None:
    decision = decide({"a": 7}, seen(a=pool(replicas=None)))
    assert (decision.targets, decision.actions, codes(decision)) == ({}, (), ["ReplicasUnknown"])


def test_a_pool_that_does_not_exist_is_told_and_not_acted_on() -> None:
    decision = decide({"decoder": 7, "a": 2}, seen(a=pool()))
    assert decision.targets == {"a": 2}
    assert "'decoder' is not a pool" in decision.explain()


@pytest.mark.parametrize(("wanted", "target", "code"), [(0, 2, "TooFewReplicas"), (9, 4, "TooManyReplicas")])
def test_specs_bound_every_decision(wanted: int, target: int, code: str) -> None:
    decision = decide({"a": wanted}, seen(a=pool(min_replicas=2, max_replicas=4)))
    assert (decision.targets["a"], codes(decision)) == (target, [code])


def test_a_held_pool_outside_its_bounds_is_brought_inside() -> None:
    decision = decide({"a": None}, seen(a=pool(replicas=1, min_replicas=2)))
    assert decision.actions == (ScaleTo(pool="a", replicas=2, expected=1),)


def test_to_zero_only_where_a_frontend_could_wake_it_up() -> None:
    idle = pool(min_replicas=0)
    refused = decide({"a": 0}, seen(traffic=Traffic(), a=idle))
    assert (refused.targets["a"], codes(refused)) == (1, ["ScaleToZeroRefused"])
    assert decide({"a": 0}, seen(traffic=Traffic(requests_per_s=0), a=idle)).targets["a"] == 0
    assert decide({"a": 0}, seen(traffic=Traffic(queued=0), a=idle)).targets["a"] == 0


def test_prefill_and_decode_go_to_zero_and_wake_up_together() -> None:
    awake = seen(p=pool("prefill", min_replicas=0), d=pool("decode", min_replicas=0))
    assert decide({"p": 0, "d": 1}, awake).targets == {"p": 1, "d": 1}
    assert decide({"p": 0, "d": None}, awake).targets == {"p": 1}
    assert decide({"p": 0, "d": 0}, awake).targets == {"p": 0, "d": 0}
    asleep = seen(p=pool("prefill", 0, min_replicas=0), d=pool("decode", 0, min_replicas=0))
    assert decide({"p": 2, "d": None}, asleep).targets == {"p": 2, "d": 1}


def test_a_snapshot_that_is_not_newer_gets_the_same_decision_and_leaves_the_state() -> None:
    policy = Counter() | Cap(most=8)
    first = policy.decide(seen(10, a=pool()))
    for at_s in (10, 3):
        again = policy.decide(seen(at_s, a=pool()), first.state)
        assert (again.targets, again.reasons, again.state) == (first.targets, first.reasons, first.state)
    moved = policy.decide(seen(10, a=pool(replicas=1)), first.state)
    assert (moved.targets, moved.actions) == ({"a": 1}, ())


@pytest.mark.parametrize("carry", [lambda s: s, lambda s: json.loads(s.model_dump_json()), lambda s: s.model_dump()])
def test_state_goes_on_as_a_value_and_as_json(carry: Callable[[State], Any]) -> None:
    policy, state = Counter() | Note() | Cap(most=8), None
    for at_s in range(1, 5):
        decision = policy.decide(seen(at_s, a=pool()), state)
        assert decision.state is not None
        assert decision.targets["a"] == at_s
        state = carry(decision.state)


def test_only_the_node_that_does_not_match_is_reset_and_says_so() -> None:
    state = (Counter() | Note()).decide(seen(1, a=pool())).state
    assert state is not None
    data = state.model_dump(mode="json")
    data["data"]["policy"]["data"][1]["data"] = {"count": "many"}
    after = (Counter() | Note()).decide(seen(2, a=pool()), data)
    assert after.targets["a"] == 2
    assert [str(reason) for reason in after.reasons] == [
        "StateReset: the state of 'note' does not read: count: Input should be a valid integer, unable to parse string "
        "as an integer; it starts anew"
    ]
    data["data"]["policy"]["data"][0]["version"] = 99
    assert (Counter() | Note()).decide(seen(2, a=pool()), data).targets["a"] == 1


@pytest.mark.parametrize("state", [{}, {"kind": 3}, {"kind": "decision", "version": 1, "data": 5}, "junk", [1]])
def test_a_state_that_is_nobodys_is_reset_not_raised(state: Any) -> None:
    decision = Counter().decide(seen(1, a=pool()), state)
    assert (decision.targets["a"], codes(decision)) == (1, ["StateReset"])


def test_adding_a_guard_resets_no_other_node() -> None:
    state = (Counter() | Note()).decide(seen(1, a=pool())).state
    after = (Counter() | Cap(most=9)).decide(seen(2, a=pool()), state)
    assert (after.targets["a"], codes(after)) == (2, [])


def test_the_first_guard_of_a_policy_does_not_reset_it() -> None:
    state = Counter().decide(seen(1, a=pool())).state
    after = (Counter() | Cap(most=9)).decide(seen(2, a=pool()), state)
    assert (after.targets["a"], codes(after)) == (2, [])


def test_a_soft_guard_after_a_hard_one_is_refused_however_it_gets_there() -> None:
    with pytest.raises(ValueError, match="'note' is a soft guard and stands after 'cap'"):
        Counter() | Cap(most=8) | Note()
    with pytest.raises(ValueError, match="'bounds' is a guard and stands after 'gpu_budget', which is hard"):
        Counter() | GpuBudget(max_gpus=8) | Bounds()
    with pytest.raises(TypeError):
        Counter() | 3  # type: ignore[operator]


def test_plain_functions_are_policies_also_on_the_left() -> None:
    guarded = (lambda _: {"a": 9}) | Cap(most=4)
    assert guarded.decide(seen(a=pool())).targets == {"a": 4}
    with pytest.raises(TypeError, match="expected a Policy or a function"):
        highest(5)  # type: ignore[arg-type]


class Forgetful(Guard, kind="tests:forgetful"):
    """Returns the proposal alone, without a state."""

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> Any:
        return proposal


def test_a_guard_that_returns_no_state_is_named() -> None:
    with pytest.raises(TypeError, match=r"Forgetful\.limit must return a proposal and its new state"):
        (as_policy(lambda _: {"a": 1}) | Forgetful()).decide(seen(a=pool()))


def test_replay_carries_the_state_along() -> None:
    targets = [d.targets["a"] for d in Counter().replay(seen(n, a=pool()) for n in range(1, 4))]
    assert targets == [1, 2, 3]


def test_a_pools_knobs_wait_while_its_replicas_change() -> None:
    class Both(Policy):
        def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
            knobs = (SetKnob(knob="chunk", value=512, pool="a"), SetKnob(knob="chunk", value=512, pool="b"))
            return Proposal(pools={"a": Want(3), "b": Want(2)}, knobs=knobs), state

    decision = Both().decide(seen(a=pool(), b=pool()))
    assert decision.actions == (
        ScaleTo(pool="a", replicas=3, expected=2),
        SetKnob(knob="chunk", value=512, pool="b"),
    )
    assert codes(decision) == ["KnobDeferred"]


def test_a_decision_survives_json() -> None:
    decision = (Counter() | Note()).decide(seen(1, a=pool(), b=pool(replicas=None)))
    text = decision.model_dump_json()
    assert Decision.model_validate_json(text).model_dump_json() == text


def test_numbers_of_a_reason_can_be_read() -> None:
    values = {"until_s": 86_400.0, "load": 1.02345, "rate": 1234.56, "tokens": 131072, "far": float("inf")}
    text = str(Reason(code="Test", message="a test", values=values))
    assert text == "Test: a test (until_s=86400, load=1.023, rate=1235, tokens=131072, far=None)"


def test_wants_and_holds_are_checked() -> None:
    for build in (lambda: Want(-1), lambda: Want(2.5), lambda: Proposal(pools={"a": "many"})):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"greater than or equal to 0|fractional part|dictionary|instance"):
            build()
    assert Proposal(pools={"a": None}).pools["a"] == Hold("the policy returned None for this pool")
    assert Want(2, load=float("nan")).load is None
    assert Replicas(ready=0).target == 0
