"""Scraping workers: each one's own metrics page, turned into what a policy needs to know (extra ``scrape``)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from dynamo_planner.core.snapshot import Observation, Role, Traffic
from dynamo_planner.engines.registry import worker_vocabularies
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.sources.aggregation.pools import WorkerNotes, notes_of, pool_metrics
from dynamo_planner.sources.aggregation.traffic import service_traffic
from dynamo_planner.sources.aggregation.window import WorkerHistory
from dynamo_planner.sources.fetch import checked_url
from dynamo_planner.sources.scraping.scraper import Limits, Scraper, Worker
from dynamo_planner.sources.source import Source, SourceError

Endpoints = Mapping[str, Mapping[str, str]]
"""Base URLs by pool and worker name."""

MOST_CAUSES = 3


class ScrapeSource:
    """Sees a served model by the metrics pages of its workers.

    ``endpoints`` are the base URLs of the workers by pool and name, or what gives them anew at each turn (such as an
    executor's); ``roles`` says what the workers of each pool do, and ``vocabulary`` what their engine calls things.
    Rates and means are over ``window_s``, from the second scrape of a worker on; they count what every worker did,
    those too that have gone since. Arrivals are completions and the change of what is in the workers, since the former
    alone would hide an overload.

    All workers are asked at once. One that does not answer within ``timeout_s``, or with more than ``max_bytes``, is
    not seen: ``coverage`` goes down, ``missing`` says why, and the others are told of all the same. Sums (``queued``,
    ``running``) are known if all workers that were seen tell them, means (KV usage and capacity) if one does. A turn
    takes at most ``deadline_s``, by default twice ``timeout_s``.

    ``frontend`` is another source, whose traffic is what clients saw (:class:`FrontendSource`); what it does not know
    is taken from the workers. ``vocabulary`` left out means that each worker's engine is told from its page. Where
    workers serve several models, ``model`` says which of them this is about.
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
        max_bytes: int = 8 * 2**20,
        model: str | None = None,
        frontend: Source | None = None,
    ) -> None:
        self._roles = dict(roles)
        limits = Limits(timeout_s=timeout_s, window_s=window_s, deadline_s=deadline_s, max_bytes=max_bytes)
        among = tuple(worker_vocabularies().values()) if vocabulary is None else (vocabulary,)
        self._scraper = Scraper(among, limits, model)
        self._endpoints = endpoints if callable(endpoints) else self._checked(endpoints)
        self._frontend = frontend
        self._observing = threading.Lock()

    def observe(self, at_s: float) -> Observation:
        """What the workers' pages tell at ``at_s``.

        Where ``at_s`` is before that of the last turn, windows start anew. Raises :class:`SourceError` where there are
        workers, and none of them nor a frontend could be read.
        """
        with self._observing:
            listed = self._listed()
            causes = self._scraper.scrape(listed, at_s)
            traffic, missing = self._from_frontend(at_s)
            if causes and len(causes) == len(listed) and traffic is None:
                raise SourceError(f"none of the workers could be scraped: {_some(causes.values())}")
            return self._observation(at_s, traffic, {**missing, **_named(causes)})

    def notes(self) -> dict[str, dict[str, WorkerNotes]]:
        """What is to be said of the workers of the last turn, by pool and name."""
        notes: dict[str, dict[str, WorkerNotes]] = {pool: {} for pool in self._roles}
        for worker, track in self._scraper.tracks.items():
            if track.listed:
                notes[worker.pool][worker.name] = notes_of(track, self._scraper.engine_of(worker))
        return notes

    def _checked(self, endpoints: Endpoints) -> Endpoints:
        strangers = sorted(endpoints.keys() - self._roles.keys())
        if strangers:
            raise ValueError(f"endpoints: {strangers[0]!r} is in no role; roles has {', '.join(self._roles) or 'none'}")
        for pool, workers in endpoints.items():
            for name, url in workers.items():
                try:
                    checked_url(url)
                except ValueError as error:
                    raise ValueError(f"endpoints.{pool}.{name}: {error}") from None
        return endpoints

    def _listed(self) -> list[Worker]:
        try:
            endpoints = self._endpoints() if callable(self._endpoints) else self._endpoints
            checked = self._checked(endpoints)
            return [
                Worker(pool, name, checked_url(url), self._roles[pool])
                for pool, urls in checked.items()
                for name, url in urls.items()
            ]
        except Exception as error:
            raise SourceError(f"the workers' endpoints could not be had: {type(error).__name__}: {error}") from error

    def _from_frontend(self, at_s: float) -> tuple[Traffic | None, dict[str, str]]:
        if self._frontend is None:
            return None, {}
        try:
            seen = self._frontend.observe(at_s)
        except Exception as error:  # whatever a frontend of the user's own may raise
            return None, {"traffic.queued": f"the frontend could not be read: {type(error).__name__}: {error}"}
        return seen.traffic, {field: why for field, why in seen.missing.items() if field.startswith("traffic.")}

    def _observation(self, at_s: float, frontend: Traffic | None, missing: dict[str, str]) -> Observation:
        by_pool: dict[str, list[WorkerHistory]] = {pool: [] for pool in self._roles}
        for worker, track in self._scraper.tracks.items():
            by_pool[worker.pool].append(track)
        told = service_traffic(by_pool, self._roles, at_s)
        seen = any(track.observed for track in self._scraper.tracks.values())
        traffic = told.as_traffic(at_s if seen else None)
        if frontend is not None:
            traffic = traffic.replace(**{field: value for field, value in frontend if value is not None})
        for field, why in told.missing.items():
            missing.setdefault(f"traffic.{field}", why)
        missing = {field: why for field, why in missing.items() if not _is_known(traffic, field)}
        pools = {}
        for pool, tracks in by_pool.items():
            pools[pool], unknown = pool_metrics(tracks, at_s)
            missing.update({".".join(("pools", pool, *path)): why for path, why in unknown.items()})
        return Observation(traffic=traffic, pools=pools, missing=missing)


def _is_known(traffic: Traffic, field: str) -> bool:
    return getattr(traffic, field.removeprefix("traffic."), None) is not None


def _named(causes: Mapping[Worker, str]) -> dict[str, str]:
    return {f"pools.{worker.pool}.workers.{worker.name}": cause for worker, cause in causes.items()}


def _some(causes: Iterable[str]) -> str:
    every = list(causes)
    return "; ".join(every[:MOST_CAUSES]) + (
        f"; and {len(every) - MOST_CAUSES} more" if len(every) > MOST_CAUSES else ""
    )
