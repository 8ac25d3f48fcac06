"""The ``check`` command: what can be seen of a live setup, what is missing, and what to switch on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console

from dynamo_planner.cli.check.report import Found, as_data, show
from dynamo_planner.cli.where import Config, EngineName, Labels, Model, Prometheus, Where, WindowS, WorkerLabel, where
from dynamo_planner.config.problems import ConfigError, problems_at
from dynamo_planner.core.snapshot import Role
from dynamo_planner.sources.config import Urls
from dynamo_planner.sources.prometheus.config import PrometheusConfig
from dynamo_planner.sources.scraping.config import ScrapeConfig

NOT_ALL_SEEN = 1
WIDE = 120
"""In characters; a table that is cut off helps nobody."""


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
    watch_s: Annotated[float, typer.Option(min=0.1, help="How long workers are watched that are scraped.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Look at a live setup: which engines, what each worker tells and how old that is, what to switch on.

    Workers are those of the configuration, of `--prometheus`, or each `--worker`. Exits 1 where one cannot be seen.

    Example: `dynamo-planner check --worker http://127.0.0.1:8000`
    """
    looked = where(config, prometheus, label, model, worker_label, engine, window_s)
    endpoints = _endpoints(looked, worker)
    if looked.prometheus is None:
        found = _scraped(looked, endpoints, watch_s)
    else:
        found = _asked(looked.prometheus, looked.roles)
    notes = _notes(found, endpoints, watch_s)
    if as_json:
        typer.echo(json.dumps(as_data(found, notes), indent=2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        show(Console(highlight=False, soft_wrap=True, width=max(console.width, WIDE)), found, notes)
    if not found.whole:
        raise typer.Exit(NOT_ALL_SEEN)


def _endpoints(looked: Where, workers: list[str] | None) -> Urls:
    """The base URLs of workers that can be scraped, by pool and name."""
    if workers:
        if len(looked.specs) > 1:
            raise ConfigError(["--worker does not say of which pool it is: list it in the configuration"])
        return {pool: {url: url for url in workers} for pool in looked.specs}
    if looked.scrape is not None and looked.scrape.workers is not None:
        return {pool: dict(urls) for pool, urls in looked.scrape.workers.items()}
    if looked.config is not None and (running := looked.config.executor.running()) is not None:
        return running
    if looked.prometheus is None:
        raise ConfigError(["there is nothing to look at: name --prometheus, --worker, or list source.workers"])
    return {}


def _scraped(looked: Where, endpoints: Urls, watch_s: float) -> Found:
    config = (looked.scrape or ScrapeConfig()).model_copy(update={"workers": endpoints})
    with problems_at("source"):
        source = config.build(looked.roles, endpoints)
    source.observe(time.time())
    time.sleep(watch_s)
    at_s = time.time()
    return Found(at_s, source.observe(at_s), source.notes())


def _asked(prometheus: PrometheusConfig, roles: Mapping[str, Role]) -> Found:
    with problems_at("source"):
        source = prometheus.build(roles)
    at_s = time.time()
    return Found(at_s, source.observe(at_s), source.notes())


def _notes(found: Found, endpoints: Urls, watch_s: float) -> dict[str, str]:
    """What is to be said of single workers beside what they tell: whether others read llama.cpp's averages, too."""
    from dynamo_planner.cli.check.windowed import other_readers  # noqa: PLC0415  # needs the extra scrape
    from dynamo_planner.engines.llamacpp import LLAMACPP  # noqa: PLC0415

    urls = {
        f"{pool}.{name}": url
        for pool, workers in endpoints.items()
        for name, url in workers.items()
        if found.engine(pool, name) == LLAMACPP.engine
    }
    return other_readers(urls, watch_s) if urls else {}
