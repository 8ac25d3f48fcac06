"""What a ``PrometheusSource`` observes of pages that were scraped into memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from unittest import mock

from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources.prometheus.source import PrometheusSource
from dynamo_planner.sources.scraping.exposition import names_on, parse_page
from tests.support.sources.small_prometheus import STALE, Labels, Store
from tests.support.sources.views import fetching


def scraped_pages(
    targets: Iterable[Mapping[str, str]], page: Callable[[Mapping[str, str], float], str], times_s: Iterable[float]
) -> Store:
    """The samples of each target's page at these times; it could not be scraped where its page is empty."""
    store = Store()
    times = list(times_s)
    for target in targets:
        there: dict[tuple[str, Labels], float] = {}
        for at_s in times:
            text = page(target, at_s)
            parsed = parse_page(text, frozenset(names_on(text)))
            now = {(name, labels): value for name, series in parsed.items() for labels, value in series.items()}
            for (name, labels), value in {**dict.fromkeys(there, STALE), **now}.items():
                store.add(name, {**dict(labels), **target}, at_s, value)
            store.add("up", target, at_s, 1.0 if now else 0.0)
            there = now
    return store


def observed(source: PrometheusSource, store: Store, at_s: float) -> Observation:
    """What the source observes at that time."""

    def answered(query: str) -> str:
        rows = [
            {"metric": dict(labels), "value": [at_s, repr(value)]} for labels, value in store.query(query, at_s).items()
        ]
        return json.dumps({"status": "success", "data": {"resultType": "vector", "result": rows}})

    with mock.patch("dynamo_planner.sources.prometheus.api.fetch_all", fetching(answered)):
        return source.observe(at_s)
