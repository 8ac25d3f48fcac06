"""Guards together: which orders are refused, and what a full chain keeps over a long time."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner import (
    Decision,
    Guard,
    Hold,
    Policy,
    PoolSpec,
    PoolStatus,
    Proposal,
    Replicas,
    Snapshot,
    Traffic,
    Want,
)
from dynamo_planner.config.policies import load_policy
from dynamo_planner.config.problems import ConfigError
from dynamo_planner.core.policy import Guarded, as_policy
from dynamo_planner.guards import (
    Bounds,
    Fallback,
    GpuBudget,
    Multiples,
    Override,
    Pending,
    Spare,
    Stabilization,
    Staleness,
    StepLimit,
    Tolerance,
)
from tests.support.laws import examples

law = examples(derandomize=True)

SOFT: list[Guard] = [
    Staleness(),
    Stabilization(),
    StepLimit(down_replicas=2),
    Pending(),
    Override(),
    Fallback(replicas=2),
    Spare(),
    Tolerance(),
    Multiples(of={"decode": 2}),
]
HARD: list[Guard] = [Bounds(), GpuBudget(max_gpus=12)]


def chain(policy: Policy, *guards: Guard) -> Policy:
    for guard in guards:
        policy = policy | guard
    return policy


@pytest.mark.parametrize("hard", HARD, ids=lambda guard: guard.kind)
@pytest.mark.parametrize("soft", SOFT, ids=lambda guard: guard.kind)
def test_a_soft_guard_after_a_hard_one_is_refused(hard: Guard, soft: Guard) -> None:
    message = f"{soft.kind!r} is a soft guard and stands after {hard.kind!r}"
    with pytest.raises(ValueError, match=message):
        chain(as_policy(lambda _: {}), hard, soft)
    with pytest.raises(ConfigError, match=message):
        load_policy([{"kind": "load"}, hard.model_dump(mode="json"), soft.model_dump(mode="json")])


def test_soft_guards_come_in_any_order_and_the_budget_comes_last() -> None:
    for guards in ([*SOFT, *HARD], [*reversed(SOFT), *HARD], [SOFT[2], SOFT[1], SOFT[2], HARD[1], HARD[1]]):
        built = chain(as_policy(lambda _: {}), *guards)
        assert isinstance(built, Guarded)
        assert built.guards == tuple(guards)
    with pytest.raises(ValueError, match="'bounds' is a guard and stands after 'gpu_budget'"):
        chain(as_policy(lambda _: {}), *reversed(HARD))


def test_a_chain_is_data_and_comes_back_from_it() -> None:
    data = [{"kind": "load"}, *(guard.model_dump(mode="json") for guard in [*SOFT, *HARD])]
    loaded = load_policy(json.loads(json.dumps(data)))
    assert isinstance(loaded, Guarded)
    assert loaded.guards == (*SOFT, *HARD)


class Noisy(Policy, kind="noisy"):
    """Proposes what the knobs say, one per pool, negative for a hold."""

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        said = {name: int(snapshot.knobs.get(name, -1)) for name in snapshot.pools}
        return Proposal(pools={n: Want(c, c * 0.9) if c >= 0 else Hold("unknown") for n, c in said.items()}), state


def seen(at_s: float, wants: dict[str, int], **replicas: Replicas | None) -> Snapshot:
    specs = {
        "prefill": PoolSpec(role="prefill", gpus=2, min_replicas=0, max_replicas=9),
        "decode": PoolSpec(role="decode", gpus=1, min_replicas=0),
        "small": PoolSpec(role="decode", gpus=1, min_replicas=0),
    }
    pools = {name: PoolStatus(spec=specs[name], replicas=own) for name, own in replicas.items()}
    return Snapshot(at_s=at_s, traffic=Traffic(requests_per_s=1), pools=pools, knobs=wants)


def test_stabilize_then_limit_the_step_as_the_hpa_does() -> None:
    """From 10, 2 are wanted throughout. The window of 300 s ends at 300, then it is 4 less in each 60 s."""
    policy = chain(as_policy(lambda _: {"decode": 2}), Stabilization(), StepLimit(down_replicas=4, period_s=60))
    state, present, targets = None, 10, []
    for at_s in (0, 299, 300, 330, 360, 419, 420):
        decision = policy.decide(seen(at_s, {}, decode=Replicas(ready=present)), state)
        present, state = decision.targets["decode"], decision.state
        targets.append(present)
    assert targets == [10, 10, 6, 6, 2, 2, 2]


def test_a_hold_goes_through_all_of_them() -> None:
    policy = chain(as_policy(lambda _: {"decode": None}), *SOFT, *HARD)
    decision = policy.decide(seen(0, {}, decode=Replicas(ready=5)))
    assert (decision.targets, [reason.code for reason in decision.reasons]) == ({}, ["Held"])


@pytest.mark.parametrize("guard", [*SOFT, *HARD], ids=lambda guard: guard.kind)
def test_a_service_without_pools_is_no_trouble(guard: Guard) -> None:
    decision = (as_policy(lambda _: {"gone": 3}) | guard).decide(Snapshot(at_s=0))
    assert (decision.actions, [reason.code for reason in decision.reasons]) == ((), ["UnknownPool"])


replicas = st.none() | st.builds(
    Replicas, ready=st.integers(0, 5), starting=st.integers(0, 2), draining=st.integers(0, 2)
)
ticks = st.tuples(
    st.floats(0.1, 400),
    st.dictionaries(st.sampled_from(["prefill", "decode", "small"]), st.integers(-1, 12)),
    st.dictionaries(st.sampled_from(["prefill", "decode", "small"]), replicas),
)


def gpus(snapshot: Snapshot, decision: Decision | None = None) -> int:
    moved = (
        {action.pool: action.replicas for action in decision.actions if action.kind == "scale_to"} if decision else {}
    )
    total = 0
    for name, pool in snapshot.pools.items():
        if pool.replicas is not None:
            there = max(pool.replicas.target, moved.get(name, 0))
            total += pool.spec.gpus * (there + pool.replicas.draining)
    return total


@law
@given(st.lists(ticks, max_size=15), st.permutations(SOFT))
def test_any_timeline_gives_the_same_decision_again_and_keeps_the_budget(ticks: list[Any], soft: list[Guard]) -> None:
    policy, at_s = chain(Noisy(), *soft, *HARD), 0.0
    state: Any = None
    for gap, wants, present in ticks:
        at_s += gap
        snapshot = seen(at_s, wants, **present)
        before = snapshot.model_dump_json()
        decision = policy.decide(snapshot, state)
        assert snapshot.model_dump_json() == before
        assert decision.state is not None
        text = decision.state.model_dump_json()
        assert policy.decide(snapshot, state).model_dump_json() == decision.model_dump_json()
        through_json = policy.decide(Snapshot.model_validate_json(before), json.loads(json.dumps(state)))
        assert through_json.model_dump_json() == decision.model_dump_json()
        half_awake = {name for name, pool in snapshot.pools.items() if pool.replicas and pool.replicas.target == 0}
        if not half_awake and None not in present.values():
            assert gpus(snapshot, decision) <= max(gpus(snapshot), 12)
        state = json.loads(text)


@pytest.mark.slow
def test_the_state_of_a_chain_stays_small() -> None:
    policy, state, largest = chain(Noisy(), *SOFT, *HARD), None, 0
    for tick in range(3_000):
        wants = {"prefill": tick * 7 % 5, "decode": tick * 13 % 11, "small": tick % 3}
        present = {name: Replicas(ready=1 + tick * n % 4) for n, name in enumerate(wants, 3)}
        state = policy.decide(seen(tick * 0.5, wants, **present), state).state
        if state is not None and tick % 50 == 0:
            largest = max(largest, len(state.model_dump_json()))
    assert 0 < largest < 16_384, "bytes"
