"""Several nodes of one kind in a chain: each finds its own state again."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from dynamo_planner import (
    Guard,
    Policy,
    PoolSpec,
    PoolStatus,
    Proposal,
    Snapshot,
    State,
    StepLimit,
    Want,
    highest,
    load_policy,
)
from dynamo_planner.core.policy import Guarded, as_policy

POOLS = {"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=2)}


class Counts(Guard, kind="counts"):
    """Counts the decisions that it was in."""

    state_type: ClassVar[Any] = int

    def limit(self, snapshot: Snapshot, proposal: Proposal, state: int | None) -> tuple[Proposal, int]:
        return proposal, (state or 0) + 1


class Rises(Policy, kind="rises"):
    """One replica more with each decision."""

    state_type: ClassVar[Any] = int

    def propose(self, snapshot: Snapshot, state: int | None) -> tuple[Proposal, int]:
        count = (state or 0) + 1
        return Proposal(pools={"decode": Want(count)}), count


def chain(*guards: Guard) -> Policy:
    policy = as_policy(lambda _: {"decode": 3})
    for guard in guards:
        policy = policy | guard
    return policy


def decided(policy: Policy, state: Any, ticks: int) -> Any:
    for _ in range(ticks):
        at_s = 0.0 if state is None else state["data"]["at_s"] + 1
        decision = policy.decide(Snapshot(at_s=at_s, pools=POOLS), state)
        assert not any(reason.code == "StateReset" for reason in decision.reasons)
        assert decision.state is not None
        state = decision.state.model_dump(mode="json")
    return state


def counts(state: Any) -> list[int | None]:
    """What each node remembers, the policy first."""
    return [own and own["data"] for own in state["data"]["policy"]["data"]]


A, B, C = Counts(name="a"), Counts(name="b"), Counts(name="c")
PLAIN = Counts()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((A, B), (B,), [4]),
        ((A, B), (B, A), [4, 4]),
        ((B,), (A, B), [1, 4]),
        ((PLAIN, A), (A,), [4]),
        ((PLAIN, A), (PLAIN,), [4]),
        ((A,), (PLAIN,), [1]),
        ((A,), (B,), [1]),
        ((PLAIN,), (A, PLAIN), [1, 4]),
    ],
    ids=["first-removed", "swapped", "added-before", "plain-removed", "named-removed", "name-lost", "renamed", "mixed"],
)
def test_a_state_belongs_to_its_name(before: tuple[Guard, ...], after: tuple[Guard, ...], expected: list[int]) -> None:
    state = decided(chain(*before), None, 3)
    assert counts(decided(chain(*after), state, 1))[1:] == expected


def test_states_from_before_nodes_had_names_go_by_order() -> None:
    state = decided(chain(PLAIN, PLAIN), None, 3)
    states = state["data"]["policy"]["data"]
    states[1]["data"], states[2]["data"] = 10, 20
    assert "name" not in states[1]
    assert counts(decided(chain(A, B), state, 1))[1:] == [11, 21]
    assert counts(decided(chain(A, PLAIN), state, 1))[1:] == [11, 21]
    assert counts(decided(chain(PLAIN, B), state, 1))[1:] == [11, 21]


def test_policies_of_one_kind_keep_their_states() -> None:
    state = decided(highest(Rises(name="one"), Rises(name="two")), None, 3)
    state = decided(highest(Rises(name="two")), state, 1)
    assert counts(state) == [4]


def test_a_name_is_data() -> None:
    guard = StepLimit(name="slow", period_s=600)
    assert load_policy([{"kind": "load"}, guard.model_dump(mode="json")]) == load_policy({"kind": "load"}) | guard
    assert StepLimit.model_validate(guard.model_dump(mode="json")) == guard
    assert "name" not in StepLimit().model_dump(mode="json")
    assert "name" not in repr(StepLimit())
    assert "name='slow'" in repr(guard)


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="2 nodes of kind 'counts' have the name 'a': give each its own"):
        chain(A, A)
    with pytest.raises(ValueError, match="give each its own"):
        highest(Rises(name="one"), Rises(name="one"))
    assert isinstance(chain(A, StepLimit(name="a")), Guarded)


def test_a_state_without_a_name_has_none_in_json() -> None:
    assert State(kind="counts", version=1, data=3).model_dump(mode="json") == {
        "kind": "counts",
        "version": 1,
        "data": 3,
    }
    named = State(kind="counts", version=1, data=3, name="a")
    assert State.model_validate_json(named.model_dump_json()) == named
