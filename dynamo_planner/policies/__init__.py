"""The policies that are shipped."""

from dynamo_planner.policies.load import LoadPolicy

__all__ = ["LoadPolicy"]
