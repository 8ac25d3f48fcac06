"""Guards: limits on the proposal of any policy.

Soft guards first, in the order in which an operator would think of them, and the hard ones last::

    policy | Staleness() | Stabilization() | StepLimit() | Pending() | Override() | Bounds() | GpuBudget(max_gpus=16)
"""

from dynamo_planner.guards.bounds import Bounds
from dynamo_planner.guards.gpu_budget import GpuBudget
from dynamo_planner.guards.override import Override
from dynamo_planner.guards.pending import Pending
from dynamo_planner.guards.stabilization import Stabilization
from dynamo_planner.guards.staleness import Staleness
from dynamo_planner.guards.step_limit import StepLimit

__all__ = ["Bounds", "GpuBudget", "Override", "Pending", "Stabilization", "Staleness", "StepLimit"]
