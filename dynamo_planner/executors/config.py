"""The configuration of an executor as data: what each executor has to offer, shipped or not.

An executor of your own is a class like this one, which a configuration names as ``my_package.my_module:MineConfig``:

>>> class MineConfig(ExecutorConfig):
...     pools: dict[str, PoolSpec]
...
...     @property
...     def specs(self):
...         return self.pools
...
...     def build(self):
...         return DryRunExecutor(self.pools)
>>> from dynamo_planner.executors.dry_run import DryRunExecutor
>>> MineConfig(pools={"decode": {"role": "decode", "min_replicas": 2}}).build().observe()["decode"].ready
2
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated

from pydantic import SerializeAsAny

from dynamo_planner.core.component import Component, Kinds
from dynamo_planner.core.snapshot import PoolSpec
from dynamo_planner.executors import Executor


class ExecutorConfig(Component):
    """The configuration of an executor: its fields, and how the executor is built from them."""

    @property
    @abstractmethod
    def specs(self) -> Mapping[str, PoolSpec]:
        """What a replica of each pool is."""

    @abstractmethod
    def build(self) -> Executor:
        """The executor, not yet started.

        One that is a context manager is entered before the first step and left at the end. Raises ``ValueError``,
        with the field first, where fields do not agree.
        """

    def check_run(self, interval_s: float, *, monitored: bool) -> None:
        """Raise ``ValueError``, with the field first, where it does not fit the rest of the configuration.

        Args:
            interval_s: seconds between steps.
            monitored: whether the planner serves a metrics page.
        """

    def from_environment(self) -> Mapping[str, tuple[str, str]]:
        """The values that fields without one take from the machine: by field, the value and where it comes from."""
        return {}

    def running(self) -> Mapping[str, Mapping[str, str]] | None:
        """The base URLs of the workers that run now, by pool and name, without starting anything; ``None``: unknown."""
        return None


EXECUTORS = Kinds(
    "executor",
    ExecutorConfig,
    "dynamo_planner.executors",
    {
        "circus": "dynamo_planner.executors.circus.config:CircusConfig",
        "kubernetes": "dynamo_planner.executors.kubernetes.config:KubernetesConfig",
        "dry_run": "dynamo_planner.executors.dry_run:DryRunConfig",
        "gauge": "dynamo_planner.executors.gauge_config:GaugeConfig",
    },
)
"""The executors that a configuration can name: one line each."""

AnyExecutor = Annotated[SerializeAsAny[ExecutorConfig], EXECUTORS.validator()]
"""A field that holds the configuration of an executor of any kind."""
