"""Files that are read again when they change or SIGHUP asks; of a bad one the last good version stays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from dynamo_planner.config.problems import ConfigError

logger = logging.getLogger(__name__)


class Report(Protocol):
    """Takes the name of a file that was read, and whether it is good."""

    def __call__(self, file: str, *, successful: bool) -> None: ...


class WatchedFile:
    """A file, its version at the last call of :meth:`changed`, and what reloads it.

    It has changed when its path leads to another inode, size or modification time, which covers both an edit and a
    ConfigMap's update (a symbolic link is swapped).
    """

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


class WatchedFiles:
    """The files of a service.

    Args:
        files: The files.
        report: Takes each result; ``None`` where no one asks.
    """

    def __init__(self, files: Iterable[WatchedFile], report: Report | None) -> None:
        self._report = report
        self._files: list[WatchedFile] = []
        self.watch(files)

    def watch(self, files: Iterable[WatchedFile]) -> None:
        """Watch these files from now on, which were just read."""
        known = {file.name for file in self._files}
        self._files = list(files)
        for file in self._files:
            if file.name not in known:
                self._tell(file, successful=True)

    def poll(self) -> None:
        """Reload what has changed; call it between two steps."""
        self._reload([file for file in self._files if file.changed()])

    def reload(self) -> None:
        """Reload every file, whether it has changed or not; call it between two steps."""
        logger.info("the files are read again, as SIGHUP asks")
        for file in self._files:
            file.changed()  # so that the next poll does not reload it once more
        self._reload(self._files)

    def _reload(self, files: Iterable[WatchedFile]) -> None:
        for file in list(files):
            try:
                file.reload(file.path)
            except ConfigError as error:
                for problem in error.problems:
                    logger.error("%s not reloaded, the last good one stays: %s", file.name, problem)  # noqa: TRY400
                self._tell(file, successful=False)
            except Exception:  # whatever the code of a kind of another package raises
                logger.exception("%s not reloaded, the last good one stays", file.name)
                self._tell(file, successful=False)
            else:
                logger.info("%s is reloaded", file.path)
                self._tell(file, successful=True)

    def _tell(self, file: WatchedFile, *, successful: bool) -> None:
        if self._report is not None:
            self._report(file.name, successful=successful)
