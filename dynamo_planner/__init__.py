"""Scaling policies for LLM serving: pure decisions, thin executors."""

from typing import TYPE_CHECKING

from dynamo_planner import _moved
from dynamo_planner.core.combinators import highest, together
from dynamo_planner.core.decision import (
    Action,
    Decision,
    Hold,
    Outcome,
    Proposal,
    Reason,
    ScaleTo,
    SetKnob,
    State,
    Want,
)
from dynamo_planner.core.first_decision import decide
from dynamo_planner.core.in_time import share_in_time
from dynamo_planner.core.lazy import lazy_exports
from dynamo_planner.core.metrics import Deferred, Dist, PoolMetrics, Traffic, WorkerStatus
from dynamo_planner.core.policy import Guard, Policy
from dynamo_planner.core.share import Share
from dynamo_planner.core.snapshot import Observation, PoolSpec, PoolStatus, Replicas, Role, Sla, Snapshot
from dynamo_planner.guards import Bounds, GpuBudget, Override, Pending, Stabilization, Staleness, StepLimit
from dynamo_planner.guards import registry as _guards  # noqa: F401  # fields of any guard or policy know their kinds
from dynamo_planner.policies import LoadPolicy
from dynamo_planner.policies import registry as _policies  # noqa: F401

__version__ = "0.2.0"

_moved.install()

if TYPE_CHECKING:
    from dynamo_planner.config import ConfigError, load_policy, policy_schema
    from dynamo_planner.evaluation import backtest
    from dynamo_planner.guards import Calendar, Fallback, Multiples, Ratio, Spare, Tolerance
    from dynamo_planner.policies import (
        HpaLaw,
        KedaSloLaw,
        KnobPolicy,
        KpaLaw,
        LlmdQueueLaw,
        LlmdTokensLaw,
        RayServeLaw,
        Schedule,
        SlaPolicy,
        StaticLaw,
        WvaLaw,
    )
    from dynamo_planner.profiles import Profile, ProfileError
    from dynamo_planner.runtime import Planner
    from dynamo_planner.simulator import ClusterSetup
    from dynamo_planner.workloads import Trace

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "Calendar": "guards",
        "ClusterSetup": "simulator",
        "ConfigError": "config",
        "Fallback": "guards",
        "HpaLaw": "policies",
        "KedaSloLaw": "policies",
        "KnobPolicy": "policies",
        "KpaLaw": "policies",
        "LlmdQueueLaw": "policies",
        "LlmdTokensLaw": "policies",
        "Multiples": "guards",
        "Planner": "runtime",
        "Profile": "profiles",
        "ProfileError": "profiles",
        "Ratio": "guards",
        "RayServeLaw": "policies",
        "Schedule": "policies",
        "SlaPolicy": "policies",
        "Spare": "guards",
        "StaticLaw": "policies",
        "Tolerance": "guards",
        "Trace": "workloads",
        "WvaLaw": "policies",
        "backtest": "evaluation",
        "load_policy": "config",
        "policy_schema": "config",
    },
)
"""A controller without these need not wait for them, or for scipy."""

__all__ = [
    "Action",
    "Bounds",
    "Calendar",
    "ClusterSetup",
    "ConfigError",
    "Decision",
    "Deferred",
    "Dist",
    "Fallback",
    "GpuBudget",
    "Guard",
    "Hold",
    "HpaLaw",
    "KedaSloLaw",
    "KnobPolicy",
    "KpaLaw",
    "LlmdQueueLaw",
    "LlmdTokensLaw",
    "LoadPolicy",
    "Multiples",
    "Observation",
    "Outcome",
    "Override",
    "Pending",
    "Planner",
    "Policy",
    "PoolMetrics",
    "PoolSpec",
    "PoolStatus",
    "Profile",
    "ProfileError",
    "Proposal",
    "Ratio",
    "RayServeLaw",
    "Reason",
    "Replicas",
    "Role",
    "ScaleTo",
    "Schedule",
    "SetKnob",
    "Share",
    "Sla",
    "SlaPolicy",
    "Snapshot",
    "Spare",
    "Stabilization",
    "Staleness",
    "State",
    "StaticLaw",
    "StepLimit",
    "Tolerance",
    "Trace",
    "Traffic",
    "Want",
    "WorkerStatus",
    "WvaLaw",
    "backtest",
    "decide",
    "highest",
    "load_policy",
    "policy_schema",
    "share_in_time",
    "together",
]
