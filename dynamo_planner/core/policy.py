"""Policies and guards: base classes, plain functions as policies, and chains ``policy | guard | guard``.

A policy is a pure function from a snapshot and a state to a decision. Users call :meth:`Policy.decide`; authors
implement :meth:`Policy.propose`:

>>> import math
>>> from dynamo_planner import PoolSpec, PoolStatus, Traffic, Want
>>> class PerReplica(Policy):
...     requests_per_s: float = 4.0
...
...     def propose(self, snapshot, state):
...         rate = snapshot.traffic.requests_per_s
...         if rate is None:
...             return Proposal.hold(snapshot.pools, "traffic.requests_per_s is unknown", "MetricUnknown"), state
...         load = rate / self.requests_per_s
...         return Proposal(pools={pool: Want(math.ceil(load), load=load) for pool in snapshot.pools}), state
>>> pool = PoolStatus(spec=PoolSpec(role="aggregated", max_replicas=8), replicas=2)
>>> snapshot = Snapshot(at_s=0, traffic=Traffic(requests_per_s=11), pools={"workers": pool})
>>> PerReplica().decide(snapshot).actions
(ScaleTo(pool='workers', replicas=3, expected=2),)

A plain function from a snapshot to replicas is a policy too, wherever a policy is expected:

>>> dict(as_policy(lambda snapshot: {"workers": 5}).decide(snapshot).targets)
{'workers': 5}
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    SerializeAsAny,
    TypeAdapter,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import tuple_schema

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.conclude import conclude
from dynamo_planner.core.decision import Decision, Proposal, Reason, State
from dynamo_planner.core.invariants import within_specs
from dynamo_planner.core.node import Node, as_state, check_names, matched_states
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Frozen

PlainFunction = Callable[[Snapshot], Mapping[str, int | None]]
"""A policy without memory: replicas per pool, ``None`` to hold."""


class Policy(Node):
    """A scaling policy: from a snapshot, how many replicas each pool should have and how knobs should be set.

    ``monotone`` declares that, of two constant loads, the higher never settles on fewer replicas; a policy that breaks
    this on purpose says ``monotone = False`` and why in ``monotone_reason``.
    """

    monotone: ClassVar[bool] = True
    monotone_reason: ClassVar[str] = ""

    @abstractmethod
    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        """The proposal of this policy, and its new state.

        ``state`` is what it returned last time, or ``None`` at the start; then it must decide as if the present
        targets had been recommended all along. Pure: no clock, no I/O, no randomness, no change of the arguments.
        """

    def decide(self, snapshot: Snapshot, state: State | Mapping[str, Any] | None = None) -> Decision:
        """The final decision for a snapshot, given the ``state`` of the decision before (or its JSON form).

        A snapshot that is not newer than the last one gets the same decision again and leaves the state unchanged.
        A state, or a part of one, that is not this policy's is reset with a reason; it never raises.
        """
        return conclude(snapshot, *proposed(self, snapshot, state))

    def in_time(
        self, snapshot: Snapshot, state: State | None, counts: Mapping[str, Sequence[int]]
    ) -> Mapping[str, Sequence[float] | None]:
        """The predicted share of a pool's requests that is in time, for each of its ``counts`` of replicas.

        ``state`` is that of the decision on this snapshot. ``None`` for a pool of which the policy cannot say.
        """
        memory, _ = _DECIDER.recall(state)
        found = None if memory is None else predicted(self, snapshot, memory.policy, counts)
        return found or dict.fromkeys(counts)

    def predict(
        self, snapshot: Snapshot, state: Any, counts: Mapping[str, Sequence[int]]
    ) -> Mapping[str, Sequence[float] | None] | None:
        """What :meth:`in_time` says, from the state that :meth:`propose` returned. Default ``None``: it cannot say."""
        return None

    def replay(self, snapshots: Iterable[Snapshot], state: State | None = None) -> Iterator[Decision]:
        """The decisions on recorded snapshots, in an open loop: one for each."""
        for snapshot in snapshots:
            decision = self.decide(snapshot, state)
            state = decision.state
            yield decision

    def __or__(self, guard: Guard) -> Guarded:
        if not isinstance(guard, Guard):
            return NotImplemented
        return Guarded(policy=self, guards=(guard,))


class Guard(Node):
    """A limit on the proposal of a policy.

    ``rank`` orders guards: 0 for a soft guard, 1 and more for hard ones, which come after all soft ones and in the
    order of their ranks (bounds 1, a GPU budget 2).
    """

    rank: ClassVar[int] = 0

    @abstractmethod
    def limit(self, snapshot: Snapshot, proposal: Proposal, state: Any) -> tuple[Proposal, Any]:
        """The proposal with a reason for each number that this guard changed, and its new state."""

    def gpu_limit(self, snapshot: Snapshot) -> int | None:
        """The GPUs that the pools may hold at most under this guard; ``None`` where it limits no GPUs.

        A guard that limits GPUs implements this, so that
        :func:`~dynamo_planner.conformance.check_policy` holds it to its limit.
        """
        return None

    @property
    def lowers_when_blind(self) -> bool:
        """Whether this guard may lower a pool whose metrics are unknown, which it must declare.

        :func:`~dynamo_planner.conformance.check_policy` then does not hold it to the law ``missing-never-lowers``.
        """
        return False

    def __ror__(self, policy: PlainFunction) -> Guarded:
        return as_policy(policy) | self


class FunctionPolicy(Policy, kind="function"):
    """A plain function as a policy.

    Args:
        function: ``(snapshot) -> {pool: replicas or None}``; ``None`` holds the pool.
    """

    function: PlainFunction = Field(exclude=True)

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        return Proposal.model_validate({"pools": self.function(snapshot)}), state


def as_policy(policy: Policy | PlainFunction) -> Policy:
    """The policy itself, or a plain function made into one."""
    if isinstance(policy, Policy):
        return policy
    if callable(policy) and not isinstance(policy, type):
        return FunctionPolicy(function=policy)
    raise TypeError(f"expected a Policy or a function (snapshot) -> {{pool: replicas}}, got {policy!r}")


POLICIES = Kinds("policy", Policy, "dynamo_planner.policies")
"""The kinds of policies; the room of policies says which are shipped."""

GUARDS = Kinds("guard", Guard, "dynamo_planner.guards")
"""The kinds of guards; the room of guards says which are shipped."""


def _policy(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    if isinstance(value, Policy):
        return handler(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _pipeline(value, info.context)
    if callable(value) and not isinstance(value, type):
        return as_policy(value)
    return POLICIES.build(value, info.context)


AnyPolicy = Annotated[SerializeAsAny[Policy], WrapValidator(_policy)]
"""A field that holds a policy of any kind: one that is built, its data, a list of a policy and its guards, or a plain
function."""

AnyGuard = Annotated[SerializeAsAny[Guard], GUARDS.validator()]
"""A field that holds a guard of any kind: one that is built, or its data."""


class Pipeline(tuple[Policy, ...]):
    """A policy and then its guards: how a list in data validates, and its JSON Schema."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return tuple_schema([handler(AnyPolicy), handler(AnyGuard)], variadic_item_index=1, min_length=1)


