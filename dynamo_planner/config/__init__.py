"""Policies and runs as data, and assembling what they describe."""

from dynamo_planner.config.policies import load_policy, policy_schema
from dynamo_planner.config.problems import ConfigError

__all__ = ["ConfigError", "load_policy", "policy_schema"]
