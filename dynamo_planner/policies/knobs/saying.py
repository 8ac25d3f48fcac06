"""What a knob policy says."""

from __future__ import annotations

from dynamo_planner.core.decision import Proposal, Reason, SetKnob
from dynamo_planner.policies.knobs.candidates import Bound
from dynamo_planner.policies.knobs.memory import KnobMemory, Trial


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value


def wanting(trial: Trial, value: float, reason: Reason) -> Proposal:
    return Proposal(knobs=(SetKnob(knob=trial.knob, value=_whole(value), pool=trial.pool),), reasons=(reason,))


def within_the_gap(bound: Bound) -> Proposal:
    message = f"{bound.knob.name} {bound.before:g} -> {bound.value:g}: its steps are as long as the worst gap allows"
    reason = Reason(code="GapBound", pool=bound.pool, message=message)
    return Proposal(
        knobs=(SetKnob(knob=bound.knob.name, value=_whole(bound.value), pool=bound.pool),), reasons=(reason,)
    )


def taking_back(trial: Trial) -> Proposal:
    message = f"{trial.knob} is to go back to {trial.before:g}"
    return wanting(trial, trial.before, Reason(code="KnobReverted", pool=trial.pool, message=message))


def telling(*reasons: Reason) -> Proposal:
    return Proposal(reasons=reasons)


def measuring(trial: Trial, memory: KnobMemory, windows: int) -> Reason:
    values = {"before": trial.before, "value": trial.value, "seen": len(memory.windows), "of": windows}
    return Reason(code="KnobTrial", pool=trial.pool, message=f"{trial.knob} is being measured", values=values)
