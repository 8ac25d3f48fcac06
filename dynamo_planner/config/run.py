"""The configuration of ``dynamo-planner run``: one file for the policy, the pools, where to look and where to act."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from dynamo_planner.config.files import read_data
from dynamo_planner.config.kinds import kinds, loading_context
from dynamo_planner.config.problems import ConfigError, unknown_pools, validated
from dynamo_planner.config.schema import definitions
from dynamo_planner.core.policy import AnyPolicy
from dynamo_planner.core.values import Frozen
from dynamo_planner.executors.config import AnyExecutor
from dynamo_planner.executors.etcd.config import RouterConfig
from dynamo_planner.sources.config import SOURCES, AnySource


class MonitoringConfig(Frozen):
    """Serve a status page at ``/``, ``/metrics``, ``/healthz`` and ``/readyz`` (extra ``prometheus``).

    There is no authentication.

    Args:
        host: The address to listen on. Default loopback.
        port: The port; 0 takes a free one. Default 9464.
    """

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=9464, ge=0, le=65_535)


class RunConfig(Frozen):
    """Everything that ``dynamo-planner run`` needs.

    Args:
        policy: The policy, or a list of a policy and its guards.
        executor: What reports replicas and acts.
        source: Where metrics come from. Default: the executor's workers are scraped.
        router: Where Dynamo's disaggregated router takes its knobs from. Default none.
        interval_s: Seconds between two decisions, a day at most. Default 10.
        advisory: Decide and record without acting. Default false.
        log: A file that takes a line of JSON per decision. Default none.
        state_file: A file for what the policy remembers across restarts. Default none.
        overrides: A file with pins, floors and pauses, which may change at any time. Default none.
        monitoring: Where metrics and probes are served. Default nowhere.
        allow_custom_kinds: Let the file name kinds of other packages (``package.module:Name``, or an entry point),
            which runs code of theirs. Default false.
    """

    policy: AnyPolicy
    executor: AnyExecutor
    source: AnySource = Field(default_factory=SOURCES["scrape"])
    router: RouterConfig | None = None
    interval_s: float = Field(default=10.0, gt=0, le=86_400.0)
    advisory: bool = False
    log: Path | None = None
    state_file: Path | None = None
    overrides: Path | None = None
    monitoring: MonitoringConfig | None = None
    allow_custom_kinds: bool = False

    @model_validator(mode="after")
    def _executor_fits(self) -> Self:
        self.executor.check_run(self.interval_s, monitored=self.monitoring is not None)
        return self


def load_config(path: Path) -> RunConfig:
    """Read a configuration. Raises :class:`ConfigError` with every field that is wrong."""
    data = read_data(path)
    if isinstance(data, list) or (isinstance(data, dict) and "kind" in data and "policy" not in data):
        problem = "this is a policy; a configuration of run has it under policy, beside executor and source"
        raise ConfigError([f"{path}: {problem}"])
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: expected a mapping, got {type(data).__name__}"])
    try:
        config = validated(RunConfig, data, "", loading_context(allow_custom=data.get("allow_custom_kinds") is True))
        if unknown := unknown_pools(config, data, config.executor.specs):
            raise ConfigError(unknown)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error
    return config


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration."""
    return described(RunConfig, "The configuration of dynamo-planner run")


def described(config: type[Frozen], title: str) -> dict[str, Any]:
    """The JSON Schema of a kind of configuration, with all kinds of its parts."""
    schema = config.model_json_schema(ref_template="#/$defs/{model}")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = title
    schema["$defs"].update(definitions(*kinds()))
    return schema
