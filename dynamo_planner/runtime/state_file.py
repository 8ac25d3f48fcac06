"""The policy's state in a file, so that a planner that is restarted goes on where it stopped."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from dynamo_planner.core.decision import State
from dynamo_planner.core.values import Frozen
from dynamo_planner.runtime.decision_log import existing_directory_of

logger = logging.getLogger(__name__)


class SavedState(Frozen):
    """The contents of the file: a policy's state, and the time of the step that it is from."""

    version: Literal[1] = 1
    at_s: float
    state: State | None


class DamagedStateError(Exception):
    """The file did not read; the message says why, and under which name it was set aside."""


class StateFile:
    """A policy's state on disk, readable by its user only, always either the old or the new one in full."""

    def __init__(self, path: str | Path) -> None:
        self.path = existing_directory_of(path)

    def load(self) -> SavedState | None:
        """What was saved last, or ``None`` where nothing was.

        Raises :class:`DamagedStateError`, after it moved the file out of the way, where it does not read as a state;
        and :class:`OSError`.
        """
        try:
            return SavedState.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            aside = self._set_aside()
            problem = error.errors(include_url=False, include_input=False)[0]["msg"]
            raise DamagedStateError(
                f"the policy state in {self.path} does not read ({problem}) and was set aside as {aside.name}"
            ) from error

    def _set_aside(self) -> Path:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        return self.path.rename(aside)

    def save(self, saved: SavedState) -> None:
        """Write it beside the old one, make sure that it is on disk, and put it in the old one's place."""
        text = saved.model_dump_json().encode()
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", suffix=".new", dir=self.path.parent)
        fresh = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        _sync_directory(self.path.parent)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
