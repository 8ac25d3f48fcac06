"""What a command observes: the target in a configuration, and the options that override it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dynamo_planner.config.problems import ConfigError, validated
from dynamo_planner.config.run import RunConfig, load_config
from dynamo_planner.core.snapshot import PoolSpec, Role
from dynamo_planner.sources.prometheus.config import PrometheusConfig
from dynamo_planner.sources.scraping.config import ScrapeConfig

ALONE = {"workers": PoolSpec(role="aggregated", min_replicas=0)}
"""The one pool that is observed where no configuration says which there are."""

MATCHER = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)(=~|!~|!=|=)(.*)", re.DOTALL)

Config = Annotated[
    Path | None, typer.Argument(help="A configuration of `run`: its pools and its source.", show_default=False)
]
Prometheus = Annotated[
    str | None, typer.Option("--prometheus", metavar="URL", help="Ask this Prometheus server.", show_default=False)
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME=VALUE",
        help="A label of all scrape targets, as in PromQL; may be repeated.",
        show_default=False,
    ),
]
Model = Annotated[str | None, typer.Option(help="The model's name, where targets serve several.", show_default=False)]
WorkerLabel = Annotated[str | None, typer.Option(help="The label that tells workers apart.", show_default="instance")]
EngineName = Annotated[
    str | None,
    typer.Option(help="An engine's name, such as vllm; an unknown name lists them all.", show_default="found out"),
]
WindowS = Annotated[float | None, typer.Option(min=1, help="Window of rates, in seconds.", show_default="60")]


@dataclass(frozen=True)
class Target:
    """The pools to observe, and how: by ``prometheus``, or by what ``config`` has as its source."""

    specs: Mapping[str, PoolSpec]
    config: RunConfig | None
    prometheus: PrometheusConfig | None

    @property
    def roles(self) -> dict[str, Role]:
        """What the workers of each pool do."""
        return {name: spec.role for name, spec in self.specs.items()}

    @property
    def scrape(self) -> ScrapeConfig | None:
        """How workers are scraped, where that is what the configuration says."""
        return self.config.source if self.config and isinstance(self.config.source, ScrapeConfig) else None


def target_of(
    path: Path | None,
    prometheus: str | None,
    labels: Sequence[str] | None,
    model: str | None,
    worker_label: str | None,
    engine: str | None,
    window_s: float | None,
) -> Target:
    """The target that a configuration and options name; options win. Raises :class:`ConfigError`."""
    config = load_config(path) if path is not None else None
    specs = config.executor.specs if config is not None else ALONE
    source = config.source if config is not None else None
    options = {
        "url": prometheus,
        "labels": _pairs(labels) if labels else None,
        "model": model,
        "worker_label": worker_label,
        "engine": engine,
        "window_s": window_s,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(source, PrometheusConfig) and prometheus is None:
        if given:
            field = next(iter(given))
            option = field.replace("labels", "label").replace("_", "-")
            scraped = f"; of scraped workers a configuration says it (source.{field})"
            more = scraped if field in ScrapeConfig.model_fields else ""
            raise ConfigError([f"--{option} is about a Prometheus server: name its --prometheus{more}"])
        return Target(specs, config, None)
    before: dict[str, Any] = {}
    if isinstance(source, PrometheusConfig):
        before = {name: getattr(source, name) for name in source.model_fields_set}
    return Target(specs, config, validated(PrometheusConfig, {**before, **given}, "source"))


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        matched = MATCHER.fullmatch(text)
        if matched is None:
            raise ConfigError([f"--label: {text!r} is none of NAME=VALUE, NAME!=VALUE, NAME=~REGEX, NAME!~REGEX"])
        name, operator, value = matched.groups()
        pairs[name] = value if operator == "=" else operator + value
    return pairs
