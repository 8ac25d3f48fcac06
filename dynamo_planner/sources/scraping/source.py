"""``ScrapeSource``: a served model from the metrics pages of its workers (extra ``scrape``)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Unpack

from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.snapshot import Observation, Role
from dynamo_planner.engines.registry import worker_vocabularies
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.sources.aggregation.pools import WorkerNotes, notes_of, pool_metrics, with_router_tokens
from dynamo_planner.sources.aggregation.traffic import AT_LEAST, service_traffic
from dynamo_planner.sources.aggregation.window import WorkerHistory
from dynamo_planner.sources.aggregation.witnesses import RATE, compare_with_frontends
from dynamo_planner.sources.fetch import checked_url, same_place
from dynamo_planner.sources.scraping.request import PageRequest, RequestOptions
from dynamo_planner.sources.scraping.scraper import ScrapeLimits, Scraper, ScrapeTarget
from dynamo_planner.sources.source import Source, SourceError

Endpoints = Mapping[str, Mapping[str, str]]
"""Base URLs by pool and worker name."""

MAX_CAUSES = 3


class ScrapeSource:
    """A served model from the metrics pages of its workers.

    Rates and means are over ``window_s``, from the second scrape of a worker on; they include what workers did that
    have gone since. Arrivals are completions plus the change of requests in the workers, since completions alone would
    hide an overload. Sums (``queued``, ``running``) are known if all workers that answered report them, means (KV usage
    and capacity) if one does.

    All workers are scraped at once. One that does not answer in time, or with too long a page, lowers ``coverage``, and
    ``missing`` says why; the others are reported all the same.

    Args:
        endpoints: the base URLs of the workers by pool and name, or a function that returns them at each turn (such as
            an executor's).
        roles: the role of each pool.
        vocabulary: what the workers' engine calls its metrics; by default it is detected from each page.
        timeout_s: seconds for one page.
        window_s: seconds over which rates and means are.
        deadline_s: seconds for a turn; by default twice ``timeout_s``.
        model: the model this is about, where workers serve several.
        frontend: another source, whose traffic is what clients saw (:class:`FrontendSource`); what it does not know is
            taken from the workers.
        **request: ``access``, ``path``, ``scheme``, ``prefix``, ``max_bytes``, ``max_series`` (see
            :class:`~dynamo_planner.sources.scraping.request.PageRequest`).
    """

    def __init__(
        self,
        endpoints: Endpoints | Callable[[], Endpoints],
        roles: Mapping[str, Role],
        *,
        vocabulary: Vocabulary | None = None,
        timeout_s: float = 2.0,
        window_s: float = 30.0,
        deadline_s: float | None = None,
        model: str | None = None,
        frontend: Source | None = None,
        **request: Unpack[RequestOptions],
    ) -> None:
        self._roles = dict(roles)
        limits = ScrapeLimits(timeout_s=timeout_s, window_s=window_s, deadline_s=deadline_s)
        among = tuple(worker_vocabularies().values()) if vocabulary is None else (vocabulary,)
        self._scraper = Scraper(among, limits, model, PageRequest.of(request))
        self._endpoints = endpoints if callable(endpoints) else self._checked(endpoints)
        self._frontend = frontend
        self._observing = threading.Lock()

    def observe(self, at_s: float) -> Observation:
        """Scrape the workers, and observe the model at ``at_s``.

        Where ``at_s`` is before that of the last turn, windows start anew. Raises :class:`SourceError` where there are
        workers, and none of them nor a frontend could be read.
        """
        with self._observing:
            listed, copies = _without_copies(self._listed())
            causes = self._scraper.scrape(listed, at_s)
            traffic, missing = self._from_frontend(at_s)
            if causes and len(causes) == len(listed) and traffic is None:
                raise SourceError(f"none of the workers could be scraped: {_first_few(causes.values())}")
            return self._observation(at_s, traffic, {**missing, **_by_worker({**causes, **copies})})

    def notes(self) -> dict[str, dict[str, WorkerNotes]]:
        """The engine of each worker of the last turn, and why it does not report what it does not, by pool and name."""
        notes: dict[str, dict[str, WorkerNotes]] = {pool: {} for pool in self._roles}
        for target, history in self._scraper.histories.items():
            if history.listed:
                notes[target.pool][target.name] = notes_of(history, self._scraper.engine_of(target))
        return notes

    def _checked(self, endpoints: Endpoints) -> Endpoints:
        unknown = sorted(endpoints.keys() - self._roles.keys())
        if unknown:
            raise ValueError(f"endpoints: {unknown[0]!r} is in no role; roles has {', '.join(self._roles) or 'none'}")
        for pool, workers in endpoints.items():
            for name, url in workers.items():
                try:
                    checked_url(url)
                except ValueError as error:
                    raise ValueError(f"endpoints.{pool}.{name}: {error}") from None
        return endpoints

    def _listed(self) -> list[ScrapeTarget]:
        try:
            endpoints = self._endpoints() if callable(self._endpoints) else self._endpoints
            checked = self._checked(endpoints)
            return [
                ScrapeTarget(pool, name, checked_url(url), self._roles[pool])
                for pool, urls in checked.items()
                for name, url in urls.items()
            ]
        except Exception as error:
            raise SourceError(f"the workers' endpoints could not be listed: {type(error).__name__}: {error}") from error

    def _from_frontend(self, at_s: float) -> tuple[Traffic | None, dict[str, str]]:
        if self._frontend is None:
            return None, {}
        try:
            observation = self._frontend.observe(at_s)
        except Exception as error:  # whatever a frontend of the user's own may raise
            return None, {"traffic.queued": f"the frontend could not be read: {type(error).__name__}: {error}"}
        missing = {field: why for field, why in observation.missing.items() if field.startswith("traffic.")}
        return observation.traffic, missing

    def _observation(self, at_s: float, frontend: Traffic | None, missing: dict[str, str]) -> Observation:
        by_pool: dict[str, list[WorkerHistory]] = {pool: [] for pool in self._roles}
        for target, history in self._scraper.histories.items():
            by_pool[target.pool].append(history)
        partial = service_traffic(by_pool, self._roles, at_s)
        observed = any(history.observed for history in self._scraper.histories.values())
        reported = partial.as_traffic if frontend is None else partial.as_requests
        traffic = reported(at_s if observed else None)
        if frontend is not None:
            disagreement = compare_with_frontends(frontend, traffic)
            traffic = traffic.replace(**{field: value for field, value in frontend if value is not None})
            if RATE in disagreement:
                traffic = traffic.replace(requests_per_s=None)
            missing.update({f"traffic.{field}": why for field, why in disagreement.items()})
            if frontend.requests_per_s is not None:  # it counts at the door
                partial.missing.pop(AT_LEAST, None)
        for field, why in partial.missing.items():
            missing.setdefault(f"traffic.{field}", why)
        missing = {field: why for field, why in missing.items() if not _is_known(traffic, field)}
        pools = {}
        for pool, workers in by_pool.items():
            pools[pool], unknown = pool_metrics(workers, at_s)
            missing.update({".".join(("pools", pool, *path)): why for path, why in unknown.items()})
        pools = with_router_tokens(pools, missing, self._roles, traffic)
        return Observation(traffic=traffic, pools=pools, missing=missing)


def _is_known(traffic: Traffic, field: str) -> bool:
    return getattr(traffic, field.removeprefix("traffic."), None) is not None


def _without_copies(listed: list[ScrapeTarget]) -> tuple[list[ScrapeTarget], dict[ScrapeTarget, str]]:
    """The targets of different addresses; and for each of the others of which one it is a copy."""
    by_url: dict[str, ScrapeTarget] = {}
    copies = {}
    for target in listed:
        first = by_url.setdefault(same_place(target.url), target)
        if first is not target:
            copies[target] = f"{target.url} is the address of {first.pool}.{first.name}, too: it is counted once"
    return list(by_url.values()), copies


def _by_worker(causes: Mapping[ScrapeTarget, str]) -> dict[str, str]:
    return {f"pools.{target.pool}.workers.{target.name}": cause for target, cause in causes.items()}


def _first_few(causes: Iterable[str]) -> str:
    every = list(causes)
    return "; ".join(every[:MAX_CAUSES]) + (f"; and {len(every) - MAX_CAUSES} more" if len(every) > MAX_CAUSES else "")
