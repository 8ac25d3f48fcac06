"""Each policy here breaks one law, and is failed by that law and by no other."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from dynamo_planner import Decision, Policy, PoolSpec, Proposal, ScaleTo, Snapshot, State, Want
from dynamo_planner.conformance import ConformanceError, check_policy

pytestmark = pytest.mark.slow  # each is a search


@pytest.fixture(autouse=True)
def few_simplifications(monkeypatch: pytest.MonkeyPatch) -> None:
    """A law that is broken is found as surely; only the case that is shown is less simple."""
    monkeypatch.setattr("dynamo_planner.conformance.check.SIMPLIFICATIONS", 5)


PER_REPLICA = 4.0


def by_rate(snapshot: Snapshot, more: float = 0) -> Proposal:
    """What all of them do besides: replicas by requests per second, and a hold where these are unknown."""
    rate = snapshot.traffic.requests_per_s
    if rate is None:
        return Proposal.hold(snapshot.pools, "traffic.requests_per_s is unknown", "MetricUnknown")
    return Proposal(pools={name: Want(math.ceil(rate / PER_REPLICA + more)) for name in snapshot.pools})


class Behaves(Policy, kind="behaves"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return by_rate(snapshot), state


# Input


class ChangesAMapping(Behaves, kind="changes_a_mapping"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        snapshot.missing._items["traffic.isl"] = "forgotten"  # type: ignore[attr-defined]
        return by_rate(snapshot), state


class ChangesAField(Behaves, kind="changes_a_field"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        object.__setattr__(snapshot.traffic, "queued", 17.0)
        return by_rate(snapshot), state


class ChangesItsState(Behaves, kind="changes_its_state"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        seen = state or [0, 0]
        seen.append(seen.pop(0) + 1)
        return by_rate(snapshot), seen


# State


class StateIsAnObject(Behaves, kind="state_is_an_object"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return by_rate(snapshot), object()


class StateHasNumbersForKeys(Behaves, kind="state_has_numbers_for_keys"):
    """JSON makes text of them, and it finds none of them again."""

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return by_rate(snapshot, 1 if state and 1 in state else 0), {1: "seen"}


class StateComesBackAsText(Behaves, kind="state_comes_back_as_text"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        since = state or datetime.timedelta(seconds=snapshot.at_s)
        return by_rate(snapshot, since.total_seconds() * 0), since


class StateGrows(Behaves, kind="state_grows"):
    state_type: ClassVar[Any] = tuple[int, ...]

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return by_rate(snapshot), (*(state or ()), 1)


class StateIsLarge(Behaves, kind="state_is_large"):
    state_type: ClassVar[Any] = tuple[float, ...]

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return by_rate(snapshot), (*(state or ()), snapshot.at_s + 0.123456789)[-5000:]


class ForgetsItsPeak(Behaves, kind="forgets_its_peak"):
    """The most that was needed so far; and with no state just what is needed now."""

    state_type: ClassVar[Any] = float

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        rate = snapshot.traffic.requests_per_s
        if rate is None:
            return by_rate(snapshot), state
        most = max(rate, state or 0.0)
        return Proposal(pools={name: Want(math.ceil(most / PER_REPLICA)) for name in snapshot.pools}), most


# What is wanted


class FewerUnderLoad(Behaves, kind="fewer_under_load"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        rate = snapshot.traffic.requests_per_s
        if rate is None:
            return by_rate(snapshot), state
        return Proposal(pools={name: Want(1 if rate > 40 else 2 + round(rate / 40)) for name in snapshot.pools}), state


class OnPurpose(FewerUnderLoad, kind="on_purpose"):
    monotone = False
    monotone_reason = "sheds load beyond what the site can power"


class OnPurposeWithoutAReason(FewerUnderLoad, kind="on_purpose_without_a_reason"):
    monotone = False


class RaisesOnNone(Behaves, kind="raises_on_none"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        isl = snapshot.traffic.isl
        return by_rate(snapshot, 0 * isl.mean), state  # type: ignore[union-attr]


class TakesUnknownForZero(Behaves, kind="takes_unknown_for_zero"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        wants = {name: Want(math.ceil(8 * (pool.kv_usage or 0))) for name, pool in snapshot.pools.items()}
        return Proposal(pools=wants), state


class TakesNoAnswerForIdle(Behaves, kind="takes_no_answer_for_idle"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        if snapshot.traffic.requests_per_s is None:
            return Proposal(pools={name: Want(0) for name in snapshot.pools}), state
        return by_rate(snapshot), state


# Around the framework: each overrides decide


class Overrides(Policy, kind="overrides"):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return by_rate(snapshot), state

    def decide(self, snapshot: Snapshot, state: State | Mapping[str, Any] | None = None) -> Decision:
        return self.altered(snapshot, super().decide(snapshot, state), state)

    def altered(self, snapshot: Snapshot, decision: Decision, state: Any) -> Decision:
        return decision


class BeyondBounds(Overrides, kind="beyond_bounds"):
    def altered(self, snapshot: Snapshot, decision: Decision, state: Any) -> Decision:
        present = {name: pool.replicas.target for name, pool in snapshot.pools.items() if pool.replicas}
        targets = dict.fromkeys(present, 99)
        actions = [ScaleTo(pool=name, replicas=99, expected=there) for name, there in present.items()]
        return decision.replace(targets=targets, actions=tuple(actions))


class ActsTwice(Overrides, kind="acts_twice"):
    def altered(self, snapshot: Snapshot, decision: Decision, state: Any) -> Decision:
        return decision.replace(actions=decision.actions * 2)


class ExpectsWhatIsNotThere(Overrides, kind="expects_what_is_not_there"):
    def altered(self, snapshot: Snapshot, decision: Decision, state: Any) -> Decision:
        actions = tuple(action.replace(expected=0) for action in decision.actions)
        return decision.replace(actions=actions)


class HoldsInSilence(Overrides, kind="holds_in_silence"):
    def altered(self, snapshot: Snapshot, decision: Decision, state: Any) -> Decision:
        return decision.replace(targets={}, actions=(), reasons=())


class DecidesAnewAtTheSameTime(Overrides, kind="decides_anew"):
    def altered(self, snapshot: Snapshot, decision: Decision, state: Any) -> Decision:
        counted = int(state.data) + 1 if isinstance(state, State) else 0
        return decision.replace(state=State(kind="count", version=1, data=counted))


class DecidesNothing(Overrides, kind="decides_nothing"):
    def decide(self, snapshot: Snapshot, state: Any = None) -> Any:
        return None


def failed(policy: Policy, pools: Mapping[str, PoolSpec] | None = None, examples: int = 200) -> ConformanceError:
    with pytest.raises(ConformanceError) as caught:
        check_policy(policy, pools=pools, examples=examples)
    assert repr(caught.value.law) in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("policy", "law"),
    [
        (ChangesAMapping(), "input-unchanged"),
        (ChangesAField(), "input-unchanged"),
        (ChangesItsState(), "input-unchanged"),
        (StateIsAnObject(), "state-json"),
        (StateHasNumbersForKeys(), "state-json"),
        (StateComesBackAsText(), "state-json"),
        (StateGrows(), "state-size"),
        (StateIsLarge(), "state-size"),
        (FewerUnderLoad(), "monotone"),
        (OnPurposeWithoutAReason(), "monotone"),
        (RaisesOnNone(), "never-raises"),
        (DecidesNothing(), "never-raises"),
        (TakesUnknownForZero(), "missing-never-lowers"),
        (TakesNoAnswerForIdle(), "missing-never-lowers"),
        (BeyondBounds(), "within-bounds"),
        (ActsTwice(), "actions"),
        (ExpectsWhatIsNotThere(), "actions"),
        (HoldsInSilence(), "actions"),
        (DecidesAnewAtTheSameTime(), "same-time"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
def test_each_breaks_its_own_law(policy: Policy, law: str) -> None:
    assert failed(policy).law == law


def test_forgetting_is_seen_in_a_pool_that_may_have_any_number_of_replicas() -> None:
    assert failed(ForgetsItsPeak(), {"workers": PoolSpec(role="aggregated")}, examples=2000).law == "no-state"


def test_what_they_share_breaks_no_law() -> None:
    check_policy(Behaves())
    check_policy(OnPurpose())
    check_policy(Overrides())
