"""Where metrics come from. A source knows nothing of policies."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from dynamo_planner.core.snapshot import Observation

if TYPE_CHECKING:
    from dynamo_planner.sources.history import HistorySource
    from dynamo_planner.sources.prometheus.source import PrometheusSource
    from dynamo_planner.sources.scraping.frontend import FrontendSource
    from dynamo_planner.sources.scraping.source import ScrapeSource

__all__ = ["FrontendSource", "HistorySource", "PrometheusSource", "ScrapeSource", "Source", "SourceError"]

NEEDS_AN_EXTRA = {
    "FrontendSource": "dynamo_planner.sources.scraping.frontend",
    "HistorySource": "dynamo_planner.sources.history",
    "PrometheusSource": "dynamo_planner.sources.prometheus.source",
    "ScrapeSource": "dynamo_planner.sources.scraping.source",
}


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
    if name not in NEEDS_AN_EXTRA:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(NEEDS_AN_EXTRA[name]), name)
