"""What every source is, whatever it reads: ``observe(at_s)``, and the error for a source that cannot be read."""

from __future__ import annotations

from typing import Protocol

from dynamo_planner.core.snapshot import Observation


class Source(Protocol):
    """The metrics of one served model. Synchronous, and safe to call from a thread."""

    def observe(self, at_s: float) -> Observation:
        """Observe the model at ``at_s`` (Unix seconds): an unknown value is ``None``, with the cause in ``missing``.

        Raises :class:`SourceError` where nothing at all could be read.
        """


class SourceError(Exception):
    """A source could not be read; the message says which, why, and what to do."""
