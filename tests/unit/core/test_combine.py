"""highest and together."""

from __future__ import annotations

from typing import Any

from dynamo_planner import (
    Bounds,
    Decision,
    Policy,
    PoolSpec,
    PoolStatus,
    Proposal,
    Replicas,
    ScaleTo,
    SetKnob,
    Snapshot,
    Want,
    highest,
    together,
)
from dynamo_planner.guards.bounds import PoolBounds

POOL = PoolStatus(spec=PoolSpec(role="decode"), replicas=Replicas(ready=4), knobs={"chunk": 2048})
SNAPSHOT = Snapshot(at_s=0, pools={"decode": POOL})


def test_the_larger_target_wins() -> None:
    decision = highest(lambda _: {"decode": 5}, lambda _: {"decode": 7}).decide(SNAPSHOT)
    assert decision.targets == {"decode": 7}


def test_a_hold_counts_as_the_present_target() -> None:
    assert highest(lambda _: {"decode": None}, lambda _: {"decode": 3}).decide(SNAPSHOT).targets == {}
    assert highest(lambda _: {"decode": None}, lambda _: {"decode": 6}).decide(SNAPSHOT).targets == {"decode": 6}
    assert highest(lambda _: {"decode": None}, lambda _: {"decode": None}).decide(SNAPSHOT).targets == {}


def test_a_pool_left_out_is_left_to_the_other() -> None:
    assert highest(lambda _: {}, lambda _: {"decode": 3}).decide(SNAPSHOT).targets == {"decode": 3}


def test_loads_and_reasons_are_kept() -> None:
    class Loaded(Policy):
        load: float

        def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
            return Proposal(pools={"decode": Want(5, load=self.load)}), state

    proposal, _ = highest(Loaded(load=2.5), Loaded(load=4.5)).propose(SNAPSHOT, None)
    assert proposal.pools["decode"] == Want(5, load=4.5)


class Routing(Policy):
    weights: dict[str, float]

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return Proposal(pools={"decode": Want(5)}, routing_weights=self.weights, release_rates={"batch": 2.5}), state


def test_what_a_router_and_a_gateway_are_told_goes_through_guards_and_json() -> None:
    """The first of several policies has the word, as on knobs; what is empty is not written."""
    first, second = Routing(weights={"decode": 0.7}), Routing(weights={"decode": 0.1, "spot": 0.3})
    decision = (highest(first, second) | Bounds(pools={"decode": PoolBounds(max_replicas=4)})).decide(SNAPSHOT)
    assert decision.targets == {"decode": 4}
    assert decision.routing_weights == {"decode": 0.7, "spot": 0.3}
    assert Decision.model_validate_json(decision.model_dump_json()).release_rates == {"batch": 2.5}
    plain = highest(lambda _: {"decode": 5}).decide(SNAPSHOT)
    assert "release_rates" not in plain.model_dump_json()
    assert "release_rates" not in repr(plain)


class Chunk(Policy):
    value: int

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return Proposal(knobs=(SetKnob(knob="chunk", value=self.value, pool="decode"),)), state


class PerChunk(Policy):
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return Proposal(pools={"decode": Want(int(snapshot.pools["decode"].knobs["chunk"]) // 512)}), state


def test_a_pool_whose_knobs_change_keeps_its_replicas() -> None:
    decision = together(Chunk(value=512), lambda _: {"decode": 9}).decide(SNAPSHOT)
    assert decision.actions == (SetKnob(knob="chunk", value=512, pool="decode", expected=2048),)
    assert "KnobChanging" in decision.explain()


def test_replicas_move_when_the_knobs_stay() -> None:
    decision = together(Chunk(value=2048), lambda _: {"decode": 9}).decide(SNAPSHOT)
    assert decision.actions == (ScaleTo(pool="decode", replicas=9, expected=4),)


def test_the_replica_policy_sees_the_knobs_that_are_intended() -> None:
    proposal, _ = together(Chunk(value=1024), PerChunk()).propose(SNAPSHOT, None)
    assert "its knob 'chunk' changes" in str(proposal.pools["decode"])
    proposal, _ = together(Chunk(value=2048), PerChunk()).propose(SNAPSHOT, None)
    assert proposal.pools["decode"] == Want(4)


def test_while_workers_are_replaced_it_sees_the_knobs_from_before() -> None:
    policy, state = together(Chunk(value=1024), PerChunk()), None
    turning = POOL.replace(knobs={"chunk": 1024})
    course = (
        (POOL, None),  # the knob changes
        (turning.replace(replicas=Replicas(ready=4, starting=1, target=4)), 4),
        (turning.replace(replicas=Replicas(ready=4, draining=1, target=4)), 4),
        (turning, 2),
    )
    for pool, wanted in course:
        proposal, state = policy.propose(Snapshot(at_s=0, pools={"decode": pool}), state)
        assert wanted is None or proposal.pools["decode"] == Want(wanted)
