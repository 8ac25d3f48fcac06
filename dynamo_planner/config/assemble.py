"""Start what a configuration describes: executor, source, page and planner."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynamo_planner.config.overrides import load_overrides, with_overrides
from dynamo_planner.config.problems import problems_at
from dynamo_planner.config.remarks import remarks
from dynamo_planner.config.run import MonitoringConfig, RunConfig
from dynamo_planner.executors import ElectsLeader, Executor, PublishesMetrics, ReportsEndpoints
from dynamo_planner.guards import Override
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.runtime.service_manager import ServiceManager

if TYPE_CHECKING:
    from dynamo_planner.runtime.status_page import Monitor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """A planner with what belongs to it.

    Attributes:
        planner: the loop.
        overrides: the overrides that are in its policy; ``None`` where the configuration has none.
        monitor: its metrics and health; ``None`` where the configuration has no ``monitoring``.
    """

    planner: Planner
    overrides: Override | None
    monitor: Monitor | None

    def run(self, between: Callable[[], None], reload: Callable[[], None]) -> None:
        """Step until a signal arrives; call ``between`` after each step, and ``reload`` after SIGHUP."""
        manager = ServiceManager()

        def after(step: Step) -> None:
            if self.monitor is not None:
                self.monitor.record(step)
            manager.stepped(step)
            between()

        self.planner.run(after=after, reload=manager.reloading(reload))
        manager.stopping()


@contextmanager
def running_service(config: RunConfig) -> Iterator[Service]:
    """Start the executor and the page of a configuration, and stop them at the end.

    Raises :class:`ConfigError` where its parts do not fit together.
    """
    for remark in remarks(config):
        logger.warning("%s", remark)
    with ExitStack() as started:
        with problems_at("executor"):
            executor: Executor = config.executor.build()
        monitor = None
        if config.monitoring is not None:
            monitor = monitor_of(config.monitoring, config.interval_s, executor, started)
        if isinstance(executor, AbstractContextManager):
            started.enter_context(executor)
        endpoints = executor.endpoints if isinstance(executor, ReportsEndpoints) else dict
        if config.router is not None:
            with problems_at("router"):
                executor = config.router.build(executor)
        overrides = load_overrides(config.overrides, executor.pools) if config.overrides is not None else None
        roles = {name: spec.role for name, spec in executor.pools.items()}
        with problems_at("source"):
            source = config.source.build(roles, endpoints)
        planner = Planner(
            with_overrides(config.policy, overrides),
            source,
            executor,
            interval_s=config.interval_s,
            log=config.log,
            state_file=config.state_file,
            advisory=config.advisory,
        )
        yield Service(planner, overrides, monitor)


def monitor_of(config: MonitoringConfig, interval_s: float, executor: Executor | None, started: ExitStack) -> Monitor:
    """The page of a planner, started; with the metrics of its executor, where there is one."""
    from dynamo_planner.runtime.status_page import Monitor, page  # noqa: PLC0415  # needs the extra prometheus

    elects = executor if isinstance(executor, ElectsLeader) and executor.leading is not None else None
    monitor = Monitor(interval_s, None if elects is None else (lambda: bool(elects.leading)))
    if isinstance(executor, PublishesMetrics):
        monitor.metrics.registry.register(executor)
    started.enter_context(page(config.host, config.port, monitor))
    return monitor
