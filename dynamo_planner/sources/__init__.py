"""Where metrics come from. A source knows nothing of policies."""

from __future__ import annotations

from typing import Protocol

from dynamo_planner.snapshot import Observation


class Source(Protocol):
    """Sees a served model. Synchronous, and safe to call from a thread."""

    def observe(self, at_s: float) -> Observation:
        """What is seen at ``at_s``: what could not be read is ``None``, with the cause in ``missing``.

        Raises :class:`SourceError` where nothing at all could be read.
        """


class SourceError(Exception):
    """A source could not be read; the message says which, why, and what to do."""
