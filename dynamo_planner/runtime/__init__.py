"""The control loop: observe, decide, apply, record.

``Planner`` runs a source, a policy and an executor. Around it stand the decision log, the state file, and the planner's
own metrics and health.
"""

from dynamo_planner.runtime.decision_log import DecisionLog, Step, read_log
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.runtime.snapshot_builder import merge

__all__ = ["DecisionLog", "Planner", "Step", "merge", "read_log"]
