"""The configuration of ``dynamo-planner run`` for several models on shared budgets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from dynamo_planner.config.kinds import loading_context
from dynamo_planner.config.problems import ConfigError, problems_at, unknown_pools, validated
from dynamo_planner.config.run import MonitoringConfig, described
from dynamo_planner.core.values import Frozen
from dynamo_planner.executors.config import AnyExecutor
from dynamo_planner.fleet import Budget, Fleet, Member
from dynamo_planner.fleet.sharing import REBALANCE_MARGIN
from dynamo_planner.sources.config import SOURCES, AnySource

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ModelConfig(Member):
    """One model: its policy and its place in the fleet, where to look and where to act.

    Args:
        executor: As for one model.
        source: As for one model.
        overrides: A file with pins, floors and pauses of this model, which may change at any time.
    """

    executor: AnyExecutor
    source: AnySource = Field(default_factory=SOURCES["scrape"])
    overrides: Path | None = None

    def member(self) -> Member:
        """The model in the fleet."""
        return Member.unchecked(**{name: getattr(self, name) for name in Member.model_fields})


class FleetRunConfig(Frozen):
    """Everything that ``dynamo-planner run`` needs for several models: one loop, one state file, one decision log.

    Args:
        models: The models by name.
        budgets: What they share, by name.
        margin: By how much more than its worth a replica counts for the model that has it. Default 0.5.
        interval_s: Seconds from one step to the next, a day at most. Default 10.
        advisory: Decide and record without acting. Default false.
        log: Takes a line for each model in each step. Default none.
        state_file: What the fleet remembers across restarts. Default none.
        monitoring: Serve metrics and health. Default none.
        allow_custom_kinds: Whether it may name kinds of other packages. Default false.
    """

    models: dict[ModelName, ModelConfig] = Field(min_length=1)
    budgets: dict[str, Budget]
    margin: float = Field(default=REBALANCE_MARGIN, ge=0)
    interval_s: float = Field(default=10.0, gt=0, le=86_400.0)
    advisory: bool = False
    log: Path | None = None
    state_file: Path | None = None
    monitoring: MonitoringConfig | None = None
    allow_custom_kinds: bool = False

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for name, model in self.models.items():
            with problems_at(f"models.{name}.executor"):
                model.executor.check_run(self.interval_s, monitored=self.monitoring is not None)
        self.fleet()
        return self

    def fleet(self) -> Fleet:
        """The fleet. Raises ``ValueError`` where floors and budgets do not fit together."""
        members = {name: model.member() for name, model in self.models.items()}
        return Fleet(models=members, budgets=self.budgets, margin=self.margin)


def fleet_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration of several models."""
    return described(FleetRunConfig, "The configuration of dynamo-planner run for several models")


def is_fleet(data: Any) -> bool:
    """Whether a configuration is one of several models."""
    return isinstance(data, Mapping) and "models" in data


def fleet_config(data: Mapping[str, Any], path: Path) -> FleetRunConfig:
    """Read the configuration of several models. Raises :class:`ConfigError` with every field that is wrong."""
    try:
        context = loading_context(allow_custom=data.get("allow_custom_kinds") is True)
        config = validated(FleetRunConfig, dict(data), "", context)
        unknown = [
            f"models.{name}.{problem}"
            for name, model in config.models.items()
            for problem in unknown_pools(model, data["models"][name], model.executor.specs)
        ]
        if unknown:
            raise ConfigError(unknown)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error
    return config
