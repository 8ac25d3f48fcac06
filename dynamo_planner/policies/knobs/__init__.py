"""Engine-knob tuning: from an analytic value by guarded trials to one that is measured to be better."""

from dynamo_planner.policies.knobs.policy import KnobPolicy

__all__ = ["KnobPolicy"]
