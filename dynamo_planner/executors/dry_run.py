"""Dry run: for trying out a policy and a source before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from dynamo_planner.core.decision import Action, Outcome, ScaleTo
from dynamo_planner.core.pool_names import PoolName, no_such_pool
from dynamo_planner.core.snapshot import PoolSpec, Replicas
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.executors.config import ExecutorConfig


class DryRunExecutor:
    """Reports what it would do and does nothing; replicas stay as they were given.

    Args:
        pools: What a replica of each pool is.
        replicas: Replicas by pool; ``min_replicas`` where left out.

    >>> executor = DryRunExecutor({"decode": PoolSpec(role="decode")}, {"decode": 2})
    >>> executor.apply([ScaleTo(pool="decode", replicas=3, expected=2)])[0].message
    'dry run: would scale decode from 2 to 3 replicas'
    >>> executor.observe()["decode"].ready
    2
    """

    def __init__(self, pools: Mapping[str, PoolSpec], replicas: Mapping[str, int] | None = None) -> None:
        given = dict(replicas or {})
        unknown = sorted(given.keys() - pools.keys())
        if unknown:
            raise ValueError(f"replicas: {no_such_pool(unknown[0], pools)}")
        self._pools = FrozenMap(pools)
        self._replicas = {
            name: Replicas.model_validate(given.get(name, spec.min_replicas)) for name, spec in pools.items()
        }

    @property
    def pools(self) -> Mapping[str, PoolSpec]:
        return self._pools

    def observe(self) -> Mapping[str, Replicas | None]:
        return dict(self._replicas)

    def apply(self, actions: Sequence[Action]) -> tuple[Outcome, ...]:
        return tuple(Outcome(action=action, status="unchanged", message=_would(action)) for action in actions)


def _would(action: Action) -> str:
    if isinstance(action, ScaleTo):
        return f"dry run: would scale {action.pool} from {action.expected} to {action.replicas} replicas"
    return f"dry run: would set {action.knob} of {action.pool or 'the service'} to {action.value}"


class DryRunConfig(ExecutorConfig, kind="dry_run"):
    """Act on nothing: every action is recorded as unchanged, and replicas stay as they are given here.

    Args:
        pools: The specs of the pools by name.
        replicas: The replicas that are there, by pool. Default 0.
    """

    pools: dict[str, PoolSpec] = Field(min_length=1)
    replicas: dict[PoolName, int] = Field(default_factory=dict)

    @property
    def specs(self) -> Mapping[str, PoolSpec]:
        return self.pools

    def build(self) -> DryRunExecutor:
        return DryRunExecutor(self.pools, self.replicas)
