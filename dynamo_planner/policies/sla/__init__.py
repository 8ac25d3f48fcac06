"""SLA-driven scaling from profiles and forecasts, for a share of requests that meet their targets."""

from dynamo_planner.policies.sla.attainment import Attainment, EvenSplit
from dynamo_planner.policies.sla.capacity import Capacity
from dynamo_planner.policies.sla.learned_capacity import LearnedCapacity
from dynamo_planner.policies.sla.learned_curves import profile_of
from dynamo_planner.policies.sla.plan import Plan, SkiRental
from dynamo_planner.policies.sla.policy import SlaPolicy
from dynamo_planner.policies.sla.promise import KeptPromise
from dynamo_planner.policies.sla.sizing import Classic, Percentile, Sizing, SizingRequest
from dynamo_planner.policies.sla.startup import ObservedStartup, Startup
from dynamo_planner.policies.sla.step_capacity import StepModelCapacity
from dynamo_planner.policies.sla.workload import RecentWorkload, Workload

__all__ = [
    "Attainment",
    "Capacity",
    "Classic",
    "EvenSplit",
    "KeptPromise",
    "LearnedCapacity",
    "ObservedStartup",
    "Percentile",
    "Plan",
    "RecentWorkload",
    "Sizing",
    "SizingRequest",
    "SkiRental",
    "SlaPolicy",
    "Startup",
    "StepModelCapacity",
    "Workload",
    "profile_of",
]
