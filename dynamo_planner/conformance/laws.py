"""The laws about one decision: each is a function that returns what is wrong with it, or ``None``."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from pydantic_core import PydanticSerializationError

from dynamo_planner.conformance.strategies import FRESH_S, measured, without
from dynamo_planner.conformance.surroundings import ELSEWHEN_S, Surroundings
from dynamo_planner.core.conclude import present_value
from dynamo_planner.core.decision import Decision, ScaleTo, SetKnob, State
from dynamo_planner.core.policy import Policy, guards_of
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Frozen

SEEDS = (1, 2, 3)
"""Seeds of the random generators under which a decision is repeated."""

RETRIES = 10
"""How often a decision is repeated to tell chance from a clock."""

SHOWN_CHARACTERS = 300
"""The length to which a field that differs is cut."""


class ConformanceError(AssertionError):
    """A policy, a part of one, or a fleet breaks a law.

    ``law`` is its name, and ``snapshots`` the timeline on which it is broken, the last of which the message shows.
    """

    def __init__(self, law: str, policy: Frozen, message: str, snapshots: Sequence[Snapshot] = ()) -> None:
        self.law, self.policy, self.snapshots = law, policy, tuple(snapshots)
        lines = [f"{policy!r} breaks the law {law!r}: {message}"]
        if len(self.snapshots) > 1:
            lines.append(f"after {len(self.snapshots) - 1} earlier snapshots, which are in .snapshots of this error,")
        if self.snapshots:
            lines.append(f"with the snapshot {self.snapshots[-1].model_dump_json(exclude_unset=True)}")
        super().__init__("\n".join(lines))


class Case(NamedTuple):
    """What a decision is made from: the earlier snapshots, the state after them, the snapshot; and fields to hide."""

    policy: Policy
    surroundings: Surroundings
    history: tuple[Snapshot, ...]
    state: State | None
    snapshot: Snapshot
    hidden: Collection[str] = ()

    def decide(self, snapshot: Snapshot, state: State | None) -> Decision:
        return decided(self.policy, snapshot, state, self.history)

    def broken(self, law: str, message: str) -> ConformanceError:
        return ConformanceError(law, self.policy, message, (*self.history, self.snapshot))

    def wanted(self, decision: Decision, pool: str) -> int | None:
        """The target of a pool after a decision; ``None`` where its replicas could not be read."""
        replicas = self.snapshot.pools[pool].replicas
        return decision.targets.get(pool, replicas.target) if replicas else None

    def lowered(self, decision: Decision, other: Decision) -> Iterator[str]:
        """Where a decision takes a pool below its present target, and below what another one says."""
        for name, pool in self.snapshot.pools.items():
            wanted, otherwise = self.wanted(decision, name), self.wanted(other, name)
            if wanted is None or otherwise is None or pool.replicas is None:
                continue
            if wanted < min(pool.replicas.target, otherwise):
                yield f"{name!r} goes from {pool.replicas.target} to {wanted}, and otherwise to {otherwise}"

    def over_budget(self) -> bool:
        """Whether the pools hold more than a GPU limit allows, so that one may be lowered for another."""
        held = sum(pool.gpus_held() or 0 for pool in self.snapshot.pools.values())
        return any(held > limit for limit in gpu_limits(self.policy, self.snapshot))

    def over_bounds(self) -> bool:
        """Whether a pool has more replicas than it may."""
        bounds = [(pool.replicas, pool.spec.max_replicas) for pool in self.snapshot.pools.values()]
        return any(replicas and most is not None and replicas.target > most for replicas, most in bounds)


def decided(policy: Policy, snapshot: Snapshot, state: State | None, history: Sequence[Snapshot] = ()) -> Decision:
    """A decision of the policy. That there is one, and that nothing is raised, is the first law."""
    try:
        decision = policy.decide(snapshot, state)
    except Exception as error:
        message = f"decide raised {type(error).__name__}: {error}"
        raise ConformanceError("never-raises", policy, message, (*history, snapshot)) from error
    if not isinstance(decision, Decision):
        raise ConformanceError("never-raises", policy, f"decide returned {decision!r}", (*history, snapshot))
    return decision


def judged(case: Case, only: str | None = None) -> Decision:
    """The decision of a case. Raises :class:`ConformanceError` for the first law, or for the ``only`` one, that it
    breaks."""
    given = case.snapshot.model_copy(deep=True)
    before = _content(case.snapshot, case.state)
    decision = case.decide(case.snapshot, case.state)
    if _content(case.snapshot, case.state) != before:
        changed = "decide changed the snapshot or the state that it was given"
        raise case._replace(snapshot=given).broken("input-unchanged", changed)
    for name, complaint in LAWS:
        message = complaint(case, decision) if only in {None, name} else None
        if message is not None:
            raise case.broken(name, message)
    return decision


def _content(snapshot: Snapshot, state: State | None) -> str:
    """The content of a snapshot and a state."""
    try:
        return snapshot.model_dump_json() + (state.model_dump_json() if state else "")
    except (PydanticSerializationError, ValueError, TypeError, AttributeError) as error:
        return f"not JSON any more: {error}"


def gpu_limits(policy: Policy, snapshot: Snapshot) -> list[int]:
    """The GPU limits of the guards that a policy is under."""
    limits = [guard.gpu_limit(snapshot) for guard in guards_of(policy)]
    return [limit for limit in limits if limit is not None]


Law = Callable[[Case, Decision], str | None]

LAWS: list[tuple[str, Law]] = []
"""The laws by name, in the order in which they are checked: each relies on those before it."""


def law(name: str) -> Callable[[Law], Law]:
    def register(complaint: Law) -> Law:
        LAWS.append((name, complaint))
        return complaint

    return register


@law("within-bounds")
def _within_bounds(case: Case, decision: Decision) -> str | None:
    for name, target in decision.targets.items():
        pool = case.snapshot.pools.get(name)
        if pool is None or pool.replicas is None:
            return f"a target for {name!r}, which is no pool whose replicas could be read"
        least, most = pool.spec.min_replicas, pool.spec.max_replicas
        if target < least or (most is not None and target > most):
            return f"{target} replicas for {name!r}, with min_replicas={least} and max_replicas={most}"
    return None


@law("within-budget")
def _within_budget(case: Case, decision: Decision) -> str | None:
    """Counted as the peak of the move: what is there goes only after what is new has come."""
    peak, raised = 0, []
    for name, pool in case.snapshot.pools.items():
        wanted, replicas = case.wanted(decision, name), pool.replicas
        if wanted is None or replicas is None:
            return None
        there = max(replicas.target, replicas.ready + replicas.starting)
        peak += pool.spec.gpus * (max(there, wanted) + replicas.draining)
        raised += [name] if wanted > there else []
    for limit in gpu_limits(case.policy, case.snapshot):
        if raised and peak > limit:
            return f"{', '.join(raised)} raised, for up to {peak} GPUs of {limit}"
    return None


@law("actions")
def _actions_are_the_difference(case: Case, decision: Decision) -> str | None:
    present = {name: pool.replicas.target for name, pool in case.snapshot.pools.items() if pool.replicas}
    right = {
        ScaleTo(pool=name, replicas=target, expected=present[name])
        for name, target in decision.targets.items()
        if target != present[name]
    }
    scaled = [action for action in decision.actions if isinstance(action, ScaleTo)]
    if set(scaled) != right or len(scaled) != len(right):
        return f"with {present} there and {dict(decision.targets)} as targets, the actions are {scaled}"
    for action in decision.actions:
        there = present_value(case.snapshot, action) if isinstance(action, SetKnob) else None
        if isinstance(action, SetKnob) and (action.expected != there or action.value == there):
            return f"{action} expects or sets what it should not, {there!r} is there"
    explained = {reason.pool for reason in decision.reasons}
    held = [name for name in case.snapshot.pools if name not in decision.targets and name not in explained]
    return f"{', '.join(held)} held without a reason" if held else None


@law("state-json")
def _state_is_json(case: Case, decision: Decision) -> str | None:
    try:
        decision.model_dump_json()
    except (PydanticSerializationError, ValueError, TypeError, AttributeError) as error:
        return f"the decision and its state cannot be written as JSON: {error}"
    return None


@law("same-input")
def _same_input_same_output(case: Case, decision: Decision) -> str | None:
    outputs = []
    for seed in SEEDS:
        called = case.surroundings.call(lambda: case.decide(case.snapshot, case.state), seed=seed)
        outputs.append(called.result.model_dump_json())
        if called.drew_from is not None:
            return f"it draws from {called.drew_from}"
        if outputs[-1] != outputs[0]:
            return f"with the clock stopped, it draws random numbers or has a memory: {_change(*outputs[-2:])}"
    return None


@law("no-clock")
def _no_clock(case: Case, decision: Decision) -> str | None:
    """What differs may differ by chance, so the first decision is repeated before a clock is blamed."""

    def output(clock_s: float) -> str:
        called = case.surroundings.call(lambda: case.decide(case.snapshot, case.state), clock_s=clock_s)
        return str(called.result.model_dump_json())

    first, *others = map(output, ELSEWHEN_S)
    differs = next((other for other in others if other != first), None)
    if differs is None:
        return None
    for _ in range(RETRIES):
        again = output(ELSEWHEN_S[0])
        if again != first:
            raise case.broken("same-input", f"it draws random numbers: {_change(first, again)}")
    return f"it reads a clock: {_change(first, differs)}"


def _change(before: str, after: str) -> str:
    """The difference between two decisions as JSON."""
    first, last = json.loads(before), json.loads(after)
    field = next(field for field in first if first[field] != last[field])
    return f"{field} is first {str(first[field])[:SHOWN_CHARACTERS]} and then {str(last[field])[:SHOWN_CHARACTERS]}"


@law("state-json")
def _state_survives_json(case: Case, decision: Decision) -> str | None:
    if case.state is None:
        return None
    revived = State.model_validate(json.loads(case.state.model_dump_json()))
    try:
        after = case.policy.decide(case.snapshot, revived).model_dump_json()
    except Exception as error:
        return f"with its state out of JSON, decide raised {type(error).__name__}: {error}"
    native = decision.model_dump_json()
    return None if after == native else f"with its state out of JSON it decides otherwise: {_change(native, after)}"


@law("same-time")
def _not_newer_changes_nothing(case: Case, decision: Decision) -> str | None:
    for at_s in (case.snapshot.at_s, case.snapshot.at_s - 60):
        again = case.decide(case.snapshot.replace(at_s=at_s), decision.state)
        same = (again.targets, again.actions, again.reasons) == (decision.targets, decision.actions, decision.reasons)
        if not same or again.state != decision.state:
            return f"again at {at_s}, not after {case.snapshot.at_s}, it decides otherwise, or changes its state"
    return None


@law("missing-never-lowers")
def _missing_never_lowers(case: Case, decision: Decision) -> str | None:
    """Measurements that are hidden never take a pool below what it has and what it would get with them.

    Each is hidden by itself, and those of the case together. Where pools must be lowered in any case, because they
    hold more than a GPU limit or have more replicas than they may, one may be lowered for another. A guard that
    lowers blind pools on purpose declares it (``lowers_when_blind``).
    """
    case.decide(without(case.snapshot, case.hidden), case.state)
    if case.over_budget() or case.over_bounds() or any(guard.lowers_when_blind for guard in guards_of(case.policy)):
        return None
    for hidden in [(path,) for path in measured(case.snapshot)] + [measured(case.snapshot, case.hidden)]:
        blind = without(case.snapshot, hidden)
        if blind.traffic.requests_per_s == 0 and blind.age_s(blind.traffic.observed_at_s) <= FRESH_S:
            continue
        lowered = next(case.lowered(case.decide(blind, case.state), decision), None)
        if lowered is not None:
            return f"without {', '.join(hidden)}: {lowered}"
    return None


@law("no-state")
def _without_state_no_sudden_fall(case: Case, decision: Decision) -> str | None:
    """Where the targets have been what they are all along, forgetting the state lowers no pool that it would keep."""
    present = [pool.replicas for pool in case.snapshot.pools.values()]
    steady = all([pool.replicas for pool in past.pools.values()] == present for past in case.history)
    if not steady or case.over_budget():
        return None
    return next(
        (f"without its state: {fall}" for fall in case.lowered(case.decide(case.snapshot, None), decision)), None
    )
