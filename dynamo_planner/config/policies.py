"""Policies from data: every kind of policy and guard as JSON (or YAML, extra ``cli``), and the schema of that.

>>> policy = load_policy([{"kind": "load", "decode_kv_up": 0.8}, {"kind": "gpu_budget", "max_gpus": 8}])
>>> [guard.kind for guard in policy.guards]
['gpu_budget']
>>> load_policy([{"kind": "load"}, {"kind": "gpu_budget", "max_gpu": 8}])
Traceback (most recent call last):
...
dynamo_planner.config.problems.ConfigError: policy[1].max_gpus: Field required
policy[1].max_gpu: unknown field, did you mean 'max_gpus'? allowed: max_gpus, min_gpus, name
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dynamo_planner.config.files import read_data
from dynamo_planner.config.kinds import loading_context, policy_kinds
from dynamo_planner.config.problems import ConfigError, validated
from dynamo_planner.config.schema import definitions
from dynamo_planner.core.policy import AnyPolicy, Policy

__all__ = ["ConfigError", "load_policy", "policy_schema"]


def load_policy(source: str | Path | Mapping[str, Any] | Sequence[Any], *, allow_custom: bool = False) -> Policy:
    """Build a policy from a file (``.json``, ``.yaml``, ``.yml``) or from the data itself.

    A mapping names its ``kind``; a list is a policy followed by its guards, as ``policy | guard | guard``. A profile
    is data, the name of a bundled one, or a path, which counts from the working directory. Kinds of other packages
    are ``package.module:Name``, or the name of an entry point in the group ``dynamo_planner.policies`` or
    ``dynamo_planner.guards``; they are imported only where ``allow_custom`` says so.

    Raises :class:`ConfigError` with the path of each field that is wrong.
    """
    data = read_data(source) if isinstance(source, str | Path) else source
    policy: Policy = validated(AnyPolicy, data, "policy", loading_context(allow_custom=allow_custom))
    return policy


def policy_schema() -> dict[str, Any]:
    """The JSON Schema of everything that :func:`load_policy` accepts."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A dynamo_planner policy",
        "$ref": "#/$defs/Policy",
        "$defs": definitions(*policy_kinds()),
    }
