"""GpuBudget, case by case; what it keeps in all cases is in test_gpu_budget_laws.py."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dynamo_planner import Decision, Hold, PoolSpec, PoolStatus, Proposal, Replicas, Role, Snapshot, Traffic, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.guards import Bounds, GpuBudget
from dynamo_planner.guards.bounds import PoolBounds


def pool(role: Role = "aggregated", replicas: Any = 1, **spec: Any) -> PoolStatus:
    return PoolStatus(spec=PoolSpec(role=role, **spec), replicas=replicas)


def seen(**pools: PoolStatus) -> Snapshot:
    return Snapshot(at_s=0, traffic=Traffic(requests_per_s=1), pools=pools)


class Fixed(Policy):
    proposal: Proposal

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return self.proposal, state


def decide(max_gpus: int, snapshot: Snapshot, **wants: Any) -> Decision:
    return (Fixed(proposal=Proposal(pools=wants)) | GpuBudget(max_gpus=max_gpus)).decide(snapshot)


def limited(max_gpus: int, snapshot: Snapshot, **wants: Any) -> dict[str, Want | Hold]:
    return dict(GpuBudget(max_gpus=max_gpus).limit(snapshot, Proposal(pools=wants), None)[0].pools)


def codes(decision: Decision, name: str | None) -> list[str]:
    return [reason.code for reason in decision.reasons if reason.pool == name]


def test_what_fits_passes_untouched() -> None:
    decision = decide(8, seen(a=pool(replicas=2, gpus=2)), a=Want(4, 3.3))
    assert (decision.targets, decision.reasons) == ({"a": 4}, ())


def test_a_rise_goes_as_far_as_the_gpus_do() -> None:
    decision = decide(7, seen(a=pool(replicas=2, gpus=2)), a=Want(9, 8.2))
    assert decision.targets == {"a": 3}
    assert decision.explain() == (
        "a: 2 -> 3 replicas\n"
        "  GpuBudgetLimit: max_gpus leaves it 3 of 9 wanted replicas "
        "(wanted=9, granted=3, load=8.2, gpus_held=4, max_gpus=7)"
    )


def test_draining_replicas_hold_their_gpus_until_they_are_gone() -> None:
    draining = seen(a=pool(replicas=Replicas(ready=2, draining=2), gpus=2))
    decision = decide(8, draining, a=4)
    assert (decision.targets, codes(decision, "a")) == ({"a": 2}, ["GpuBudgetWait"])
    assert decide(8, seen(a=pool(replicas=Replicas(ready=2), gpus=2)), a=4).targets == {"a": 4}


def test_replicas_beyond_the_target_count_for_as_long_as_they_are_there() -> None:
    surplus = Replicas(ready=3, starting=1, target=1)
    snapshot = seen(a=pool(replicas=surplus), b=pool(replicas=1))
    assert decide(5, snapshot, a=1, b=3).targets == {"a": 1, "b": 1}
    assert decide(5, snapshot, a=4, b=1).targets == {"a": 4, "b": 1}, "raised to what is there anyway"


def test_it_is_shared_by_load_per_replica() -> None:
    """By hand: 8 GPUs, loads 9 and 3, both at 1. The six left go to the highest load per replica: a (9), a (4.5),
    a (3, before b by name), b (3), a (2.25), a (1.8)."""
    assert decide(8, seen(a=pool(), b=pool()), a=Want(9, 9), b=Want(8, 3)).targets == {"a": 6, "b": 2}


def test_an_unknown_load_counts_as_the_wanted_replicas() -> None:
    assert decide(6, seen(a=pool(), b=pool()), a=8, b=4).targets == {"a": 4, "b": 2}
    assert decide(6, seen(a=pool(), b=pool()), a=8, b=Want(4, 1.0)).targets == {"a": 5, "b": 1}


def test_equal_pools_are_served_by_name_whatever_their_order() -> None:
    assert decide(3, seen(a=pool(), b=pool()), a=2, b=2).targets == {"a": 2, "b": 1}
    assert decide(3, seen(b=pool(), a=pool()), b=2, a=2).targets == {"a": 2, "b": 1}


def test_a_replica_that_does_not_fit_is_passed_over_for_a_smaller_one() -> None:
    snapshot = seen(large=pool(gpus=8), small=pool(gpus=1))
    assert decide(12, snapshot, large=Want(3, 9), small=Want(4, 2)).targets == {"large": 1, "small": 4}


def test_lowering_one_pool_for_another_is_a_fall_now_and_a_rise_when_the_gpus_are_free() -> None:
    wants: dict[str, Any] = {"prefill": Want(4, 1.9), "decode": Want(6, 6.0)}
    full = seen(prefill=pool("prefill", 4, gpus=2), decode=pool("decode", 2, gpus=2))
    first = decide(12, full, **wants)
    assert [(a.pool, a.replicas) for a in first.actions if a.kind == "scale_to"] == [("prefill", 2)]
    assert codes(first, "decode") == ["GpuBudgetWait"]
    leaving = seen(prefill=pool("prefill", Replicas(ready=2, draining=2), gpus=2), decode=pool("decode", 2, gpus=2))
    assert decide(12, leaving, **wants).actions == ()
    one_left = seen(prefill=pool("prefill", Replicas(ready=2, draining=1), gpus=2), decode=pool("decode", 2, gpus=2))
    assert decide(12, one_left, **wants).targets == {"prefill": 2, "decode": 3}
    gone = seen(prefill=pool("prefill", 2, gpus=2), decode=pool("decode", 3, gpus=2))
    assert decide(12, gone, **wants).targets == {"prefill": 2, "decode": 4}


def test_a_small_difference_in_pressure_moves_nothing() -> None:
    even = seen(a=pool(replicas=5), b=pool(replicas=5))
    for loads in ((6.0, 6.4), (6.4, 6.0), (6.6, 5.9)):
        assert decide(10, even, a=Want(7, loads[0]), b=Want(7, loads[1])).actions == ()


def test_over_the_budget_it_lowers_by_need_and_raises_nothing() -> None:
    over = seen(a=pool(replicas=6), b=pool(replicas=6), c=pool(replicas=1))
    decision = decide(9, over, a=Want(6, 6.0), b=Want(6, 2.0), c=Want(3, 3.0))
    assert decision.targets == {"a": 5, "b": 2, "c": 1}
    assert codes(decision, "c") == ["GpuBudgetWait"]


def test_over_the_budget_only_while_replicas_leave_nothing_more_is_lowered() -> None:
    leaving = seen(a=pool(replicas=Replicas(ready=4, draining=4)))
    decision = decide(6, leaving, a=4)
    assert (decision.targets, decision.reasons) == ({"a": 4}, ())


def test_a_held_pool_is_lowered_last() -> None:
    snapshot = seen(a=pool(replicas=6), b=pool(replicas=6))
    assert limited(9, snapshot, a=None, b=6)["a"] == Hold("the policy returned None for this pool")
    assert limited(9, snapshot, a=None, b=6)["b"] == Want(3)
    assert limited(6, snapshot, a=None, b=6) == {"a": Want(3), "b": Want(3)}


def test_minimums_that_do_not_fit_hold_with_a_reason() -> None:
    snapshot = seen(a=pool(replicas=3, min_replicas=3, gpus=2), b=pool(replicas=2, min_replicas=2, gpus=2))
    decision = decide(8, snapshot, a=5, b=2)
    assert decision.actions == ()
    assert codes(decision, None) == ["GpuBudgetTooSmall"]
    assert "GpuBudgetTooSmall" in decision.explain()
    assert "least_gpus=10, max_gpus=8" in decision.explain()


def test_minimums_that_do_not_fit_still_let_pools_fall() -> None:
    snapshot = seen(a=pool(replicas=4, min_replicas=3, gpus=2), b=pool(replicas=4, min_replicas=2, gpus=2))
    assert decide(8, snapshot, a=5, b=4).targets == {"a": 3, "b": 2}


def test_a_pool_below_its_minimum_is_raised_to_it_where_that_fits() -> None:
    snapshot = seen(a=pool(replicas=4), b=pool(replicas=0, min_replicas=2))
    assert limited(6, snapshot, a=Want(6, 9.0), b=2) == {"a": Want(4, 9.0), "b": Want(2)}


def test_pools_wake_up_together_or_not_at_all() -> None:
    asleep = {"p": pool("prefill", 0, min_replicas=0, gpus=4), "d": pool("decode", 0, min_replicas=0, gpus=4)}
    assert decide(8, seen(**asleep), p=1, d=1).targets == {"p": 1, "d": 1}
    too_small = decide(7, seen(**asleep), p=1, d=1)
    assert (too_small.targets, too_small.actions) == ({}, ())
    assert codes(too_small, None) == ["GpuBudgetTooSmall"]


def test_pools_that_cannot_wake_up_do_not_stop_the_others() -> None:
    snapshot = seen(a=pool(replicas=2), asleep=pool(replicas=0, min_replicas=0, gpus=8))
    assert decide(6, snapshot, a=4, asleep=1).targets == {"a": 4}


def test_a_stage_waits_at_zero_while_gpus_are_still_held() -> None:
    asleep = {"p": pool("prefill", 0, min_replicas=0), "d": pool("decode", 0, min_replicas=0)}
    leaving = pool(replicas=Replicas(ready=1, draining=1))
    assert decide(3, seen(other=leaving, **asleep), other=1, p=1, d=1).targets == {"other": 1}
    assert decide(3, seen(other=pool(), **asleep), other=1, p=1, d=1).targets == {"other": 1, "p": 1, "d": 1}


def test_a_pool_that_takes_over_is_there_before_the_other_one_goes() -> None:
    snapshot = seen(
        old=pool("prefill", 2, min_replicas=0, gpus=2),
        new=pool("prefill", 0, min_replicas=0, gpus=2),
        d=pool("decode", 2),
    )
    decision = decide(6, snapshot, old=0, new=2, d=2)
    assert decision.targets == {"old": 1, "d": 2}
    assert codes(decision, "old") == ["ZeroTogether"]
    handed_over = seen(
        old=pool("prefill", 1, min_replicas=0, gpus=2),
        new=pool("prefill", 0, min_replicas=0, gpus=2),
        d=pool("decode", 2),
    )
    assert decide(6, handed_over, old=0, new=2, d=2).targets == {"old": 0, "new": 1, "d": 2}


def test_gpus_of_a_pool_that_could_not_be_read_are_unknown() -> None:
    snapshot = seen(a=pool(replicas=2), b=pool(replicas=3), lost=pool(replicas=None))
    decision = decide(100, snapshot, a=4, b=1, lost=9)
    assert decision.targets == {"a": 2, "b": 1}
    assert codes(decision, "a") == ["GpusUnknown"]
    assert "'lost' could not be read" in decision.explain()
    router = seen(a=pool(replicas=2), router=pool(replicas=None, gpus=0))
    assert decide(100, router, a=4).targets == {"a": 4}


def test_pools_without_gpus_are_free() -> None:
    snapshot = seen(a=pool(replicas=2), cpu=pool(replicas=1, gpus=0))
    assert decide(2, snapshot, a=4, cpu=10**9).targets == {"a": 2, "cpu": 10**9}


def test_no_gpus_at_all() -> None:
    assert decide(0, seen(a=pool(replicas=0, min_replicas=0)), a=3).actions == ()


def test_clamping_prefill_does_not_raise_decode() -> None:
    """10 x 8 + 1 x 1 GPUs under 40: a clamp that hands out what rounding left over gave decode 8 replicas."""
    snapshot = seen(prefill=pool("prefill", 10, gpus=8), decode=pool("decode", 1, gpus=1))
    assert decide(40, snapshot, prefill=10, decode=1).targets == {"prefill": 4, "decode": 1}
    clamped = seen(prefill=pool("prefill", 4, gpus=8), decode=pool("decode", 1, gpus=1))
    assert decide(40, clamped, prefill=10, decode=1).targets == {"prefill": 4, "decode": 1}


@pytest.mark.parametrize("max_gpus", range(10))
@pytest.mark.parametrize("present", range(6))
def test_a_minimum_does_not_break_the_budget(max_gpus: int, present: int) -> None:
    """min = max = 5 replicas of 2 GPUs under less than 10: a minimum that is applied last gave 3 replicas and more."""
    snapshot = seen(a=pool(replicas=present, min_replicas=5, max_replicas=5, gpus=2))
    held = limited(max_gpus, snapshot, a=5)["a"]
    assert isinstance(held, Hold) or held == Want(5)
    assert Proposal(pools={"a": held}).wanted(snapshot, "a") == present


def test_a_minimum_does_not_break_the_budget_in_the_decision() -> None:
    assert decide(8, seen(a=pool(replicas=3, min_replicas=5, max_replicas=5, gpus=2)), a=5).actions == ()


@pytest.mark.parametrize("present", range(6))
def test_bounds_before_the_budget_leave_it_the_last_word(present: int) -> None:
    snapshot = seen(a=pool(replicas=present, min_replicas=0, gpus=2))
    policy = (lambda _: {"a": 1}) | Bounds(pools={"a": PoolBounds(min_replicas=5)}) | GpuBudget(max_gpus=8)
    assert policy.decide(snapshot).targets["a"] == 4


@pytest.mark.parametrize(("value", "message"), [(-1, "greater than or equal to 0"), (2.5, "fractional"), (None, "")])
def test_a_budget_that_is_no_number_of_gpus_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s)max_gpus.*{message}"):
        GpuBudget(max_gpus=value)
