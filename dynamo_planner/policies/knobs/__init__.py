"""Engine knobs: from an analytic value by small guarded steps to one that is measured to be better."""

from dynamo_planner.policies.knobs.policy import KnobPolicy

__all__ = ["KnobPolicy"]
