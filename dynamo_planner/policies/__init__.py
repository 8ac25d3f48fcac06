"""Policies: SLA-driven, reactive, scheduled, knob tuning, and the scaling laws of other systems as baselines."""

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports
from dynamo_planner.policies.reactive import LoadPolicy

if TYPE_CHECKING:
    from dynamo_planner.policies.knobs import KnobPolicy
    from dynamo_planner.policies.laws.hpa import HpaLaw, HpaMetric
    from dynamo_planner.policies.laws.keda_slo import KedaSloLaw
    from dynamo_planner.policies.laws.kpa import KpaLaw
    from dynamo_planner.policies.laws.llmd_queue import LlmdQueueLaw
    from dynamo_planner.policies.laws.llmd_tokens import LlmdTokensLaw
    from dynamo_planner.policies.laws.ray_serve import RayServeLaw
    from dynamo_planner.policies.laws.wva import WvaLaw
    from dynamo_planner.policies.schedule import Schedule, StaticLaw
    from dynamo_planner.policies.sla import SlaPolicy

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "HpaLaw": "laws.hpa",
        "HpaMetric": "laws.hpa",
        "KedaSloLaw": "laws.keda_slo",
        "KnobPolicy": "knobs",
        "KpaLaw": "laws.kpa",
        "LlmdQueueLaw": "laws.llmd_queue",
        "LlmdTokensLaw": "laws.llmd_tokens",
        "RayServeLaw": "laws.ray_serve",
        "Schedule": "schedule",
        "SlaPolicy": "sla",
        "StaticLaw": "schedule",
        "WvaLaw": "laws.wva",
    },
)

__all__ = [
    "HpaLaw",
    "HpaMetric",
    "KedaSloLaw",
    "KnobPolicy",
    "KpaLaw",
    "LlmdQueueLaw",
    "LlmdTokensLaw",
    "LoadPolicy",
    "RayServeLaw",
    "Schedule",
    "SlaPolicy",
    "StaticLaw",
    "WvaLaw",
]
