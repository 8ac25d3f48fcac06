"""From a final proposal to a decision: what differs from the snapshot, in the order in which it is to be done."""

from __future__ import annotations

from typing import Any

from dynamo_planner.core.decision import Action, Decision, Hold, Proposal, Reason, ScaleTo, SetKnob, State, Want
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import FrozenMap


def present_value(snapshot: Snapshot, knob: SetKnob) -> Any:
    """The present value of a knob, or ``None`` where it is unknown."""
    if knob.pool is None:
        return snapshot.knobs.get(knob.knob)
    return snapshot.pools[knob.pool].knobs.get(knob.knob) if knob.pool in snapshot.pools else None


def conclude(snapshot: Snapshot, proposal: Proposal, state: State | None) -> Decision:
    """The decision that follows from a final proposal in this snapshot."""
    targets: dict[str, int] = {}
    scale: list[ScaleTo] = []
    reasons = list(proposal.reasons)
    for name, pool in snapshot.pools.items():
        entry = proposal.pools.get(name)
        present = pool.replicas.target if pool.replicas else None
        if isinstance(entry, Want) and present is not None:
            targets[name] = entry.replicas
            if entry.replicas != present:
                scale.append(ScaleTo(pool=name, replicas=entry.replicas, expected=present))
        elif isinstance(entry, Hold):
            reasons.append(Reason(code=entry.code, pool=name, message=entry.reason, values={"target": present}))
    scale.sort(key=lambda action: action.replicas > (action.expected or 0))
    moving = {action.pool for action in scale}
    knobs = tuple(knob.replace(expected=present_value(snapshot, knob)) for knob in proposal.knobs)
    actions: list[Action] = [*scale]
    for knob in knobs:
        if knob.value == knob.expected:
            continue
        if knob.pool in moving:
            message = f"knob {knob.knob!r} waits, because the pool's replicas change in this decision"
            reasons.append(Reason(code="KnobDeferred", pool=knob.pool, message=message))
        else:
            actions.append(knob)
    return Decision.unchecked(
        at_s=snapshot.at_s,
        targets=FrozenMap(targets),
        knobs=knobs,
        actions=tuple(actions),
        reasons=tuple(reasons),
        state=state,
        routing_weights=proposal.routing_weights,
        release_rates=proposal.release_rates,
    )
