"""Start what a configuration of several models describes, and reload it while it runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dynamo_planner.config.assemble import monitor_of
from dynamo_planner.config.files import read_data
from dynamo_planner.config.fleet import FleetRunConfig, ModelConfig, fleet_config
from dynamo_planner.config.overrides import load_overrides, with_overrides
from dynamo_planner.config.problems import ConfigError, problems_at
from dynamo_planner.config.watched import WatchedFile, WatchedFiles
from dynamo_planner.core.decision import ScaleTo, SetKnob
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.executors import ElectsLeader, Executor, FollowsLeader, ReportsEndpoints, StartsMinimums
from dynamo_planner.fleet import Fleet
from dynamo_planner.runtime.decision_log import DecisionLog, Step
from dynamo_planner.runtime.fleet_planner import FleetPlanner
from dynamo_planner.runtime.planner import Planner
from dynamo_planner.runtime.service_manager import ServiceManager

if TYPE_CHECKING:
    from dynamo_planner.runtime.status_page import Monitor

logger = logging.getLogger(__name__)

RESTARTED = ("executor", "source")
"""The fields of a model that take a restart to change; it can be removed and added again instead."""


class FleetService:
    """The loop of several models with what belongs to it.

    Args:
        path: The configuration, which is read again when it changes.
        config: What it held at the start.
        always_advisory: Whether nothing is acted on, whatever the file says.
    """

    def __init__(self, path: Path, config: FleetRunConfig, *, always_advisory: bool = False) -> None:
        self._path, self._config, self._always_advisory = path, config, always_advisory
        self._started: dict[str, ExitStack] = {}
        self._planners: dict[str, Planner] = {}
        self._monitor: Monitor | None = None
        self._log = None if config.log is None else DecisionLog(config.log)

    def __enter__(self) -> FleetService:
        config = self._config
        self._page = ExitStack()
        try:
            if config.monitoring is not None:
                self._monitor = monitor_of(config.monitoring, config.interval_s, None, self._page)
            self._start(config, config.models)
        except BaseException:
            self._close()
            raise
        fleet, planners = self._fleet(config), self._planners
        self.planner = FleetPlanner(fleet, planners, interval_s=config.interval_s, state_file=config.state_file)
        self._set_advisory()
        self._files = WatchedFiles(self._watched(), None if self._monitor is None else self._monitor.metrics.reloaded)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def reload(self) -> None:
        """Read the files again, between two steps."""
        self._files.reload()

    def run(self, *, reload_first: bool = False) -> None:
        """Step until a signal arrives, and read the files again when they change or SIGHUP asks."""
        manager = ServiceManager()
        if reload_first:
            self.reload()

        def after(steps: dict[str, Step]) -> None:
            for name, step in steps.items():
                if self._monitor is not None:
                    self._monitor.record(named(step, name))
                manager.stepped(step)
            self._files.poll()

        self.planner.run(after=after, reload=manager.reloading(self.reload))
        manager.stopping()

    def _watched(self) -> list[WatchedFile]:
        overrides = [
            WatchedFile(f"{name}.overrides", model.overrides, lambda _: self._set_fleet(self._config))
            for name, model in self._config.models.items()
            if model.overrides is not None
        ]
        return [WatchedFile("config", self._path, self._reload), *overrides]

    def _reload(self, path: Path) -> None:
        """Take over policies, budgets and floors; start models that are new and end those that are gone."""
        config = fleet_config(read_data(path), path)
        self._check_fixed(config, path)
        new = {name: model for name, model in config.models.items() if name not in self._started}
        gone = [name for name in self._started if name not in config.models]
        self._fleet(config)  # so that overrides that do not read change nothing
        self._start(config, new)
        ended = [(name, self._started.pop(name), self._planners.pop(name)) for name in gone]
        self._config = config
        self._set_fleet(config)
        self._set_advisory()
        for name, stack, _ in ended:
            stack.close()
            logger.info("%s is no model of the fleet any more", name)
        self._files.watch(self._watched())

    def _check_fixed(self, config: FleetRunConfig, path: Path) -> None:
        fixed = ("interval_s", "log", "state_file", "monitoring")
        changed = [name for name in fixed if getattr(config, name) != getattr(self._config, name)]
        changed += [
            f"models.{name}.{field}"
            for name, model in config.models.items()
            if name in self._config.models
            for field in RESTARTED
            if getattr(model, field) != getattr(self._config.models[name], field)
        ]
        if changed:
            raise ConfigError([f"{path}: {name}: takes a restart to change" for name in changed])

    def _set_fleet(self, config: FleetRunConfig) -> None:
        self.planner.set_models(self._fleet(config), self._planners)

    def _set_advisory(self) -> None:
        for planner in self._planners.values():
            planner.advisory = self._config.advisory or self._always_advisory

    def _fleet(self, config: FleetRunConfig) -> Fleet:
        """The fleet, with the overrides of each model in its policy."""
        fleet = config.fleet()
        members = {}
        for name, model in config.models.items():
            member = fleet.models[name]
            overrides = load_overrides(model.overrides, model.executor.specs) if model.overrides is not None else None
            members[name] = member.replace(policy=with_overrides(member.policy, overrides))
        return fleet.replace(models=FrozenMap(members))

    def _start(self, config: FleetRunConfig, models: Mapping[str, ModelConfig]) -> None:
        """Start the executors and sources of models; all of them, or none."""
        built: dict[str, Executor] = {}
        for name, model in models.items():
            with problems_at(f"models.{name}.executor"):
                built[name] = executor = model.executor.build()
            if isinstance(executor, StartsMinimums):
                executor.leave_minimums()
        self._follow_one_leader(built)
        begun: dict[str, ExitStack] = {}
        try:
            for name, executor in built.items():
                begun[name] = ExitStack()
                self._planners[name] = self._planner(name, config, executor, begun[name])
        except BaseException:
            for name, stack in begun.items():
                stack.close()
                self._planners.pop(name, None)
            raise
        self._started.update(begun)

    def _follow_one_leader(self, built: Mapping[str, Executor]) -> None:
        """One lease for all: the first executor that campaigns leads for those that have no lease of their own."""
        executors = [*(planner.executor for planner in self._planners.values()), *built.values()]
        leader = next((each for each in executors if isinstance(each, ElectsLeader) and each.leading is not None), None)
        for executor in built.values():
            if executor is not leader and isinstance(executor, FollowsLeader):
                executor.follow(leader)

    def _planner(self, name: str, config: FleetRunConfig, executor: Executor, stack: ExitStack) -> Planner:
        model = config.models[name]
        if isinstance(executor, AbstractContextManager):
            stack.enter_context(executor)
        endpoints = executor.endpoints if isinstance(executor, ReportsEndpoints) else dict
        roles = {pool: spec.role for pool, spec in executor.pools.items()}
        with problems_at(f"models.{name}.source"):
            source = model.source.build(roles, endpoints)
        return Planner(model.policy, source, executor, interval_s=config.interval_s, log=self._log, name=name)

    def _close(self) -> None:
        for stack in reversed(self._started.values()):
            stack.close()
        self._page.close()


def named(step: Step, model: str) -> Step:
    """The step with pools named ``model/pool``, for metrics of several models on one page."""

    def pools(found: Mapping[str, object]) -> FrozenMap[str, object]:
        return FrozenMap({f"{model}/{pool}": value for pool, value in found.items()})

    def action(own: ScaleTo | SetKnob) -> ScaleTo | SetKnob:
        return own if own.pool is None else own.replace(pool=f"{model}/{own.pool}")

    decision = step.decision
    return step.replace(
        snapshot=step.snapshot.replace(pools=pools(step.snapshot.pools)),
        decision=decision.replace(
            targets=pools(decision.targets),
            actions=tuple(map(action, decision.actions)),
            knobs=tuple(map(action, decision.knobs)),
            reasons=tuple(
                own if own.pool is None else own.replace(pool=f"{model}/{own.pool}") for own in decision.reasons
            ),
        ),
        outcomes=tuple(own.replace(action=action(own.action)) for own in step.outcomes),
    )


@contextmanager
def running_fleet(path: Path, config: FleetRunConfig, *, always_advisory: bool) -> Iterator[FleetService]:
    """Start the models of a configuration, and stop them at the end.

    Raises :class:`ConfigError` where its parts do not fit together.
    """
    with FleetService(path, config, always_advisory=always_advisory) as service:
        yield service
