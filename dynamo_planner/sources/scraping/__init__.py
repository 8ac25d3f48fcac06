"""Workers and frontends scraped at their own metrics pages (extra ``scrape``).

In the order in which a turn goes through them:

- ``config`` -- the source as data, which builds it.
- ``source`` -- ``ScrapeSource``: the workers of a served model, by pool, and their observation.
- ``frontend`` -- ``FrontendSource``: what clients saw, from a Dynamo frontend or router.
- ``scraper`` -- one turn: fetch every page, detect each worker's engine, keep each worker's history.
- ``exposition``, ``json_page`` -- a page as series by name: the Prometheus text format, and JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamo_planner.core.lazy import lazy_exports

if TYPE_CHECKING:
    from dynamo_planner.sources.scraping.frontend import FrontendSource
    from dynamo_planner.sources.scraping.source import ScrapeSource

__all__ = ["FrontendSource", "ScrapeSource"]

__getattr__, __dir__ = lazy_exports(__name__, {"FrontendSource": "frontend", "ScrapeSource": "source"})
