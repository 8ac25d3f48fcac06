"""The control loop: observe, decide, apply, record.

``Planner`` runs a source, a policy and an executor; ``FleetPlanner`` runs several models on shared budgets. Around them
stand the decision log, the state file, and the planner's own metrics and health.
"""

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports
from dynamo_planner.runtime.decision_log import DecisionLog, Step, read_log
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.runtime.snapshot_builder import merge

if TYPE_CHECKING:
    from dynamo_planner.runtime.fleet_planner import FleetPlanner

__getattr__, __dir__ = lazy_exports(__name__, {"FleetPlanner": "fleet_planner"})

__all__ = ["DecisionLog", "FleetPlanner", "Planner", "Step", "merge", "read_log"]
