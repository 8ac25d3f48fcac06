"""Reload the configuration and the overrides while the planner runs.

A file has changed when its path leads to another inode, size or modification time, which covers both an edit and a
ConfigMap's update (a symbolic link is swapped). An invalid file is reported, and the last good one stays in effect.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from dynamo_planner.config.assemble import Service
from dynamo_planner.config.overrides import load_overrides, with_overrides
from dynamo_planner.config.problems import ConfigError
from dynamo_planner.config.run import RunConfig, load_config

logger = logging.getLogger(__name__)

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
        self._planner, self._monitor = service.planner, service.monitor
        self._always_advisory = always_advisory
        self._files = [_File("config", path, self._reload_config)]
        if config.overrides is not None:
            self._files.append(_File("overrides", config.overrides, self._reload_overrides))
        for file in self._files:
            self._report(file, successful=True)

    def poll(self) -> None:
        """Reload what has changed; call it between two steps."""
        self._reload([file for file in self._files if file.changed()])

    def reload(self) -> None:
        """Reload every file, whether it has changed or not; call it between two steps."""
        logger.info("the files are read again, as SIGHUP asks")
        for file in self._files:
            file.changed()  # so that the next poll does not reload it once more
        self._reload(self._files)

    def _reload(self, files: Iterable[_File]) -> None:
        for file in files:
            try:
                file.reload(file.path)
            except ConfigError as error:
                for problem in error.problems:
                    logger.error("%s not reloaded, the last good one stays: %s", file.name, problem)  # noqa: TRY400
                self._report(file, successful=False)
            except Exception:  # whatever the code of a kind of another package raises
                logger.exception("%s not reloaded, the last good one stays", file.name)
                self._report(file, successful=False)
            else:
                logger.info("%s is reloaded", file.path)
                self._report(file, successful=True)

    def _report(self, file: _File, *, successful: bool) -> None:
        if self._monitor is not None:
            self._monitor.metrics.reloaded(file.name, successful=successful)

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


class _File:
    """A file, its version at the last call of :meth:`changed`, and what reloads it."""

    def __init__(self, name: str, path: Path, reload: Callable[[Path], None]) -> None:
        self.name, self.path, self.reload = name, path, reload
        self._version = self._present_version()

    def changed(self) -> bool:
        """Whether it has changed since the last call; a file that is gone has."""
        present = self._present_version()
        before, self._version = self._version, present
        return present != before

    def _present_version(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
