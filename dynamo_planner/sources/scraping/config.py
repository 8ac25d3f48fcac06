"""The configuration of the source that scrapes workers and frontends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import Frozen
from dynamo_planner.engines.named import FrontendVocabulary, WorkerVocabulary
from dynamo_planner.sources.config import Endpoints, SourceConfig, Urls

if TYPE_CHECKING:
    from dynamo_planner.sources.scraping.frontend import FrontendSource
    from dynamo_planner.sources.scraping.source import ScrapeSource


class FrontendConfig(Frozen):
    """Scrape what stands before the workers, for what clients saw.

    ``urls`` are all of them. ``engine`` is the name of one, or a vocabulary of your own; left out, it is detected.
    """

    urls: list[str] = Field(min_length=1)
    engine: FrontendVocabulary | None = None


class ScrapeConfig(SourceConfig, kind="scrape"):
    """Scrape each worker's metrics (extra ``scrape``).

    ``engine`` is the name of one, or a vocabulary of your own; left out, it is detected from each worker's page. Where
    workers or frontends serve several models, ``model`` says which of them this is about.
    """

    engine: WorkerVocabulary | None = None
    model: str | None = None
    timeout_s: float = Field(default=2.0, gt=0)
    window_s: float = Field(default=30.0, gt=0)
    workers: dict[str, dict[str, str]] | None = None
    """Base URLs by pool and worker name; left out, the executor reports where its workers are."""
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
        )
