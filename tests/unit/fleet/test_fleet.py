"""Fleets: several models decided together, with their reasons, through troubles."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dynamo_planner import (
    Policy,
    PoolSpec,
    PoolStatus,
    Profile,
    Proposal,
    Replicas,
    SlaPolicy,
    Snapshot,
    Traffic,
    Want,
)
from dynamo_planner.conformance import ConformanceError, check_fleet
from dynamo_planner.core.decision import State
from dynamo_planner.core.policy import proposed
from dynamo_planner.fleet import Budget, Fleet, FleetDecision, Member
from dynamo_planner.fleet.worth import options


class ByRate(Policy, kind="fleet_by_rate"):
    """A replica for every ten requests per second."""

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        rate = snapshot.traffic.requests_per_s
        if rate is None:
            return Proposal.hold(snapshot.pools, "arrivals are unknown", "MetricUnknown"), state
        return Proposal(pools={name: Want(math.ceil(rate / 10), rate / 10) for name in snapshot.pools}), state


def model(
    replicas: int | Replicas | None, rate: float | None, at_s: float = 0.0, gpus: int = 1, **more: Any
) -> Snapshot:
    pool = PoolStatus(spec=PoolSpec(role="aggregated", gpus=gpus, **more), replicas=replicas)
    return Snapshot(at_s=at_s, traffic=Traffic(requests_per_s=rate), pools={"workers": pool})


def fleet(total: float = 8, *, floors: dict[str, float] | None = None, **priorities: int) -> Fleet:
    floor = floors or {}
    members = {
        name: Member(policy=ByRate(), priority=priority, floor={"gpu": floor.get(name, 0)})
        for name, priority in priorities.items()
    }
    return Fleet(models=members, budgets={"gpu": Budget(total=total)})


def targets(decision: FleetDecision) -> dict[str, int]:
    return {name: own.targets["workers"] for name, own in decision.decisions.items() if own.targets}


def codes(decision: FleetDecision, name: str) -> set[str]:
    return {reason.code for reason in decision.decisions[name].reasons}


def test_what_fits_is_decided_as_alone() -> None:
    snapshots = {"a": model(1, 25), "b": model(4, 12)}
    decision = fleet(a=0, b=0).decide(snapshots)
    assert {name: own.actions for name, own in decision.decisions.items()} == {
        name: ByRate().decide(snapshot).actions for name, snapshot in snapshots.items()
    }


def test_a_loan_is_explained_and_called_back() -> None:
    """Batch is guaranteed 4 of 8. Chat, with 60 requests/s, uses two of them until batch wants them."""
    both = fleet(floors={"batch": 4}, chat=0, batch=0)
    lent = both.decide({"chat": model(6, 60), "batch": model(2, 20)})
    assert targets(lent) == {"chat": 6, "batch": 2}
    assert "2 gpu lent to chat until batch needs them" in lent.explain()
    back = both.decide({"chat": model(6, 60, 10), "batch": model(2, 40, 10)}, lent.state)
    assert targets(back) == {"chat": 4, "batch": 2}
    assert "gives 2 replicas to batch, whose floor it is" in back.explain()
    assert "BudgetWait" in codes(back, "batch")
    draining = both.decide(
        {"chat": model(Replicas(ready=4, draining=1), 60, 20), "batch": model(2, 40, 20)}, back.state
    )
    assert targets(draining) == {"chat": 4, "batch": 3}


def test_the_higher_priority_is_served_first() -> None:
    assert targets(fleet(a=1, b=0).decide({"a": model(2, 70), "b": model(6, 60)})) == {"a": 2, "b": 1}


def test_a_model_without_metrics_keeps_and_so_do_the_others() -> None:
    """Dark at 3 of 8 GPUs: the other one may have 5, whatever dark would want."""
    both = fleet(a=0, dark=5)
    first = both.decide({"a": model(3, 30), "dark": model(3, 30)})
    for dark in (model(3, None, 10), model(None, None, 10), None):
        snapshots = {"a": model(3, 80, 10)} | ({"dark": dark} if dark else {})
        decision = both.decide(snapshots, first.state)
        assert targets(decision)["a"] == 5
        assert not any(own.actions for name, own in decision.decisions.items() if name != "a")


def test_where_a_model_was_never_read_nothing_rises_and_nothing_falls() -> None:
    assert targets(fleet(a=0, dark=5).decide({"a": model(3, 80), "dark": model(None, 90)})) == {"a": 3}


def test_a_policy_that_raises_moves_no_other() -> None:
    def broken(snapshot: Snapshot) -> dict[str, int]:
        raise RuntimeError("no")

    models = {"a": Member(policy=ByRate()), "broken": Member(policy=broken)}
    both = Fleet(models=models, budgets={"gpu": Budget(total=8)})
    decision = both.decide({"a": model(2, 90), "broken": model(4, 10)})
    assert targets(decision) == {"a": 4}
    assert "PolicyFailed" in codes(decision, "broken")


def test_models_come_and_go_and_the_others_keep_their_state() -> None:
    class Counting(ByRate, kind="fleet_counting"):
        def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
            count = (state or 0) + 1
            return Proposal(pools=dict.fromkeys(snapshot.pools, count)), count

    def named(*names: str) -> Fleet:
        return Fleet(models={name: Member(policy=Counting()) for name in names}, budgets={"gpu": Budget(total=99)})

    state = named("a").decide({"a": model(1, 1)}).state
    assert state is not None
    state = State.model_validate_json(state.model_dump_json())
    both = named("a", "b").decide({name: model(1, 1, 10) for name in "ab"}, state)
    assert targets(both) == {"a": 2, "b": 1}
    assert targets(named("b").decide({"b": model(1, 1, 20)}, both.state)) == {"b": 2}


def test_kinds_and_cost_are_budgets() -> None:
    """Large replicas cost 5 an hour and small ones 1: with 12 an hour two large ones leave room for two small ones."""
    members = {"large": Member(policy=ByRate(), gpus="h100", priority=1), "small": Member(policy=ByRate(), gpus="l4")}
    budgets = {"h100": Budget(total=8), "l4": Budget(total=8), "cost": Budget(total=12)}
    both = Fleet(models=members, budgets=budgets)
    snapshots = {"large": model(0, 20, gpus=4, cost=5), "small": model(0, 50, cost=1)}
    assert targets(both.decide(snapshots)) == {"large": 2, "small": 2}


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="no budget 'h100'"):
        Fleet(models={"a": Member(policy=ByRate(), gpus="h100")}, budgets={"gpu": Budget(total=1)})
    with pytest.raises(ValueError, match="floors on 'gpu' are 10 together, and it has 8"):
        fleet(floors={"a": 5, "b": 5}, a=0, b=0)


def test_a_sizing_says_what_a_replica_is_worth() -> None:
    """With 3 of 4 prefill replicas a seventh of the prompts is late; decode replicas beyond the third save little,
    so these are what it goes without."""
    policy = SlaPolicy(ttft_ms=500, itl_ms=25, profile=Profile.bundled("llama31-8b_h100_vllm_tp1"))
    pools = {
        "prefill": PoolStatus(spec=PoolSpec(role="prefill"), replicas=4, queued=0),
        "decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=6, queued=0),
    }
    snapshot = Snapshot(at_s=0, traffic=Traffic(requests_per_s=40, window_s=30, isl=3000, osl=250), pools=pools)
    _, state = proposed(policy, snapshot)
    shares = policy.in_time(snapshot, state, {"prefill": [0, 3, 4], "decode": [1, 3, 6]})
    assert shares["prefill"] == pytest.approx([0.0, 0.85, 1.0], abs=0.02)
    alone = Fleet(models={"chat": Member(policy=policy)}, budgets={"gpu": Budget(total=7)})
    assert dict(alone.decide({"chat": snapshot}).decisions["chat"].targets) == {"prefill": 4, "decode": 3}


def test_a_quiet_fleet_decides_as_one_that_has_computed_nothing_before() -> None:
    """What is kept from tick to tick, options and grants and predictions, changes no decision: loads that stay, and one
    that rises in the fourth tick."""
    profile = Profile.bundled("llama31-8b_h100_vllm_tp1")
    names = ("a", "b", "c")
    members = {name: Member(policy=SlaPolicy(ttft_ms=500, itl_ms=25, profile=profile)) for name in names}
    running = Fleet(models=members, budgets={"gpu": Budget(total=10)})
    state, have = None, {name: {"prefill": 2, "decode": 2} for name in names}
    for tick in range(6):
        rates = {"a": 40.0, "b": 20.0 if tick < 3 else 60.0, "c": 30.0}
        snapshots = {
            name: Snapshot(
                at_s=10.0 * tick,
                traffic=Traffic(requests_per_s=rates[name], window_s=10, isl=2000, osl=200),
                pools={
                    role: PoolStatus(spec=PoolSpec(role=role), replicas=own, queued=0)
                    for role, own in have[name].items()
                },
            )
            for name in names
        }
        options.cache_clear()
        anew = running.model_copy(deep=True).decide(snapshots, state)
        decision = running.decide(snapshots, state)
        assert decision == anew
        state, have = decision.state, {name: dict(own.targets) for name, own in decision.decisions.items()}
    assert "BudgetLimit" in codes(decision, "b")


@pytest.mark.slow
def test_the_laws_hold() -> None:
    check_fleet(fleet(floors={"a": 2}, a=0, b=1, c=0))
    check_fleet(fleet(total=6, a=0, b=1), modes={"a": "disaggregated"})
    check_fleet(Fleet(models={n: Member(policy=ByRate()) for n in "ab"}, budgets={"gpu": Budget(nodes=(4, 4))}))


@pytest.mark.slow
def test_a_broken_law_is_found() -> None:
    class Greedy(Fleet):
        def decide(self, *args: Any, **kwargs: Any) -> FleetDecision:
            return Fleet(models=self.models, budgets={"gpu": Budget(total=99)}).decide(*args, **kwargs)

    with pytest.raises(ConformanceError, match="within-budgets"):
        check_fleet(Greedy(models={n: Member(policy=ByRate()) for n in "ab"}, budgets={"gpu": Budget(total=4)}))
