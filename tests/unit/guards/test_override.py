"""Override."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dynamo_planner import (
    Decision,
    Hold,
    Policy,
    PoolSpec,
    PoolStatus,
    Proposal,
    ScaleTo,
    SetKnob,
    Snapshot,
    Want,
)
from dynamo_planner.config.policies import load_policy
from dynamo_planner.config.problems import ConfigError
from dynamo_planner.core.policy import Guarded, as_policy
from dynamo_planner.guards import GpuBudget, Override
from dynamo_planner.guards.override import Floor, Pause, Pin

NOON, EVENING = 1_700_000_000.0, 1_700_020_000.0


def pool(replicas: Any = 4, **spec: Any) -> PoolStatus:
    return PoolStatus(spec=PoolSpec(role="decode", **spec), replicas=replicas)


def decide(override: Override, wants: dict[str, int | None], at_s: float = NOON, **pools: Any) -> Decision:
    snapshot = Snapshot(at_s=at_s, pools=pools or {"a": pool()})
    return (as_policy(lambda _: wants) | override).decide(snapshot)


def pin(replicas: int = 6, **fields: Any) -> Pin:
    return Pin(**{"pool": "a", "replicas": replicas, "until_s": EVENING, "reason": "load test"} | fields)


def floor(replicas: int = 6, **fields: Any) -> Floor:
    return Floor(**{"pool": "a", "replicas": replicas, "until_s": EVENING, "reason": "launch"} | fields)


def pause(**fields: Any) -> Pause:
    return Pause(**{"until_s": EVENING, "reason": "incident 42"} | fields)


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.reasons]


@pytest.mark.parametrize("wanted", [1, 4, 9, None])
def test_a_pin_is_exact(wanted: int | None) -> None:
    decision = decide(Override(pins=(pin(),)), {"a": wanted})
    assert (decision.targets, codes(decision)) == ({"a": 6}, ["Pinned"])


def test_a_floor_lifts_and_never_lowers() -> None:
    override = Override(floors=(floor(),))
    assert decide(override, {"a": 3}).targets == {"a": 6}
    assert (decide(override, {"a": 9}).targets, codes(decide(override, {"a": 9}))) == ({"a": 9}, [])
    assert decide(override, {"a": None}).targets == {"a": 6}
    assert codes(decide(override, {"a": None}, a=pool(7))) == ["Held"]


def test_the_highest_floor_counts() -> None:
    override = Override(floors=(floor(5), floor(7, until_s=NOON + 60), floor(6)))
    assert decide(override, {"a": 1}).targets == {"a": 7}
    assert decide(override, {"a": 1}, at_s=NOON + 60).targets == {"a": 6}


def test_a_pause_holds_all_pools_or_those_it_names() -> None:
    everything = decide(Override(pauses=(pause(),)), {"a": 9, "b": 1}, a=pool(), b=pool())
    assert (everything.targets, codes(everything)) == ({}, ["Paused", "Paused"])
    one = decide(Override(pauses=(pause(pools=("a",)),)), {"a": 9, "b": 1}, a=pool(), b=pool())
    assert (one.targets, codes(one)) == ({"b": 1}, ["Paused"])


@pytest.mark.parametrize("at_s", [EVENING, EVENING + 1, EVENING + 1e9])
def test_an_expired_entry_does_nothing(at_s: float) -> None:
    override = Override(pins=(pin(),), floors=(floor(),), pauses=(pause(),))
    decision = decide(override, {"a": 3}, at_s=at_s)
    assert (decision.targets, decision.reasons) == ({"a": 3}, ())
    assert decide(override, {"a": 3}, at_s=EVENING - 1).targets == {}


def test_a_pause_is_above_a_pin_and_a_pin_above_a_floor() -> None:
    both = Override(pins=(pin(8),), floors=(floor(6),))
    assert decide(both, {"a": 1}).targets == {"a": 8}
    assert decide(Override(pins=(pin(8),), pauses=(pause(),)), {"a": 1}).targets == {}


def test_reasons_say_who_wants_it_and_until_when() -> None:
    assert decide(Override(pins=(pin(),)), {"a": 3}).explain() == (
        "a: 4 -> 6 replicas\n  Pinned: load test, until 2023-11-15 03:46:40Z (wanted=3, replicas=6, until_s=1700020000)"
    )
    assert decide(Override(pauses=(pause(),)), {"a": 3}).explain() == (
        "a: held\n  Paused: incident 42, until 2023-11-15 03:46:40Z (target=4)"
    )


def test_no_reason_where_the_policy_agrees() -> None:
    assert decide(Override(pins=(pin(3),), floors=(floor(2),)), {"a": 3}).reasons == ()


def test_a_pause_leaves_knobs_alone_too() -> None:
    class Tuning(Policy):
        def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
            knobs = tuple(SetKnob(knob="chunk", value=512, pool=name) for name in ("a", "b", None))
            return Proposal(knobs=knobs), state

    snapshot = Snapshot(at_s=NOON, pools={"a": pool(), "b": pool()})
    assert (Tuning() | Override(pauses=(pause(),))).decide(snapshot).actions == ()
    one = (Tuning() | Override(pauses=(pause(pools=("a",)),))).decide(snapshot)
    assert [action.pool for action in one.actions] == ["b", None]
    assert "a: held\n  Paused: knob 'chunk' is left alone: incident 42" in one.explain()


def test_bounds_and_budgets_have_the_last_word() -> None:
    assert decide(Override(pins=(pin(50),)), {"a": 3}, a=pool(max_replicas=8)).targets == {"a": 8}
    policy = as_policy(lambda _: {"a": 3}) | Override(floors=(floor(50),)) | GpuBudget(max_gpus=10)
    assert policy.decide(Snapshot(at_s=NOON, pools={"a": pool()})).targets == {"a": 10}


def test_the_load_is_kept_and_what_cannot_be_read_is_left_alone() -> None:
    snapshot = Snapshot(at_s=NOON, pools={"a": pool(), "b": pool(None)})
    override = Override(pins=(pin(), pin(pool="b"), pin(pool="gone")))
    after, _ = override.limit(snapshot, Proposal(pools={"a": Want(3, 2.5), "b": Hold("unread")}), None)
    assert dict(after.pools) == {"a": Want(6, 2.5), "b": Hold("unread")}


def test_it_is_data() -> None:
    entry = {"pool": "a", "replicas": 6, "until_s": EVENING, "reason": "launch"}
    policy = load_policy([{"kind": "load"}, {"kind": "override", "floors": [entry], "pauses": [
        {"until_s": EVENING, "reason": "incident", "pools": ["a"]}
    ]}])  # fmt: skip
    assert isinstance(policy, Guarded)
    assert policy.guards == (Override(floors=(Floor(**entry),), pauses=(pause(reason="incident", pools=("a",)),)),)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"pins": [{"pool": "a", "replicas": -1, "until_s": 9, "reason": "x"}]}, r"pins\[0\].replicas: .*got -1"),
        ({"pins": [{"pool": "a", "replicas": 1, "until_s": 9, "reason": ""}]}, r"pins\[0\].reason: .*at least 1"),
        ({"pins": [{"pool": "a", "replicas": 1, "reason": "x"}]}, r"pins\[0\].until_s: Field required"),
        ({"pauses": [{"pools": [], "until_s": 9, "reason": "x"}]}, r"pauses\[0\].pools: .*at least 1"),
        (
            {"pauses": [{"until_s": 1.7e12, "reason": "x"}]},
            r"until_s: 1.7e\+12 is not in Unix seconds; if these are milliseconds, divide by 1000",
        ),
        (
            {"pins": [{"pool": "a", "replicas": n, "until_s": 9, "reason": "x"} for n in (1, 2)]},
            "'a' is pinned twice, to 1 and 2: drop one of the two",
        ),
        (
            {
                "pins": [{"pool": "a", "replicas": 1, "until_s": 9, "reason": "x"}],
                "floors": [{"pool": "a", "replicas": 3, "until_s": 9, "reason": "x"}],
            },
            "'a' is pinned to 1, below its floor of 3: pin it to at least 3, or drop one of the two",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_path_value_and_mend(entries: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_policy([{"kind": "load"}, {"kind": "override", **entries}])


def test_an_entry_needs_an_expiry_in_seconds() -> None:
    for until_s in (0, -5, float("inf"), float("nan")):
        with pytest.raises(ValidationError, match="until_s"):
            pin(until_s=until_s)


def test_the_actions_are_absolute() -> None:
    decision = decide(Override(pins=(pin(),)), {"a": 1})
    assert decision.actions == (ScaleTo(pool="a", replicas=6, expected=4),)


@pytest.mark.parametrize("until", ["2023-11-15T03:46:40Z", "2023-11-15T04:46:40+01:00", 1_700_020_000])
def test_a_moment_is_unix_seconds_or_a_date_with_its_zone(until: Any) -> None:
    assert pin(until_s=until) == pin(until_s=EVENING)
    assert Pin.model_validate_json(pin(until_s=until).model_dump_json()) == pin(until_s=EVENING)


@pytest.mark.parametrize(
    ("until", "problem"), [("2023-11-15T03:46:40", "no time zone"), ("in an hour", "no date and time"), (-1, "than 0")]
)
def test_other_moments_are_refused(until: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        pin(until_s=until)
