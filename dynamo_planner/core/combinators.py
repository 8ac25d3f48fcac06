"""Combinators: the highest of several policies, and a knob policy beside a replica policy.

>>> from dynamo_planner import PoolSpec, PoolStatus
>>> pool = PoolStatus(spec=PoolSpec(role="aggregated"), replicas=4)
>>> snapshot = Snapshot(at_s=0, pools={"workers": pool})
>>> policy = highest(lambda snapshot: {"workers": 2}, lambda snapshot: {"workers": None})
>>> dict(policy.decide(snapshot).targets)  # a hold counts as the present target
{}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from dynamo_planner.core.conclude import present_value
from dynamo_planner.core.decision import Hold, Proposal, SetKnob, State, Want
from dynamo_planner.core.node import check_names, matched_states
from dynamo_planner.core.policy import AnyPolicy, PlainFunction, Policy, advance, as_policy, predicted
from dynamo_planner.core.snapshot import Replicas, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, KnobValue, ReadOnly


class Highest(Policy, kind="highest"):
    """Per pool the largest target of several policies: the Kubernetes HPA's rule for several metrics.

    A hold counts as the present target: the others may raise the pool, never lower it.

    Args:
        policies: At least one. Two of one kind keep their states apart by their ``name``, or else by their order.
    """

    policies: tuple[AnyPolicy, ...] = Field(min_length=1)

    state_type: ClassVar[Any] = tuple[State | None, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        check_names(self.policies)
        return self

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        results = [
            advance(policy, snapshot, own)
            for policy, own in zip(self.policies, matched_states(self.policies, state), strict=True)
        ]
        proposals = [proposal for proposal, _ in results]
        pools = {
            name: _highest_of(snapshot, name, [p.pools[name] for p in proposals if name in p.pools])
            for name in dict.fromkeys(name for p in proposals for name in p.pools)
        }
        knobs = {(knob.pool, knob.knob): knob for p in reversed(proposals) for knob in p.knobs}
        reasons = tuple(reason for p in proposals for reason in p.reasons)
        weights = {pool: share for p in reversed(proposals) for pool, share in p.routing_weights.items()}
        rates = {name: rate for p in reversed(proposals) for name, rate in p.release_rates.items()}
        merged = Proposal(
            pools=pools,
            knobs=tuple(knobs.values()),
            reasons=reasons,
            routing_weights=weights,
            release_rates=rates,
        )
        return merged, tuple(remembered for _, remembered in results)


def _highest_of(snapshot: Snapshot, name: str, entries: Sequence[Want | Hold]) -> Want | Hold:
    wants = [entry for entry in entries if isinstance(entry, Want)]
    holds = [entry for entry in entries if isinstance(entry, Hold)]
    loads = [want.load for want in wants if want.load is not None]
    if not wants:
        return holds[0]
    top = max(want.replicas for want in wants)
    status = snapshot.pools.get(name)
    if holds and status is not None and (status.replicas is None or top <= status.replicas.target):
        return holds[0]
    return Want(top, max(loads, default=None))


class TogetherMemory(Frozen):
    """The states of both policies, and the knobs that each pool had when none of its replicas came or went."""

    knobs: State | None
    replicas: State | None
    settled: tuple[tuple[str, ReadOnly[str, KnobValue]], ...] = ()


class Together(Policy, kind="together"):
    """A knob policy and a replica policy side by side.

    The second sees the knobs that the first intends, and a pool whose knobs change in this decision keeps its
    replicas. While replicas of a pool come and go, as they do where workers are replaced for a knob, the second sees
    the knobs that the pool had before: it is sized for new ones once all workers have them. Knobs come from the first
    and replicas from the second.

    Args:
        knobs: The knob policy.
        replicas: The replica policy.
    """

    knobs: AnyPolicy
    replicas: AnyPolicy

    state_type: ClassVar[Any] = TogetherMemory
    state_version: ClassVar[int] = 2

    def propose(self, snapshot: Snapshot, state: TogetherMemory | None) -> tuple[Proposal, TogetherMemory]:
        before = state or TogetherMemory(knobs=None, replicas=None)
        tuned, for_knobs = advance(self.knobs, snapshot, before.knobs)
        known = dict(before.settled)
        settled = {
            name: known.get(name, pool.knobs) if _moves(pool.replicas) else pool.knobs
            for name, pool in snapshot.pools.items()
        }
        intended = _with_knobs(snapshot, tuned.knobs, settled)
        scaled, for_replicas = advance(self.replicas, intended, before.replicas)
        changing = {
            knob.pool: knob for knob in tuned.knobs if knob.pool and present_value(snapshot, knob) != knob.value
        }
        holds = {
            name: Hold(f"its knob {changing[name].knob!r} changes in this decision", "KnobChanging")
            for name in scaled.pools
            if name in changing
        }
        merged = scaled.with_pools(holds).replace(knobs=tuned.knobs)
        memory = TogetherMemory(knobs=for_knobs, replicas=for_replicas, settled=tuple(settled.items()))
        return merged.replace(reasons=tuned.reasons + merged.reasons), memory

    def predict(
        self, snapshot: Snapshot, state: TogetherMemory | None, counts: Mapping[str, Sequence[int]]
    ) -> Mapping[str, Sequence[float] | None] | None:
        return predicted(self.replicas, snapshot, state.replicas if state else None, counts)


def _moves(replicas: Replicas | None) -> bool:
    return replicas is None or bool(replicas.starting or replicas.draining)


def _with_knobs(
    snapshot: Snapshot, knobs: Sequence[SetKnob], settled: Mapping[str, Mapping[str, KnobValue]]
) -> Snapshot:
    """The snapshot for the replica policy: with the intended knobs, but for pools whose replicas come and go."""
    service = {knob.knob: knob.value for knob in knobs if knob.pool is None}
    pools = {
        name: pool.replace(
            knobs=settled[name]
            if _moves(pool.replicas)
            else FrozenMap({**pool.knobs, **{k.knob: k.value for k in knobs if k.pool == name}})
        )
        for name, pool in snapshot.pools.items()
    }
    return snapshot.replace(knobs=FrozenMap({**snapshot.knobs, **service}), pools=FrozenMap(pools))


def highest(*policies: Policy | PlainFunction) -> Policy:
    """Per pool the largest target of these policies; see :class:`Highest`."""
    return Highest(policies=tuple(as_policy(policy) for policy in policies))


def together(knobs: Policy | PlainFunction, replicas: Policy | PlainFunction) -> Policy:
    """A knob policy and a replica policy side by side; see :class:`Together`."""
    return Together(knobs=as_policy(knobs), replicas=as_policy(replicas))
