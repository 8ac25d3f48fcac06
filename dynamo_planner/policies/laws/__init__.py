"""Scaling rules of other systems, as baselines to compare with, and the base classes of more."""

from dynamo_planner.policies.laws.per_pool import PerPoolLaw, PoolMemories, RequestsLaw

__all__ = ["PerPoolLaw", "PoolMemories", "RequestsLaw"]
