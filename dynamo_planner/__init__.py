"""Scaling policies for LLM serving: pure decisions, thin executors."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dynamo_planner.config.policies import ConfigError, load_policy, policy_schema
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
from dynamo_planner.core.policy import Guard, Policy
from dynamo_planner.core.snapshot import (
    Dist,
    Observation,
    PoolMetrics,
    PoolSpec,
    PoolStatus,
    Replicas,
    Role,
    Sla,
    Snapshot,
    Traffic,
    WorkerStatus,
)
from dynamo_planner.guards import Bounds, GpuBudget, Override, Pending, Stabilization, Staleness, StepLimit
from dynamo_planner.policies import LoadPolicy
from dynamo_planner.runtime.planner import Planner

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dynamo_planner.policies import (
        HpaLaw,
        KedaSloLaw,
        KnobPolicy,
        KpaLaw,
        RayServeLaw,
        Schedule,
        SlaPolicy,
        StaticLaw,
        WvaLaw,
    )
    from dynamo_planner.profiles import Profile, ProfileError

_LAZY = {
    "HpaLaw": "dynamo_planner.policies",
    "KedaSloLaw": "dynamo_planner.policies",
    "KnobPolicy": "dynamo_planner.policies",
    "KpaLaw": "dynamo_planner.policies",
    "Profile": "dynamo_planner.profiles",
    "ProfileError": "dynamo_planner.profiles",
    "RayServeLaw": "dynamo_planner.policies",
    "Schedule": "dynamo_planner.policies",
    "SlaPolicy": "dynamo_planner.policies",
    "StaticLaw": "dynamo_planner.policies",
    "WvaLaw": "dynamo_planner.policies",
}
"""Names that are imported when they are asked for: a controller without them need not wait for them, or for scipy."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


__all__ = [
    "Action",
    "Bounds",
    "ConfigError",
    "Decision",
    "Dist",
    "GpuBudget",
    "Guard",
    "Hold",
    "HpaLaw",
    "KedaSloLaw",
    "KnobPolicy",
    "KpaLaw",
    "LoadPolicy",
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
    "RayServeLaw",
    "Reason",
    "Replicas",
    "Role",
    "ScaleTo",
    "Schedule",
    "SetKnob",
    "Sla",
    "SlaPolicy",
    "Snapshot",
    "Stabilization",
    "Staleness",
    "State",
    "StaticLaw",
    "StepLimit",
    "Traffic",
    "Want",
    "WorkerStatus",
    "WvaLaw",
    "highest",
    "load_policy",
    "policy_schema",
    "together",
]
