"""The same load on the same workers, seen by scraping them, through Prometheus and from history.

What clients sent is the truth that all three are held to: simulated workers as real processes, a real Prometheus server
that scrapes them, and a load that doubles in the middle.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dynamo_planner import Observation, PoolSpec
from dynamo_planner.core.metrics import PoolMetrics
from dynamo_planner.sources import ScrapeSource
from dynamo_planner.sources.history import HistorySource
from dynamo_planner.sources.prometheus.source import PrometheusSource
from tests.support.prometheus_server import prometheus, until_scraped
from tests.support.simulated import OUTPUT_TOKENS, PROMPT_TOKENS, complete, simulated_workers

pytest.importorskip("aiohttp")

WINDOW_S, INTERVAL_S = 4.0, 0.5
SLOW_S, FAST_S = 0.25, 0.125
"""Between two requests, before and after the middle."""


@dataclass
class Seen:
    """What was sent when, and what the two sources that look at the present saw when."""

    sent_s: list[float] = field(default_factory=list)
    scraped: dict[float, Observation] = field(default_factory=dict)
    through_prometheus: dict[float, Observation] = field(default_factory=dict)
    history: list[tuple[float, Observation]] = field(default_factory=list)

    def sent(self, after_s: float, until_s: float) -> int:
        return bisect_right(self.sent_s, until_s) - bisect_right(self.sent_s, after_s)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    directory: Path = tmp_path_factory.mktemp("prometheus")
    with simulated_workers(2, "--max-num-seqs=4", "--base-ms=20", "--kv-tokens=4000") as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports]
        targets = {"vllm": {address: {"namespace": "llm"} for address in addresses}}
        with prometheus(directory, targets, INTERVAL_S) as url:
            until_scraped(url, 2)
            endpoints = {"workers": {address: f"http://{address}" for address in addresses}}
            scrape = ScrapeSource(endpoints, {"workers": "aggregated"}, window_s=WINDOW_S)
            ask = PrometheusSource(
                url, {"workers": "aggregated"}, labels={"namespace": "llm"}, model="tiny", window_s=WINDOW_S
            )
            yield _watch(scrape, ask, ports)


def _watch(scrape: ScrapeSource, ask: PrometheusSource, ports: list[int]) -> Seen:
    result, over = Seen(), threading.Event()

    def send(clients: ThreadPoolExecutor) -> None:
        began_s = time.time()
        while not over.is_set():
            clients.submit(complete, ports[len(result.sent_s) % 2])
            result.sent_s.append(time.time())
            time.sleep(SLOW_S if result.sent_s[-1] < began_s + WINDOW_S + 1 else FAST_S)

    with ThreadPoolExecutor(16) as clients:
        sender = threading.Thread(target=send, args=(clients,))
        sender.start()
        began_s = time.time()
        for turn in range(round(2.4 * WINDOW_S / 0.1)):
            time.sleep(max(0.0, began_s + turn * 0.1 - time.time()))
            at_s = round(time.time(), 3)
            result.scraped[at_s] = scrape.observe(at_s)
            if turn % 10 == 0 and at_s > began_s + WINDOW_S + 2 * INTERVAL_S:
                result.through_prometheus[at_s] = ask.observe(at_s)
        over.set()
        sender.join()
    time.sleep(INTERVAL_S)
    for at_s in result.through_prometheus:
        past = HistorySource.of(ask, {"workers": PoolSpec(role="aggregated")}, start_s=at_s, end_s=at_s)
        result.history += [(snapshot.at_s, past.observe(snapshot.at_s)) for snapshot in past]
    return result


def rate_within_one_interval(seen: Seen, at_s: float, observation: Observation) -> None:
    """Each end of the window may be off by one interval, and what was seen in between be taken for all of it."""
    assert observation.traffic.requests_per_s is not None
    assert observation.traffic.window_s is not None
    counted = observation.traffic.requests_per_s * WINDOW_S
    fewest = seen.sent(at_s - WINDOW_S + INTERVAL_S, at_s - INTERVAL_S)
    most = seen.sent(at_s - WINDOW_S - INTERVAL_S, at_s) * WINDOW_S / (WINDOW_S - INTERVAL_S)
    assert fewest <= counted <= most


def test_arrivals_are_those_that_clients_sent(seen: Seen) -> None:
    assert len(seen.through_prometheus) >= 4
    for at_s, observation in seen.through_prometheus.items():
        rate_within_one_interval(seen, at_s, observation)
        rate_within_one_interval(seen, at_s, seen.scraped[at_s])
    rates = [observation.traffic.requests_per_s or 0 for observation in seen.through_prometheus.values()]
    assert max(rates) > 1.4 * min(rates), "the load doubled"


def test_means_and_quantiles_agree(seen: Seen) -> None:
    for at_s, observation in seen.through_prometheus.items():
        around = [scraped.traffic for time_s, scraped in seen.scraped.items() if abs(time_s - at_s) <= INTERVAL_S]
        traffic = observation.traffic
        assert traffic.isl is not None
        assert traffic.isl.mean == pytest.approx(PROMPT_TOKENS)
        assert traffic.osl is not None
        assert traffic.osl.mean == pytest.approx(OUTPUT_TOKENS)
        for name in ("ttft_ms", "itl_ms", "token_gap_ms", "request_duration_s"):
            dist, others = getattr(traffic, name), [getattr(other, name) for other in around]
            assert dist.mean == pytest.approx(sum(other.mean for other in others) / len(others), rel=0.15)
            for share, value in dist.quantiles.items():
                at_least, at_most = (limit(other.quantiles[share] for other in others) for limit in (min, max))
                assert 0.85 * at_least <= value <= 1.15 * at_most


def test_stage_times_agree(seen: Seen) -> None:
    for at_s, observation in [*seen.through_prometheus.items(), *seen.history]:
        around = [each.pools["workers"] for time_s, each in seen.scraped.items() if abs(time_s - at_s) <= INTERVAL_S]
        stages = observation.pools["workers"].stages
        assert (stages.transfer_ms, stages.first_token_ms) == (None, None)
        for name in ("queue_ms", "prefill_ms", "decode_ms"):
            others = [getattr(other.stages, name).mean for other in around]
            assert getattr(stages, name).mean == pytest.approx(sum(others) / len(others), rel=0.15, abs=3), name
        assert observation.pools["workers"].traffic is not None
        assert observation.pools["workers"].traffic.preemptions_per_s == 0
        assert observation.pools["workers"].asleep == 0


def test_shares_within_a_target_agree(seen: Seen) -> None:
    """At the bounds of buckets, where a share is exact, up to the requests of one interval more or less."""
    tolerance = 1.5 * INTERVAL_S / WINDOW_S
    for at_s, observation in [*seen.through_prometheus.items(), *seen.history]:
        around = [scraped.traffic for time_s, scraped in seen.scraped.items() if abs(time_s - at_s) <= INTERVAL_S]
        for name in ("ttft_ms", "itl_ms"):
            dist, others = getattr(observation.traffic, name), [getattr(other, name) for other in around]
            assert dist.buckets
            for bound in dist.buckets:
                estimates = [other.share_within(bound).estimate for other in others]
                found = dist.share_within(bound)
                assert found.lower == found.upper == found.estimate
                assert min(estimates) - tolerance <= found.estimate <= max(estimates) + tolerance


def test_gauges_are_those_of_the_last_scrape(seen: Seen) -> None:
    """Prometheus tells what it saw within the last interval; both workers are sampled at moments of their own."""
    for at_s, observation in seen.through_prometheus.items():
        pool = observation.pools["workers"]
        assert (pool.coverage, pool.kv_capacity_tokens) == (1, 4000)
        assert pool.observed_at_s is not None
        assert at_s - 2 * INTERVAL_S <= pool.observed_at_s <= at_s
        assert pool.kv_usage_max == max(worker.kv_usage or 0 for worker in pool.workers)
        for name in ("running", "queued", "kv_usage"):
            near = [
                {worker.name: getattr(worker, name) for worker in scraped.pools["workers"].workers}
                for time_s, scraped in seen.scraped.items()
                if at_s - 1.5 * INTERVAL_S <= time_s <= at_s + 0.1
            ]
            for worker in pool.workers:
                values = [sample[worker.name] for sample in near]
                slack = 0.03 if name == "kv_usage" else 1
                assert min(values) - slack <= getattr(worker, name) <= max(values) + slack


def test_history_is_what_prometheus_told_then(seen: Seen) -> None:
    assert [at_s for at_s, _ in seen.history] == list(seen.through_prometheus)
    for (at_s, past), then in zip(seen.history, seen.through_prometheus.values(), strict=True):
        assert past.missing == then.missing
        assert as_numbers(past.pools["workers"]) == pytest.approx(as_numbers(then.pools["workers"])), at_s


def as_numbers(pool: PoolMetrics) -> dict[str, float]:
    """All numbers in it, by where they are; none is left out."""
    found: dict[str, float] = {}

    def walk(where: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{where}.{key}", inner)
        elif isinstance(value, list | tuple):
            for number, inner in enumerate(value):
                walk(f"{where}.{number}", inner)
        elif isinstance(value, int | float):
            found[where] = float(value)

    walk("", pool.model_dump())
    assert len(found) > 30
    return found
