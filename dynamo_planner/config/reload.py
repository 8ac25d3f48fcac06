"""Reload the configuration and the overrides of one model while the planner runs."""

from __future__ import annotations

from pathlib import Path

from dynamo_planner.config.assemble import Service
from dynamo_planner.config.overrides import load_overrides, with_overrides
from dynamo_planner.config.problems import ConfigError
from dynamo_planner.config.run import RunConfig, load_config
from dynamo_planner.config.watched import WatchedFile, WatchedFiles

RELOADED = {"policy", "advisory", "allow_custom_kinds"}
"""The fields that take effect while the planner runs; the others need a restart."""


class Reloader:
    """Reloads the files of a service when they change.

    Args:
        path: the configuration.
        config: what it held at the start.
        service: the planner to update.
        always_advisory: whether the planner stays advisory, whatever the file says.
    """

    def __init__(self, path: Path, config: RunConfig, service: Service, *, always_advisory: bool) -> None:
        self._config, self._overrides = config, service.overrides
        self._planner = service.planner
        self._always_advisory = always_advisory
        files = [WatchedFile("config", path, self._reload_config)]
        if config.overrides is not None:
            files.append(WatchedFile("overrides", config.overrides, self._reload_overrides))
        self._files = WatchedFiles(files, None if service.monitor is None else service.monitor.metrics.reloaded)

    def poll(self) -> None:
        """Reload what has changed; call it between two steps."""
        self._files.poll()

    def reload(self) -> None:
        """Reload every file, whether it has changed or not; call it between two steps."""
        self._files.reload()

    def _reload_config(self, path: Path) -> None:
        config = load_config(path)
        fixed = [name for name in RunConfig.model_fields if name not in RELOADED]
        changed = [name for name in fixed if getattr(config, name) != getattr(self._config, name)]
        if changed:
            raise ConfigError([f"{path}: {name}: takes a restart to change" for name in changed])
        self._config = config
        self._planner.advisory = config.advisory or self._always_advisory
        self._set_policy()

    def _reload_overrides(self, path: Path) -> None:
        self._overrides = load_overrides(path, self._planner.executor.pools)
        self._set_policy()

    def _set_policy(self) -> None:
        self._planner.policy = with_overrides(self._config.policy, self._overrides)
