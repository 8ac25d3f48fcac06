"""The policies that are shipped: our own, and the laws of other systems to compare with."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dynamo_planner.policies.reactive import LoadPolicy

if TYPE_CHECKING:
    from dynamo_planner.policies.knobs import KnobPolicy
    from dynamo_planner.policies.laws.hpa import HpaLaw
    from dynamo_planner.policies.laws.keda_slo import KedaSloLaw
    from dynamo_planner.policies.laws.kpa import KpaLaw
    from dynamo_planner.policies.laws.ray_serve import RayServeLaw
    from dynamo_planner.policies.laws.wva import WvaLaw
    from dynamo_planner.policies.schedule import Schedule
    from dynamo_planner.policies.sla import SlaPolicy
    from dynamo_planner.policies.static import StaticLaw

_LAZY = {
    "HpaLaw": "laws.hpa",
    "KedaSloLaw": "laws.keda_slo",
    "KnobPolicy": "knobs",
    "KpaLaw": "laws.kpa",
    "RayServeLaw": "laws.ray_serve",
    "Schedule": "schedule",
    "SlaPolicy": "sla",
    "StaticLaw": "static",
    "WvaLaw": "laws.wva",
}
"""Policies that are imported when they are asked for, and the modules that they are in."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


__all__ = [
    "HpaLaw",
    "KedaSloLaw",
    "KnobPolicy",
    "KpaLaw",
    "LoadPolicy",
    "RayServeLaw",
    "Schedule",
    "SlaPolicy",
    "StaticLaw",
    "WvaLaw",
]
