"""check_fleet: search for a case in which a fleet breaks a law, by hypothesis.

===================== ================================================================================================
never-raises          whatever is missing from the snapshots, there is a decision for each
within-bounds         the targets are within the specs, or where they were
within-budgets        no rise beyond a budget at the peak of the move, whatever the other actions come to
dark-model            a model whose replicas could not be read changes nothing, and for the others it is as if the
                      budgets were smaller by what it holds
same-input            the same again, and in another order of the models
state-json            the state goes through JSON, and decides the same
===================== ================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dynamo_planner.conformance.check import search
from dynamo_planner.conformance.laws import ConformanceError
from dynamo_planner.conformance.strategies import Mode, timelines
from dynamo_planner.core.decision import State
from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.fleet import Budget, Fleet, FleetDecision

with needs_extra("testing"):
    from hypothesis import strategies as st

Snapshots = Mapping[str, Snapshot]

TICKS = 3
"""The largest number of snapshots of each model in a timeline."""


def check_fleet(fleet: Fleet, *, modes: Mapping[str, Mode] | None = None, examples: int = 40) -> None:
    """Look for a case in which a fleet breaks one of the laws of this module.

    It is deterministic, and no examples are stored. Raises
    :class:`~dynamo_planner.conformance.ConformanceError` for the first law that is found broken.

    Args:
        fleet: The fleet.
        modes: Whether a model is ``aggregated`` (a pool ``workers``) or ``disaggregated`` (``prefill`` and
            ``decode``), by name. Default all aggregated.
        examples: Timelines that are tried. Default 40.
    """
    modes = modes or {}
    drawn = {name: timelines(modes.get(name, "aggregated"), ticks=TICKS) for name in fleet.models}
    search(st.fixed_dictionaries(drawn), lambda case, _: _check(fleet, case), examples)


def _check(fleet: Fleet, timelines_of: Mapping[str, tuple[Snapshot, ...]]) -> None:
    state: State | None = None
    for number in range(min(map(len, timelines_of.values()))):
        snapshots = {name: timeline[number] for name, timeline in timelines_of.items()}
        decision = _decided(fleet, snapshots, state)
        for law, problem in _problems(fleet, snapshots, state, decision):
            raise ConformanceError(law, fleet, problem, tuple(snapshots.values()))
        state = decision.state


def _decided(fleet: Fleet, snapshots: Snapshots, state: State | None) -> FleetDecision:
    try:
        return fleet.decide(snapshots, state)
    except Exception as error:
        message = f"decide raised {type(error).__name__}: {error}"
        raise ConformanceError("never-raises", fleet, message, tuple(snapshots.values())) from error


def _problems(
    fleet: Fleet, snapshots: Snapshots, state: State | None, decision: FleetDecision
) -> Iterator[tuple[str, str]]:
    for name, snapshot in snapshots.items():
        for pool, target in decision.decisions[name].targets.items():
            status = snapshot.pools[pool]
            most = status.spec.max_replicas
            if status.replicas and most is not None and target > max(most, status.replicas.target):
                yield "within-bounds", f"{name}.{pool} goes to {target}, above {most}"
    for budget in fleet.budgets:
        before, after = _held(fleet, snapshots, None, budget), _held(fleet, snapshots, decision, budget)
        if after > max(before, fleet.budgets[budget].amount) + 1e-6:
            yield "within-budgets", f"{budget!r} has {fleet.budgets[budget].amount:g}, and {after:g} would be held"
    again = _decided(fleet, dict(reversed(list(snapshots.items()))), state)
    if again != decision:
        yield "same-input", "the same snapshots in another order are decided otherwise"
    through = None if state is None else State.model_validate_json(state.model_dump_json())
    if _decided(fleet, snapshots, through).decisions != decision.decisions:
        yield "state-json", "with the state out of its JSON it decides otherwise"
    if decision.state is not None:
        yield from _dark(fleet, snapshots, decision)


def _held(fleet: Fleet, snapshots: Snapshots, decision: FleetDecision | None, budget: str) -> float:
    """What is held of a budget at most, with the rises of a decision and without its falls."""
    held = 0.0
    for name, snapshot in snapshots.items():
        for pool, status in snapshot.pools.items():
            if status.replicas is None:
                continue
            target = 0 if decision is None else decision.decisions[name].targets.get(pool, 0)
            there = max(status.replicas.target, status.replicas.ready + status.replicas.starting, target)
            uses = fleet.models[name].used_by(pool, status.spec, fleet.budgets)
            held += (there + status.replicas.draining) * uses.get(budget, 0.0)
    return held


def _dark(fleet: Fleet, snapshots: Snapshots, decision: FleetDecision) -> Iterator[tuple[str, str]]:
    """The first model as if it could not be read a moment later."""
    dark = next(iter(snapshots))
    later = {name: snapshot.replace(at_s=snapshot.at_s + 1.0) for name, snapshot in snapshots.items()}
    unread = {name: pool.replace(replicas=None) for name, pool in later[dark].pools.items()}
    later[dark] = later[dark].replace(pools=FrozenMap(unread))
    found = _decided(fleet, later, decision.state)
    if found.decisions[dark].actions:
        yield "dark-model", f"{dark!r} could not be read, and is acted on"
    if any(pool.replicas is None for pool in snapshots[dark].pools.values()):
        return
    budgets = {
        name: Budget(total=max(budget.amount - _held_of(fleet, snapshots, dark, decision, name), 0.0))
        for name, budget in fleet.budgets.items()
        if budget.nodes is None
    }
    if len(budgets) < len(fleet.budgets) or any(budget.least for budget in fleet.budgets.values()):
        return
    others = {name: member.replace(floor=FrozenMap()) for name, member in fleet.models.items() if name != dark}
    if not others or any(member.floor for member in fleet.models.values()):
        return
    smaller = fleet.replace(models=FrozenMap(others), budgets=FrozenMap(budgets))
    alone = _decided(smaller, {name: snapshot for name, snapshot in later.items() if name != dark}, decision.state)
    for name, own in alone.decisions.items():
        if own.actions != found.decisions[name].actions:
            yield "dark-model", f"{dark!r} could not be read, which moves {name!r}"


def _held_of(fleet: Fleet, snapshots: Snapshots, name: str, decision: FleetDecision, budget: str) -> float:
    """What one model holds of a budget at most."""
    return _held(fleet, {name: snapshots[name]}, decision, budget)
