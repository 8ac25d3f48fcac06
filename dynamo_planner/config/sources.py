"""The source that a configuration describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dynamo_planner.config.problems import ConfigError
from dynamo_planner.config.run import Engine, PrometheusConfig, ScrapeConfig
from dynamo_planner.core.snapshot import Role
from dynamo_planner.engines.registry import frontend_vocabularies, worker_vocabularies
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.sources import Source

if TYPE_CHECKING:
    from dynamo_planner.sources.prometheus.source import PrometheusSource
    from dynamo_planner.sources.scraping.source import ScrapeSource

Urls = Mapping[str, Mapping[str, str]]
"""Base URLs of workers, by pool and name."""

Endpoints = Callable[[], Urls]
"""What gives them anew."""


def source_of(config: ScrapeConfig | PrometheusConfig, roles: Mapping[str, Role], endpoints: Endpoints) -> Source:
    """The source, for pools of these roles. Raises :class:`ConfigError` where it does not fit them."""
    if isinstance(config, PrometheusConfig):
        return prometheus_of(config, roles)
    return scrape_of(config, roles, endpoints if config.workers is None else config.workers)


def scrape_of(config: ScrapeConfig, roles: Mapping[str, Role], endpoints: Endpoints | Urls) -> ScrapeSource:
    """The source, for pools of these roles. Raises :class:`ConfigError` where it does not fit them."""
    from dynamo_planner.sources.scraping.source import ScrapeSource  # noqa: PLC0415  # needs the extra scrape

    try:
        return ScrapeSource(
            endpoints,
            roles,
            vocabulary=vocabulary_of(config.engine),
            model=config.model,
            timeout_s=config.timeout_s,
            window_s=config.window_s,
            frontend=_frontend_of(config),
        )
    except ValueError as error:
        raise ConfigError([f"source: {error}"]) from error


def _frontend_of(config: ScrapeConfig) -> Source | None:
    from dynamo_planner.sources.scraping.frontend import FrontendSource  # noqa: PLC0415  # needs the extra scrape

    if config.frontend is None:
        return None
    engine = config.frontend.engine
    return FrontendSource(
        config.frontend.urls,
        vocabulary=frontend_vocabularies()[engine] if isinstance(engine, str) else engine,
        model=config.model,
        timeout_s=config.timeout_s,
        window_s=config.window_s,
    )


def prometheus_of(config: PrometheusConfig, roles: Mapping[str, Role]) -> PrometheusSource:
    """The source, for pools of these roles. Raises :class:`ConfigError` where it does not fit them."""
    from dynamo_planner.sources.prometheus.source import PrometheusSource  # noqa: PLC0415  # needs the extra prometheus

    try:
        return PrometheusSource(
            config.url,
            roles,
            labels=config.labels,
            pools=config.pools,
            model=config.model,
            vocabulary=vocabulary_of(config.engine),
            frontend=config.frontend,
            worker_label=config.worker_label,
            window_s=config.window_s,
            timeout_s=config.timeout_s,
            access=config.access,
        )
    except ValueError as error:
        raise ConfigError([f"source: {error}"]) from error


def vocabulary_of(engine: Engine) -> Vocabulary | None:
    """What an engine calls things; ``None`` where it is to be found out."""
    return worker_vocabularies()[engine] if isinstance(engine, str) else engine
