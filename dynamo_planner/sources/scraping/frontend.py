"""``FrontendSource``: the traffic that clients saw, from a Dynamo frontend or router (extra ``scrape``)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Unpack

from dynamo_planner.core.snapshot import Observation
from dynamo_planner.engines.registry import frontend_vocabularies
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.sources.aggregation.traffic import frontend_traffic
from dynamo_planner.sources.fetch import checked_url, same_place
from dynamo_planner.sources.scraping.request import PageRequest, RequestOptions
from dynamo_planner.sources.scraping.scraper import ScrapeLimits, Scraper, ScrapeTarget
from dynamo_planner.sources.source import SourceError

Urls = Sequence[str] | Mapping[str, str]
"""Base URLs, by name or without."""


class FrontendSource:
    """The traffic of a served model as its frontends observe it; to be the ``frontend`` of a :class:`ScrapeSource`.

    Args:
        urls: the base URLs of all frontends, by name or as a list, or a function that returns them at each turn. The
            traffic is their sum, so that a turn at which one of them cannot be read is an error.
        model: the model this is about, where a frontend serves several.
        vocabulary: what the frontends call their metrics; by default it is detected from each page.
        timeout_s: seconds for one page.
        window_s: seconds over which rates and means are.
        deadline_s: seconds for a turn; by default twice ``timeout_s``.
        **request: ``access``, ``path``, ``scheme``, ``prefix``, ``max_bytes``, ``max_series`` (see
            :class:`~dynamo_planner.sources.scraping.request.PageRequest`).
    """

    def __init__(
        self,
        urls: Urls | Callable[[], Urls],
        *,
        model: str | None = None,
        vocabulary: Vocabulary | None = None,
        timeout_s: float = 2.0,
        window_s: float = 30.0,
        deadline_s: float | None = None,
        **request: Unpack[RequestOptions],
    ) -> None:
        self._urls = urls
        if not callable(urls):
            _listed(urls)
        limits = ScrapeLimits(timeout_s=timeout_s, window_s=window_s, deadline_s=deadline_s)
        among = tuple(frontend_vocabularies().values()) if vocabulary is None else (vocabulary,)
        self._scraper = Scraper(among, limits, model, PageRequest.of(request))
        self._observing = threading.Lock()

    def observe(self, at_s: float) -> Observation:
        """The traffic over the window that ends at ``at_s``, without pools.

        Raises :class:`SourceError` where one of the frontends could not be read, or there is none.
        """
        with self._observing:
            try:
                listed = _listed(self._urls() if callable(self._urls) else self._urls)
            except Exception as error:
                raise SourceError(f"the frontends could not be listed: {type(error).__name__}: {error}") from error
            causes = self._scraper.scrape(listed, at_s)
            if causes:
                raise SourceError(f"a frontend could not be scraped: {next(iter(causes.values()))}")
            traffic = frontend_traffic(list(self._scraper.histories.values()), at_s)
            missing = {f"traffic.{field}": why for field, why in traffic.missing.items()}
            return Observation(traffic=traffic.as_traffic(at_s), missing=missing)


def _listed(urls: Urls) -> list[ScrapeTarget]:
    if isinstance(urls, str):
        raise ValueError(f"urls is a list of base URLs, got {urls!r}")  # noqa: TRY004  # a wrong value in a configuration
    named = urls if isinstance(urls, Mapping) else {url: url for url in urls}
    if not named:
        raise ValueError("urls has no frontend")
    by_place: dict[str, ScrapeTarget] = {}
    for name, url in named.items():  # an address counts once
        by_place.setdefault(same_place(checked_url(url)), ScrapeTarget("frontend", name, checked_url(url)))
    return list(by_place.values())
