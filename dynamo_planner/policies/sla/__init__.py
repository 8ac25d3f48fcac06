"""SLA-driven scaling from profiles and forecasts, for a share of requests that meet their targets."""

from dynamo_planner.policies.sla.policy import SlaPolicy

__all__ = ["SlaPolicy"]
