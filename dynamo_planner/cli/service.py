"""What a configuration describes, running, and its reload when the file changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dynamo_planner.cli.config import CircusConfig, RunConfig, load_config
from dynamo_planner.executors import Executor
from dynamo_planner.executors.dry_run import DryRunExecutor
from dynamo_planner.loading import ConfigError
from dynamo_planner.planner import Planner
from dynamo_planner.records import Step
from dynamo_planner.sources import Source

logger = logging.getLogger(__name__)

Endpoints = Callable[[], Mapping[str, Mapping[str, str]]]

RELOADED = {"policy", "advisory", "allow_custom_kinds"}
"""What takes effect while the planner runs; the rest needs a restart."""


@contextmanager
def planner_of(config: RunConfig) -> Iterator[Planner]:
    """The planner of a configuration, with its executor started; ends what it started."""
    with _executor_of(config) as (executor, endpoints):
        yield Planner(
            config.policy,
            _source_of(config, executor, endpoints),
            executor,
            interval_s=config.interval_s,
            log=config.log,
            state_file=config.state_file,
            advisory=config.advisory,
        )


@contextmanager
def _executor_of(config: RunConfig) -> Iterator[tuple[Executor, Endpoints]]:
    if not isinstance(config.executor, CircusConfig):
        yield DryRunExecutor(config.executor.pools, config.executor.replicas), dict
        return
    from dynamo_planner.executors.circus import CircusExecutor  # noqa: PLC0415  # needs the extra circus

    circus = config.executor
    try:
        executor = CircusExecutor(
            circus.namespace, circus.pools, endpoint=circus.endpoint, state_dir=circus.state_dir, gpus=circus.gpus
        )
    except ValueError as error:
        raise ConfigError([f"executor: {error}"]) from error
    with executor:
        yield executor, executor.endpoints


def _source_of(config: RunConfig, executor: Executor, endpoints: Endpoints) -> Source:
    from dynamo_planner.sources.scrape import ScrapeSource  # noqa: PLC0415  # needs the extra scrape

    workers = config.source.workers
    return ScrapeSource(
        endpoints if workers is None else workers,
        {name: spec.role for name, spec in executor.pools.items()},
        timeout_s=config.source.timeout_s,
        window_s=config.source.window_s,
    )


class Reloader:
    """Called after each step: takes over a configuration that changed, and keeps the old one where the new is bad.

    With ``always_advisory`` the planner stays advisory, whatever the file says.
    """

    def __init__(self, path: Path, config: RunConfig, planner: Planner, *, always_advisory: bool) -> None:
        self._path, self._config, self._planner = path, config, planner
        self._always_advisory = always_advisory
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def __call__(self, step: Step) -> None:
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            config = load_config(self._path)
            fixed = [name for name in RunConfig.model_fields if name not in RELOADED]
            changed = [name for name in fixed if getattr(config, name) != getattr(self._config, name)]
            if changed:
                raise ConfigError([f"{self._path}: {name}: takes a restart to change" for name in changed])
        except ConfigError as error:
            for problem in error.problems:
                logger.error("not reloaded, the old configuration stays: %s", problem)  # noqa: TRY400
            return
        self._config = config
        self._planner.policy = config.policy
        self._planner.advisory = config.advisory or self._always_advisory
        logger.info("%s is reloaded", self._path)
