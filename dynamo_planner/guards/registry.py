"""The kinds of guards that are shipped, and where each lives; imported when it is first needed."""

from dynamo_planner.core.policy import GUARDS

__all__ = ["GUARDS"]

GUARDS.ship(
    {
        "fallback": "dynamo_planner.guards.fallback:Fallback",
        "spare": "dynamo_planner.guards.spare:Spare",
        "ratio": "dynamo_planner.guards.ratio:Ratio",
        "tolerance": "dynamo_planner.guards.tolerance:Tolerance",
        "multiples": "dynamo_planner.guards.multiples:Multiples",
        "calendar": "dynamo_planner.guards.calendars:Calendar",
        "bounds": "dynamo_planner.guards.bounds:Bounds",
        "gpu_budget": "dynamo_planner.guards.gpu_budget:GpuBudget",
        "step_limit": "dynamo_planner.guards.step_limit:StepLimit",
        "stabilization": "dynamo_planner.guards.stabilization:Stabilization",
        "pending": "dynamo_planner.guards.pending:Pending",
        "staleness": "dynamo_planner.guards.staleness:Staleness",
        "override": "dynamo_planner.guards.override:Override",
    }
)
