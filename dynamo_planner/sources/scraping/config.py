"""The configuration of the source that scrapes workers and frontends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from dynamo_planner.core.pool_names import PoolName
from dynamo_planner.core.snapshot import Role
from dynamo_planner.engines.named import FrontendVocabulary, WorkerVocabulary
from dynamo_planner.sources.config import Endpoints, SourceConfig, Urls
from dynamo_planner.sources.scraping.request import PageRequest

if TYPE_CHECKING:
    from dynamo_planner.sources.scraping.frontend import FrontendSource
    from dynamo_planner.sources.scraping.source import ScrapeSource


class FrontendConfig(PageRequest):
    """Scrape the frontends, for what clients saw. Credentials are its own: those of workers are not sent to it.

    Args:
        access, path, scheme, prefix, max_bytes, max_series: as in :class:`PageRequest`.
        urls: the base URLs of all of them.
        engine: the name of one, or a vocabulary of your own; by default it is detected.
    """

    urls: list[str] = Field(min_length=1)
    engine: FrontendVocabulary | None = None


class ScrapeConfig(PageRequest, SourceConfig, kind="scrape"):
    """Scrape each worker's metrics (extra ``scrape``).

    Args:
        access, path, scheme, prefix, max_bytes, max_series: as in :class:`PageRequest`.
        engine: the name of one, or a vocabulary of your own; by default it is detected from each worker's page.
        model: the model this is about, where workers or frontends serve several.
        timeout_s: seconds for one page.
        window_s: seconds over which rates and means are.
        workers: base URLs by pool and worker name; by default the executor reports where its workers are.
        frontend: the frontends; without it, what clients saw is made out of what the workers report.
    """

    engine: WorkerVocabulary | None = None
    model: str | None = None
    timeout_s: float = Field(default=2.0, gt=0)
    window_s: float = Field(default=30.0, gt=0)
    workers: dict[PoolName, dict[str, str]] | None = None
    frontend: FrontendConfig | None = None

    def build(self, roles: Mapping[str, Role], endpoints: Endpoints | Urls) -> ScrapeSource:
        from dynamo_planner.sources.scraping.source import ScrapeSource  # noqa: PLC0415  # needs the extra

        return ScrapeSource(
            endpoints if self.workers is None else self.workers,
            roles,
            vocabulary=self.engine,
            model=self.model,
            timeout_s=self.timeout_s,
            window_s=self.window_s,
            frontend=self._frontend(),
            **self.options(),
        )

    def _frontend(self) -> FrontendSource | None:
        from dynamo_planner.sources.scraping.frontend import FrontendSource  # noqa: PLC0415  # needs the extra

        if self.frontend is None:
            return None
        return FrontendSource(
            self.frontend.urls,
            vocabulary=self.frontend.engine,
            model=self.model,
            timeout_s=self.timeout_s,
            window_s=self.window_s,
            **self.frontend.options(),
        )
