"""Where metrics come from. A source knows nothing of policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from dynamo_planner.core.lazy import lazy_exports
from dynamo_planner.core.snapshot import Observation

if TYPE_CHECKING:
    from dynamo_planner.sources.history import HistorySource
    from dynamo_planner.sources.prometheus.source import PrometheusSource
    from dynamo_planner.sources.scraping.frontend import FrontendSource
    from dynamo_planner.sources.scraping.source import ScrapeSource

__all__ = ["FrontendSource", "HistorySource", "PrometheusSource", "ScrapeSource", "Source", "SourceError"]

__getattr__ = lazy_exports(
    __name__,
    {
        "FrontendSource": "scraping.frontend",
        "HistorySource": "history",
        "PrometheusSource": "prometheus.source",
        "ScrapeSource": "scraping.source",
    },
)


class Source(Protocol):
    """Sees a served model. Synchronous, and safe to call from a thread."""

    def observe(self, at_s: float) -> Observation:
        """What is seen at ``at_s``: what could not be read is ``None``, with the cause in ``missing``.

        Raises :class:`SourceError` where nothing at all could be read.
        """


class SourceError(Exception):
    """A source could not be read; the message says which, why, and what to do."""
