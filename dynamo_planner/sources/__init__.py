"""Where metrics come from. A source knows nothing of policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from dynamo_planner.snapshot import Observation

if TYPE_CHECKING:
    from dynamo_planner.sources.scrape import ScrapeSource

__all__ = ["ScrapeSource", "Source", "SourceError"]


class Source(Protocol):
    """Sees a served model. Synchronous, and safe to call from a thread."""

    def observe(self, at_s: float) -> Observation:
        """What is seen at ``at_s``: what could not be read is ``None``, with the cause in ``missing``.

        Raises :class:`SourceError` where nothing at all could be read.
        """


class SourceError(Exception):
    """A source could not be read; the message says which, why, and what to do."""


def __getattr__(name: str) -> Any:
    """Import what needs an extra only when it is asked for."""
    if name != "ScrapeSource":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dynamo_planner.sources.scrape import ScrapeSource  # noqa: PLC0415

    return ScrapeSource
