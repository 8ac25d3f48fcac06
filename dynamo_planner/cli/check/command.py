"""The ``check`` command: what a live setup reports, what is missing, and what to switch on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console

from dynamo_planner.cli.check.findings import Findings, as_data, show
from dynamo_planner.cli.options import AsJson, print_json
from dynamo_planner.cli.target import (
    Config,
    EngineName,
    Labels,
    Model,
    Prometheus,
    Target,
    WindowS,
    WorkerLabel,
    target_of,
)
from dynamo_planner.config.problems import ConfigError, problems_at
from dynamo_planner.core.snapshot import Role
from dynamo_planner.sources.config import Urls
from dynamo_planner.sources.prometheus.config import PrometheusConfig
from dynamo_planner.sources.scraping.config import ScrapeConfig

NOT_ALL_SEEN = 1
WIDE = 120
"""In characters; narrower terminals would cut the table off."""


def check(
    config: Config = None,
    worker: Annotated[
        list[str] | None,
        typer.Option("--worker", metavar="URL", help="Scrape this worker; may be repeated.", show_default=False),
    ] = None,
    prometheus: Prometheus = None,
    label: Labels = None,
    model: Model = None,
    worker_label: WorkerLabel = None,
    engine: EngineName = None,
    window_s: WindowS = None,
    watch_s: Annotated[float, typer.Option(min=0.1, help="How long scraped workers are watched, in seconds.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Inspect a live setup: which engines, what each worker reports and how old that is, what to switch on.

    Workers are those of the configuration, of `--prometheus`, or each `--worker`. Exits 1 where one cannot be observed.

    Example: `dynamo-planner check --worker http://127.0.0.1:8000`
    """
    if config is not None and str(config).startswith(("http:", "https:")):
        raise typer.BadParameter(
            "a configuration is expected, and this is a URL: give that of an engine with --worker, "
            "that of Prometheus with --prometheus"
        )
    target = target_of(config, prometheus, label, model, worker_label, engine, window_s)
    endpoints = _endpoints(target, worker)
    if target.prometheus is None:
        found = _scraped(target, endpoints, watch_s)
    else:
        found = _from_prometheus(target.prometheus, target.roles)
    notes = _notes(found, endpoints, watch_s, target.scrape)
    if as_json:
        print_json(as_data(found, notes))
    else:
        console = Console(highlight=False, soft_wrap=True)
        show(Console(highlight=False, soft_wrap=True, width=max(console.width, WIDE)), found, notes)
    if not found.whole:
        raise typer.Exit(NOT_ALL_SEEN)


def _endpoints(target: Target, workers: list[str] | None) -> Urls:
    """The base URLs of workers that can be scraped, by pool and name."""
    if workers:
        if len(target.specs) > 1:
            raise ConfigError(["--worker does not say of which pool it is: list it in the configuration"])
        return {pool: {url: url for url in workers} for pool in target.specs}
    if target.scrape is not None and target.scrape.workers is not None:
        return {pool: dict(urls) for pool, urls in target.scrape.workers.items()}
    if target.config is not None and (running := target.config.executor.running()) is not None:
        return running
    if target.prometheus is None:
        if target.config is not None and target.scrape is None:
            kind = target.config.source.kind
            raise ConfigError([f"source.kind is {kind!r}: only scrape and prometheus can be inspected; name --worker"])
        raise ConfigError(["there is nothing to inspect: name --prometheus, --worker, or list source.workers"])
    return {}


def _scraped(target: Target, endpoints: Urls, watch_s: float) -> Findings:
    config = (target.scrape or ScrapeConfig()).model_copy(update={"workers": endpoints})
    with problems_at("source"):
        source = config.build(target.roles, endpoints)
    source.observe(time.time())
    time.sleep(watch_s)
    at_s = time.time()
    return Findings(at_s, source.observe(at_s), source.notes())


def _from_prometheus(prometheus: PrometheusConfig, roles: Mapping[str, Role]) -> Findings:
    with problems_at("source"):
        source = prometheus.build(roles)
    at_s = time.time()
    return Findings(at_s, source.observe(at_s), source.notes())


def _notes(found: Findings, endpoints: Urls, watch_s: float, scrape: ScrapeConfig | None) -> dict[str, str]:
    """What is to be said of single workers beside what they tell: whether others read llama.cpp's averages, too."""
    from dynamo_planner.cli.check.other_readers import other_readers  # noqa: PLC0415  # needs the extra scrape
    from dynamo_planner.engines.llamacpp import LLAMACPP  # noqa: PLC0415

    urls = {
        f"{pool}.{name}": url
        for pool, workers in endpoints.items()
        for name, url in workers.items()
        if found.engine(pool, name) == LLAMACPP.engine
    }
    return other_readers(urls, watch_s, scrape) if urls else {}
