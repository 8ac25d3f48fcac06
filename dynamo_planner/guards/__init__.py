"""Guards: limits on the proposal of any policy.

Soft guards first, in the order in which an operator would think of them, and the hard ones last::

    policy | Staleness() | Fallback(of_last_good=1) | Spare() | Ratio(most=2) | Tolerance()
           | Stabilization() | StepLimit() | Pending() | Multiples(of={"decode": 2}) | Calendar(entries=[...])
           | Override() | Bounds() | GpuBudget(max_gpus=16)
"""

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports
from dynamo_planner.guards.bounds import Bounds
from dynamo_planner.guards.gpu_budget import GpuBudget
from dynamo_planner.guards.override import Override
from dynamo_planner.guards.pending import Pending
from dynamo_planner.guards.stabilization import Stabilization
from dynamo_planner.guards.staleness import Staleness
from dynamo_planner.guards.step_limit import StepLimit

if TYPE_CHECKING:
    from dynamo_planner.guards.calendars import Calendar, CalendarEntry
    from dynamo_planner.guards.fallback import Fallback
    from dynamo_planner.guards.multiples import Multiples
    from dynamo_planner.guards.ratio import Ratio
    from dynamo_planner.guards.spare import Spare
    from dynamo_planner.guards.tolerance import Tolerance

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Calendar": "calendars",
        "CalendarEntry": "calendars",
        "Fallback": "fallback",
        "Multiples": "multiples",
        "Ratio": "ratio",
        "Spare": "spare",
        "Tolerance": "tolerance",
    },
)

__all__ = [
    "Bounds",
    "Calendar",
    "CalendarEntry",
    "Fallback",
    "GpuBudget",
    "Multiples",
    "Override",
    "Pending",
    "Ratio",
    "Spare",
    "Stabilization",
    "Staleness",
    "StepLimit",
    "Tolerance",
]
