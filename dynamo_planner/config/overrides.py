"""Overrides by operators, in a file of its own: pins, floors and pauses, changed while the planner runs.

The file has the fields of :class:`Override`; an empty one overrides nothing. On Kubernetes it is a key of a ConfigMap
that is mounted into the planner's pod.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dynamo_planner.config.files import read_data
from dynamo_planner.config.problems import ConfigError, unknown_pools, validated
from dynamo_planner.core.policy import Guarded, Policy
from dynamo_planner.guards import Override


def load_overrides(path: Path, pools: Collection[str]) -> Override:
    """Read the overrides of a planner of these pools. Raises :class:`ConfigError` with each problem."""
    data = read_data(path)
    try:
        overrides = validated(Override, {} if data is None else data, "")
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error
    unknown = unknown_pools(overrides, data, pools)
    if unknown:
        raise ConfigError([f"{path}: {problem}" for problem in unknown])
    return overrides


def with_overrides(policy: Policy, overrides: Override | None) -> Policy:
    """Insert the overrides after the policy's soft guards and before its hard ones, which keep the last word.

    >>> from dynamo_planner import Bounds, LoadPolicy, StepLimit
    >>> overridden = with_overrides(LoadPolicy() | StepLimit(up_replicas=1) | Bounds(), Override())
    >>> [guard.kind for guard in overridden.guards]
    ['step_limit', 'override', 'bounds']
    """
    if overrides is None:
        return policy
    if not isinstance(policy, Guarded):
        return policy | overrides
    if _has_hard_guards(policy.policy):
        return policy.replace(policy=with_overrides(policy.policy, overrides))
    soft = tuple(guard for guard in policy.guards if guard.rank == 0)
    return policy.replace(guards=(*soft, overrides, *policy.guards[len(soft) :]))


def _has_hard_guards(policy: Policy) -> bool:
    return isinstance(policy, Guarded) and (
        any(guard.rank > 0 for guard in policy.guards) or _has_hard_guards(policy.policy)
    )
