"""Policies and runs as data, and assembling what they describe."""

from dynamo_planner.config.policies import ConfigError, load_policy, policy_schema

__all__ = ["ConfigError", "load_policy", "policy_schema"]
