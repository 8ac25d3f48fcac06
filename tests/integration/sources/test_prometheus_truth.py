"""What a Prometheus server has twice, in other words, under other labels or in part is never told as a known number."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any

import pytest

from dynamo_planner import PoolSpec
from dynamo_planner.engines.registry import worker_vocabularies
from dynamo_planner.sources import HistorySource, PrometheusSource
from tests.support.prometheus_server import line
from tests.support.sources.backfilled import AT, Served, always, growing, source, target, vllm
from tests.support.sources.query_server import QueryServer


def named(pod: str, **labels: str) -> Iterator[str]:
    return vllm(target(pod, **labels), running=4, waiting=2, done_per_s=3)


@pytest.mark.parametrize(
    "copies",
    [
        [{"job": "llm"}, {"job": "llm-headless", "service": "headless"}],
        [{"replica": "0"}, {"replica": "1"}],
        [{"instance": "10.0.0.1:8000", "job": "ip"}, {"instance": "a.llm.svc:8000", "job": "name"}],
        [{"instance": "10.0.0.1:8000", "scraped_as": "pod"}, {"instance": "10.0.0.1:8000", "scraped_as": "endpoint"}],
    ],
    ids=["two jobs", "two servers", "two names of an address", "a label of one's own"],
)
def test_copies_of_a_worker_count_once_and_are_named(served: Served, copies: list[dict[str, str]]) -> None:
    url = served(*(named(pod, **labels) for pod in "ab" for labels in copies))
    seen = source(url)
    observation = seen.observe(AT)
    pool = observation.pools["workers"]
    assert (pool.running, pool.queued, pool.kv_usage, pool.kv_capacity_tokens, pool.coverage) == (8, 4, 0.5, 8000, 1)
    assert observation.traffic.requests_per_s == pytest.approx(6)
    assert observation.traffic.ttft_ms is not None
    assert observation.traffic.ttft_ms.count == pytest.approx(360)
    assert observation.traffic.ttft_ms.quantiles[0.5] == pytest.approx(250)
    assert "they are counted once" in observation.missing["pools.workers.workers.a"]
    assert repr(next(iter(copies[0].values()))) in observation.missing["pools.workers.workers.b"] or len(copies[0]) > 1
    (then,) = HistorySource.of(seen, {"workers": PoolSpec(role="aggregated")}, start_s=AT, end_s=AT)
    assert then.pools["workers"].running == 8
    assert seen.observe(AT) == observation


def test_the_processes_of_a_pod_are_no_copies_and_the_addresses_of_one_are(served: Served) -> None:
    addresses = ["10.0.0.1:8000", "10.0.0.1:8001"]
    mesh = {"namespace": "mesh", "pod": "one"}

    def began(labels: dict[str, str], at_s: float) -> Iterator[str]:
        return iter(line("process_start_time_seconds", labels, always(at_s)))

    url = served(
        *(vllm(target("two", instance=each), running=4) for each in addresses),
        *(vllm({**mesh, "instance": each}, running=4) for each in addresses),
        *(began(target("two", instance=each), 1000 + len(each) / 4 * number) for number, each in enumerate(addresses)),
        *(began({**mesh, "instance": each}, 1000) for each in addresses),
    )
    assert source(url).observe(AT).pools["workers"].running == 8
    passed_on = source(url, labels={"namespace": "mesh"}).observe(AT)
    assert passed_on.pools["workers"].running == 4
    assert "instance '10.0.0.1:8000' and '10.0.0.1:8001'" in passed_on.missing["pools.workers.workers.one"]


def test_a_target_of_two_pools_is_told_and_counts_nowhere_twice(served: Served) -> None:
    roles: dict[str, Any] = {"all": "aggregated", "some": "aggregated"}
    observation = source(served(named("a-0"), named("b-0")), roles, pools={"some": {"pod": "=~a-.*"}}).observe(AT)
    assert observation.pools["all"].running == 8
    assert observation.pools["some"].running is None
    assert observation.traffic.requests_per_s is None
    assert observation.missing["pools.some"] == "it has targets of pool 'all', too: their labels overlap"


def test_a_bound_is_the_same_however_it_is_written(served: Served) -> None:
    def worker(pod: str, bounds: tuple[str, str]) -> Iterator[str]:
        yield from vllm(target(pod), without=("time_to_first_token_seconds_bucket",))
        labels = target(pod, model_name="tiny", engine="0")
        for bound, share in zip((*bounds, "+Inf"), (0.5, 1.0, 1.0), strict=True):
            yield from line("vllm:time_to_first_token_seconds_bucket", {**labels, "le": bound}, growing(share))

    observation = source(served(worker("a", ("1", "2")), worker("b", ("1.0", "2.00")))).observe(AT)
    assert observation.traffic.ttft_ms is not None
    assert observation.traffic.ttft_ms.quantiles[0.5] == pytest.approx(1000)
    assert observation.traffic.ttft_ms.quantiles[0.99] == pytest.approx(1980)


def test_a_filter_that_picks_nothing_says_what_there_is(served: Served) -> None:
    url = served(
        vllm(target("a", model_name="Qwen/Qwen3-32B")),
        iter(
            line("dynamo_frontend_requests_started_total", target("f", app="front", model="Qwen/Qwen3-32B"), always(9))
        ),
        iter(line("dynamo_frontend_inflight_requests", target("f", app="front", model="Qwen/Qwen3-32B"), always(4))),
    )
    why = "no series has the model 'qwen3-32b'; those of {} are 'Qwen/Qwen3-32B'"
    by_model = source(url, model="qwen3-32b", frontend={"app": "front"}).observe(AT)
    assert by_model.traffic.requests_per_s is None
    assert by_model.missing["pools.workers"] == by_model.missing["traffic.isl"] == why.format("model_name")
    assert by_model.missing["traffic"] == why.format("model")
    assert source(url, model="qwen/qwen3-32b").observe(AT).pools["workers"].running == 2
    by_label = source(url, labels={"namespace": "lmm"}).observe(AT)
    assert by_label.missing["pools.workers"].endswith("in those that it has, namespace is 'llm'")
    (then,) = HistorySource.of(
        source(url, model="qwen3-32b"), {"workers": PoolSpec(role="aggregated")}, start_s=AT, end_s=AT
    )
    assert then.missing["pools.workers"] == why.format("model_name")


def test_a_prefix_of_names(served: Served) -> None:
    url = served(text.replace("vllm:", "ray_vllm:") for text in named("a"))
    assert source(url, prefix="ray_").observe(AT).pools["workers"].running == 4
    wrong = source(url, prefix="roy_", vocabulary=worker_vocabularies()["vllm"]).observe(AT)
    assert wrong.pools["workers"].running is None
    assert "there is 'ray_vllm:" in wrong.missing["pools.workers"]


# Servers of other makes, as they publish their answers

PER_WORKER = {"pod": "a"}


def answer(query: str) -> list[tuple[dict[str, str], float]]:
    """A worker with 3 running and 1 waiting, and 30 completions in the window."""
    if query.startswith("count by (__name__"):
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:request_success_total")
        return [({"__name__": name, **PER_WORKER}, 1) for name in names]
    values = {"timestamp(": AT - 5, "offset": 3, "min by": 1, "delta(": 0, "resets(": 0, "request_success_total": 60}
    values |= {"num_requests_running": 3, "num_requests_waiting": 1}
    value = next((value for part, value in values.items() if part in query), None)
    return [] if value is None or query.startswith("up{") or " unless " in query else [(PER_WORKER, value)]


@contextmanager
def asked(**more: Any) -> Iterator[tuple[QueryServer, PrometheusSource]]:
    with QueryServer(answer, AT, **more) as server:
        yield server, PrometheusSource(server.url, {"w": "aggregated"}, labels={"a": "b"}, worker_label="pod")


DIALECTS: dict[str, dict[str, Any]] = {
    "VictoriaMetrics": {"isPartial": True},
    "Thanos": {"warnings": ['fetch series for {replica="0"} store-1: rpc error: code = Unavailable']},
    "Mimir": {"infos": ["the query result may contain partial data"]},
}


@pytest.mark.parametrize("more", DIALECTS.values(), ids=DIALECTS)
def test_a_partial_answer_is_told_whoever_gives_it(more: dict[str, Any]) -> None:
    with asked() as (_, whole):
        known = whole.observe(AT)
    assert (known.pools["w"].running, known.traffic.requests_per_s) == (3, 1)
    with asked(always=more) as (_, partial):
        observation = partial.observe(AT)
    assert (observation.pools["w"].running, observation.traffic.requests_per_s) == (None, None)
    for field in ("pools.w", "traffic.requests_per_s", "traffic.osl"):
        assert "its answer may be partial" in observation.missing[field]


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("timestamp(", "pools.w"),
        ("timestamp(", "traffic.requests_per_s"),
        ("min by (pod) (up", "pools.w.coverage"),
        ("offset 60s", "traffic.requests_per_s"),
        ("delta(", "traffic.requests_per_s"),
        ("count by (__name__, pod)", "pools.w.kv_usage"),
        ("or on ()", "pools.w.workers"),
    ],
)
@pytest.mark.parametrize("failing", [{"warnings": ["a store is down"]}, 503], ids=["partial", "refused"])
def test_a_query_beside_those_of_quantities_does_not_fail_in_silence(failing: Any, part: str, field: str) -> None:
    with asked() as (server, seen):
        seen.observe(AT)
        server.trouble = lambda query: failing if part in query else None
        why = seen.observe(AT).missing[field]
    assert ("a store is down" if failing != 503 else "it answered 503") in why


def test_an_engine_that_could_not_be_detected_is_not_told_to_be_absent() -> None:
    frontend = {"app": "frontend"}
    with QueryServer(answer, AT) as server:
        server.trouble = lambda query: 503 if "dynamo" in query and query.startswith("count by (__name__)") else None
        roles: dict[str, Any] = {"w": "aggregated"}
        seen = PrometheusSource(server.url, roles, frontend=frontend, worker_label="pod")
        assert "it answered 503" in seen.observe(AT).missing["traffic"]


@pytest.mark.parametrize("posts", [True, False])
def test_long_queries_are_posted_and_a_proxy_that_refuses_a_post_gets_them_as_get(posts: bool) -> None:
    labels = {"pod": f"=~{'decode|' * 100}prefill"}
    with QueryServer(answer, AT, posts=posts, most_get_chars=4500 if posts else 10**6) as server:
        observation = PrometheusSource(server.url, {"w": "aggregated"}, labels=labels, worker_label="pod").observe(AT)
    assert observation.pools["w"].running == 3
    assert {"GET", "POST"} == set(server.methods)


def test_clocks_that_differ_are_told() -> None:
    with asked(date=formatdate(time.time() - 90)) as (_, seen):
        said = seen.observe(AT).missing["clock"]
        assert re.fullmatch(r"the planner.s clock is 9\d s ahead of the server.s: synchronize both", said)
    with asked() as (_, seen):
        assert "clock" not in seen.observe(AT).missing


def test_a_window_that_ends_in_the_servers_future_is_unknown() -> None:
    with asked(date=formatdate(AT - 40)) as (_, seen):
        observation = seen.observe(AT)
    assert observation.pools["w"].running == 3
    assert observation.traffic.requests_per_s is None
    why = "the window ends 40 s after the server's present: synchronize the planner's clock"
    assert observation.missing["traffic.requests_per_s"].startswith(why)
