"""What a source makes of a situation, by scraping or through Prometheus, with what is needed to judge it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

from dynamo_planner.core.metrics import PoolMetrics, Traffic
from dynamo_planner.sources.aggregation.pools import pool_metrics
from dynamo_planner.sources.aggregation.sample import read_page
from dynamo_planner.sources.aggregation.traffic import AT_LEAST, service_traffic
from dynamo_planner.sources.aggregation.window import WorkerHistory
from dynamo_planner.sources.prometheus.source import PrometheusSource
from tests.support.sources.situations import BEGIN_S, EVERY_S, FIRST_JUDGED, TURNS, WINDOW_S, Situation
from tests.support.sources.small_prometheus import STALE, Store

SCRAPED_EVERY_S, OF_PROMETHEUS_S = 15.0, 60.0
MOMENTS_S = (80.0, 90.0, 99.0)
"""When Prometheus is asked, in seconds from the beginning: before, it does not know a whole window."""

DIALECTS: tuple[dict[str, Any], ...] = (
    {"isPartial": True},
    {"warnings": ["a store did not answer"]},
    {"infos": ["the query result may contain partial data"]},
)
"""How servers say that an answer may be partial: VictoriaMetrics, Thanos and Prometheus, Mimir."""


@dataclass(frozen=True)
class View:
    """What is told at one moment.

    Args:
        at_s: the moment.
        spans: for each worker, from when to when it is known what it did, in Unix seconds.
        other_spans: spans that a rate may be of as well: from the last sample before the window on, and the window of a
            worker that died or did not answer in it.
        believed: the workers of which that is believed.
        seen_s: for each worker that was observed, when it was sampled last, by each job.
        sampled_s: for each worker, when it was sampled, up to then.
        sure: those of them that are not doubted to be a single process.
        weights: by how much the parts of a mean may differ in weight, at most.
        every_s: seconds between two samples of a worker.
        traffic: what is told of the service.
        at_least: whether more may have come than is told.
        pool: what is told of the pool that generates tokens.
    """

    at_s: float
    spans: Mapping[str, tuple[float, float]]
    other_spans: Mapping[str, Sequence[tuple[float, float]]]
    believed: frozenset[str]
    seen_s: Mapping[str, Sequence[float]]
    sampled_s: Mapping[str, Sequence[float]]
    sure: frozenset[str]
    weights: float
    every_s: float
    traffic: Traffic
    at_least: bool
    pool: PoolMetrics


def main_pool(situation: Situation) -> str:
    """The pool that generates tokens."""
    return "decode" if any(worker.pool == "decode" for worker in situation.workers.values()) else "aggregated"


def by_scraping(situation: Situation, _: random.Random) -> Iterator[View]:
    """Turn by turn, as ``ScrapeSource`` does it with the pages."""
    workers = situation.workers
    histories = {name: WorkerHistory(name, WINDOW_S) for name in workers}
    previous_s = None
    for turn in range(TURNS + 1):
        at_s = BEGIN_S + EVERY_S * turn
        for name, worker in workers.items():
            page = worker.page(at_s)
            histories[name].observed = page is not None
            if page is not None:
                histories[name].add(read_page(page, situation.vocabulary, at_s), previous_s)
        previous_s = at_s
        if turn < FIRST_JUDGED or not any(history.observed for history in histories.values()):
            continue
        pools = {
            each.pool: [histories[n] for n, w in workers.items() if w.pool == each.pool] for each in workers.values()
        }
        service = service_traffic(pools, {pool: pool for pool in pools}, at_s)  # type: ignore[misc]
        traffic = service.as_traffic(at_s)
        recent = {name: own for name, history in histories.items() if (own := history.recent(at_s))}
        yield View(
            at_s=at_s,
            spans={
                name: (at_s - (traffic.window_s or 0) if own[0].since_start else own[0].start_s, own[-1].end_s)
                for name, own in recent.items()
            },
            other_spans={},
            believed=frozenset(name for name, own in recent.items() if not any(each.doubt for each in own)),
            sampled_s={name: [BEGIN_S + EVERY_S * each for each in range(turn + 1)] for name in recent},
            seen_s={name: [at_s] for name, history in histories.items() if history.observed},
            sure=frozenset(name for name, history in histories.items() if not history.doubt),
            weights=1.0,
            every_s=EVERY_S,
            traffic=traffic,
            at_least=AT_LEAST in service.missing,
            pool=pool_metrics(pools[main_pool(situation)], at_s)[0],
        )


def through_prometheus(situation: Situation, draw: random.Random) -> Iterator[View]:
    """A few moments, as ``PrometheusSource`` does it with the answers of a server that scraped the pages."""
    store, sampled_s = scraped(situation, draw)
    less = {name: Store() for name in situation.workers}
    if situation.partial:
        less = {name: scraped(situation, random.Random(0), without=name)[0] for name in situation.workers}
    pools = {worker.pool: {"pool": worker.pool} for worker in situation.workers.values()}
    source = PrometheusSource(
        "http://127.0.0.1:1",
        {pool: pool for pool in pools},  # type: ignore[misc]
        pools=pools,
        vocabulary=situation.vocabulary,
        worker_label="pod",
        window_s=OF_PROMETHEUS_S,
    )
    for after_s in MOMENTS_S:
        at_s = BEGIN_S + after_s
        dialect, lost = draw.choice(DIALECTS), draw.choice(list(situation.workers))

        def answered(query: str, at_s: float = at_s, dialect: dict[str, Any] = dialect, lost: str = lost) -> str:
            is_partial = draw.random() < situation.partial
            found = (less[lost] if is_partial else store).query(query, at_s)
            result = [{"metric": dict(labels), "value": [at_s, repr(value)]} for labels, value in found.items()]
            data = {"resultType": "vector", "result": result}
            return json.dumps({"status": "success", "data": data, **(dialect if is_partial else {})})

        with mock.patch("dynamo_planner.sources.prometheus.api.fetch_all", fetching(answered)):
            observation = source.observe(at_s)
        inside = {
            name: [each for each in times if at_s - OF_PROMETHEUS_S <= each <= at_s]
            for name, times in sampled_s.items()
        }
        pool = observation.pools[main_pool(situation)]
        yield View(
            at_s=at_s,
            spans={name: (times[0], times[-1]) for name, times in inside.items() if len(times) > 1},
            other_spans={name: _other_spans(situation, name, sampled_s[name], at_s) for name in inside},
            believed=frozenset(inside),
            sampled_s=inside,
            seen_s={
                each.name: sampled_s[each.name][: _number_until(sampled_s[each.name], at_s)][-len(situation.jobs) :]
                for each in pool.workers
                if each.observed_at_s is not None
            },
            sure=frozenset(each.name for each in pool.workers if each.kv_usage is not None),
            weights=2.0,
            every_s=SCRAPED_EVERY_S,
            traffic=observation.traffic,
            at_least=f"traffic.{AT_LEAST}" in observation.missing,
            pool=pool,
        )


def _number_until(times: Sequence[float], at_s: float) -> int:
    return sum(each <= at_s for each in times)


def _other_spans(situation: Situation, name: str, times: Sequence[float], at_s: float) -> list[tuple[float, float]]:
    begin_s = at_s - OF_PROMETHEUS_S
    before, last = [each for each in times if each <= begin_s], max(each for each in times if each <= at_s)
    spans = [(before[-1], last)] if before else []
    inside = [each for each in times if begin_s <= each <= at_s]
    if len(situation.jobs) > 1:  # the copy that counted more, of which each has every other sample
        spans += [(inside[0], inside[-2]), (inside[1], inside[-1])]
    silent = last < at_s - SCRAPED_EVERY_S
    return [*spans, (begin_s, at_s)] if situation.workers[name].loses_s or silent else spans


def scraped(situation: Situation, draw: random.Random, without: str = "") -> tuple[Store, dict[str, list[float]]]:
    """What a server has that scraped the pages; and when it could scrape each worker."""
    store = Store()
    sampled_s: dict[str, list[float]] = {name: [] for name in situation.workers}
    for name, worker in situation.workers.items():
        for job in situation.jobs:
            target = {"pod": name, "instance": f"{name}:8000", "pool": worker.pool, "job": job}
            at_s, there = BEGIN_S + draw.uniform(0, SCRAPED_EVERY_S), set[tuple[str, tuple[tuple[str, str], ...]]]()
            while at_s < BEGIN_S + EVERY_S * TURNS and name != without:
                page = worker.page(at_s)
                now = {
                    (metric, (*labels, *target.items())): value
                    for metric, series in (page or {}).items()
                    for labels, value in series.items()
                }
                for metric, labels in there - now.keys():
                    store.add(metric, dict(labels), at_s, STALE)
                for (metric, labels), value in now.items():
                    store.add(metric, dict(labels), at_s, value)
                store.add("up", target, at_s, 0.0 if page is None else 1.0)
                there = set(now)
                if page is not None:
                    sampled_s[name].append(at_s)
                at_s += SCRAPED_EVERY_S
    return store, {name: sorted(times) for name, times in sampled_s.items()}


def fetching(answered: Callable[[str], str]) -> Callable[..., dict[Any, Any]]:
    def fetched(
        urls: Mapping[Any, str], read: Callable[[Any, str], Any], *, forms: Mapping[Any, str] | None = None, **_: Any
    ) -> dict[Any, Any]:
        asked = {key: (forms or {}).get(key, urlsplit(url).query) for key, url in urls.items()}
        return {key: read(key, answered(parse_qs(form)["query"][0])) for key, form in asked.items()}

    return fetched