@cache
def _pipelines() -> TypeAdapter[Pipeline]:
    return TypeAdapter(Pipeline)


def _pipeline(data: Sequence[Any], context: Any) -> Policy:
    if not data:
        raise ValueError("an empty list; it takes a policy, and then its guards")
    policy, *guards = _pipelines().validate_python(data, context=context)
    return Guarded(policy=policy, guards=tuple(guards)) if guards else policy


class Guarded(Policy, kind="guarded"):
    """A policy under guards, applied in order: ``policy | guard | guard``.

    Args:
        policy: The policy.
        guards: Its guards, the soft ones first. Two of one kind keep their states apart by their ``name``, or else by
            their order.
    """

    policy: AnyPolicy
    guards: tuple[AnyGuard, ...]

    state_type: ClassVar[Any] = tuple[State | None, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        check_names((self.policy, *self.guards))
        return self

    @model_validator(mode="after")
    def _hard_guards_come_last(self) -> Self:
        guards = guards_of(self)
        for before, guard in pairwise(guards):
            if guard.rank < before.rank:
                kind = "a soft guard" if guard.rank == 0 else "a guard"
                raise ValueError(
                    f"{guard.kind!r} is {kind} and stands after {before.kind!r}, which is hard and must have the last "
                    f"word: put {guard.kind!r} before it"
                )
        return self

    def __or__(self, guard: Guard) -> Guarded:
        if not isinstance(guard, Guard):
            return NotImplemented
        return Guarded(policy=self.policy, guards=(*self.guards, guard))

    def recall(self, state: State | None) -> tuple[Any, tuple[Reason, ...]]:
        """As of any node; the state of the policy alone is taken over, so that a policy can get its first guard."""
        if state is not None and state.kind == self.policy.kind != self.kind:
            return (state,), ()
        return super().recall(state)

    def propose(self, snapshot: Snapshot, state: Any) -> tuple[Proposal, Any]:
        own, *others = matched_states((self.policy, *self.guards), state)
        proposal, own = advance(self.policy, snapshot, own)
        states = [own]
        for guard, remembered in zip(self.guards, others, strict=True):
            value, reset = guard.recall(remembered)
            proposal, value = _pair(guard, "limit", guard.limit(snapshot, proposal.because(*reset), value))
            states.append(guard.remember(value))
        return proposal, tuple(states)

    def predict(
        self, snapshot: Snapshot, state: Any, counts: Mapping[str, Sequence[int]]
    ) -> Mapping[str, Sequence[float] | None] | None:
        own, *_ = matched_states((self.policy, *self.guards), state)
        return predicted(self.policy, snapshot, own, counts)


def guards_of(policy: Policy) -> tuple[Guard, ...]:
    """The guards that a policy is under, in their order."""
    return (*guards_of(policy.policy), *policy.guards) if isinstance(policy, Guarded) else ()


def advance(policy: Policy, snapshot: Snapshot, state: State | None) -> tuple[Proposal, State | None]:
    """One step of a policy inside another: its proposal (with a reason if its state was reset), and its new state."""
    value, reset = policy.recall(state)
    proposal, value = _pair(policy, "propose", policy.propose(snapshot, value))
    return proposal.because(*reset), policy.remember(value)


def proposed(
    policy: Policy, snapshot: Snapshot, state: State | Mapping[str, Any] | None = None
) -> tuple[Proposal, State | None]:
    """The proposal that :meth:`Policy.decide` makes a decision of, within the specs, and the state of that decision.

    For a caller that limits the proposals of several policies together, as :class:`~dynamo_planner.fleet.Fleet` does.
    """
    state, reset = as_state(state)
    memory, not_mine = _DECIDER.recall(state)
    if memory is not None and snapshot.at_s <= memory.at_s:
        return memory.proposal, state
    proposal, remembered = advance(policy, snapshot, memory.policy if memory else None)
    proposal = within_specs(snapshot, proposal.because(*reset, *not_mine))
    memory = _Memory.unchecked(at_s=snapshot.at_s, proposal=proposal, policy=remembered)
    return proposal, _DECIDER.remember(memory)


def predicted(
    policy: Policy, snapshot: Snapshot, state: State | None, counts: Mapping[str, Sequence[int]]
) -> Mapping[str, Sequence[float] | None] | None:
    """The prediction of a policy inside another, by its state."""
    value, _ = policy.recall(state)
    return policy.predict(snapshot, value, counts)


def _pair(node: Node, method: str, returned: Any) -> tuple[Proposal, Any]:
    """What a node returned, where it is a proposal and a state."""
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[0], Proposal):
        return returned
    raise TypeError(
        f"{type(node).__name__}.{method} must return a proposal and its new state, as in "
        f"`return proposal, state`; it returned {returned!r:.200}"
    )


class _Memory(Frozen):
    """The state of a decision: when and what it last recommended, and the state of the policy."""

    at_s: float
    proposal: Proposal
    policy: State | None


class _Decider(Node, kind="decision"):
    state_type: ClassVar[Any] = _Memory


_DECIDER = _Decider()
