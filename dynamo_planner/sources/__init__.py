"""Where metrics come from. A source knows nothing of policies; ``observe(at_s)`` gives an ``Observation``.

Which file to open:

- :mod:`~dynamo_planner.sources.source` -- what a source is (``Source``, ``SourceError``);
  :mod:`~dynamo_planner.sources.config` -- a source as data, and the sources that a configuration can name.
- :mod:`~dynamo_planner.sources.config` -- sources as data, and the registry of those that a configuration can name.
- :mod:`~dynamo_planner.sources.scraping` -- ``ScrapeSource`` and ``FrontendSource``: reads the metrics pages of workers
  and frontends over HTTP.
- :mod:`~dynamo_planner.sources.prometheus` -- ``PrometheusSource``: asks a Prometheus server, now or for the past.
- :mod:`~dynamo_planner.sources.history` -- ``HistorySource``: recorded snapshots, or what Prometheus remembers.
- :mod:`~dynamo_planner.sources.aggregation` -- from samples of workers to the metrics of pools and of the service; the
  same code whether the samples were scraped or come from Prometheus.
- :mod:`~dynamo_planner.sources.series`, :mod:`~dynamo_planner.sources.access`, :mod:`~dynamo_planner.sources.fetch`,
  :mod:`~dynamo_planner.sources.rotated` -- what several of them share: samples by labels, credentials, HTTP, rotated
  log files.

What an engine calls its metrics is not here but in :mod:`dynamo_planner.engines`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports
from dynamo_planner.sources.config import SourceConfig
from dynamo_planner.sources.source import Source, SourceError

if TYPE_CHECKING:
    from dynamo_planner.sources.config import SourceConfig
    from dynamo_planner.sources.history import HistorySource
    from dynamo_planner.sources.prometheus.source import PrometheusSource
    from dynamo_planner.sources.scraping.frontend import FrontendSource
    from dynamo_planner.sources.scraping.source import ScrapeSource

__all__ = [
    "FrontendSource",
    "HistorySource",
    "PrometheusSource",
    "ScrapeSource",
    "Source",
    "SourceConfig",
    "SourceError",
]

__getattr__, __dir__ = lazy_exports(  # each needs an extra, or what needs one
    __name__,
    {
        "FrontendSource": "scraping.frontend",
        "HistorySource": "history",
        "PrometheusSource": "prometheus.source",
        "ScrapeSource": "scraping.source",
        "SourceConfig": "config",
    },
)
