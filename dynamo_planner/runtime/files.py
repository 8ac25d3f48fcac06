"""The files of a planner, which may fail without ending its loop: what the policy remembers, and the decision log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dynamo_planner.core.decision import Reason, State
from dynamo_planner.runtime.decision_log import DecisionLog, Step
from dynamo_planner.runtime.state_file import SavedState, StateFile

logger = logging.getLogger(__name__)


class PlannerFiles:
    """The state file and the decision log of a planner, where it has them.

    A file that cannot be written is a reason at each attempt, and a line of the program's log when that begins and
    when it ends.
    """

    def __init__(self, name: str, log: str | Path | DecisionLog | None, state_file: str | Path | None) -> None:
        self._name = name
        self._log = DecisionLog(log) if isinstance(log, str | Path) else log
        self._state_file = StateFile(state_file) if state_file is not None else None
        self._unwritable: set[Path] = set()

    def load(self) -> SavedState | None:
        """The saved state. Raises what :meth:`StateFile.load` raises."""
        return None if self._state_file is None else self._state_file.load()

    def save(self, at_s: float, state: State | None) -> tuple[Reason, ...]:
        """Write the state; returns a reason where that failed."""
        file = self._state_file
        if file is None:
            return ()
        return self._write("StateFileFailed", file.path, file.save, SavedState.unchecked(at_s=at_s, state=state))

    def log(self, step: Step) -> tuple[Reason, ...]:
        """Append the step to the decision log; returns a reason where that failed."""
        return () if self._log is None else self._write("LogFailed", self._log.path, self._log.write, step)

    def _write(self, code: str, path: Path, write: Callable[[Any], None], value: Any) -> tuple[Reason, ...]:
        try:
            write(value)
        except Exception as error:
            if path not in self._unwritable:
                logger.exception("%s: %s could not be written; the loop goes on without it", self._name, path)
            self._unwritable.add(path)
            why = (error.strerror if isinstance(error, OSError) else None) or f"{type(error).__name__}: {error}"
            return (Reason(code=code, message=f"{path} could not be written: {why}"),)
        if path in self._unwritable:
            logger.warning("%s: %s can be written again", self._name, path)
        self._unwritable.discard(path)
        return ()
