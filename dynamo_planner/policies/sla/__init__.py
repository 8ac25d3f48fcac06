"""Sizing from profiles and forecasts, for the share of requests that meet an SLA."""

from dynamo_planner.policies.sla.policy import SlaPolicy

__all__ = ["SlaPolicy"]
