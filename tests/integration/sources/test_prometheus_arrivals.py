"""Arrivals through a real Prometheus: each worker by itself, restarts that can have been, and requests given up.

One server has all situations, each in a namespace of its own; a sample every ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dynamo_planner import PoolSpec
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.sources.history import HistorySource
from dynamo_planner.sources.prometheus.source import PrometheusSource
from tests.support.prometheus_server import backfill, line, prometheus

AT = 1_700_100_000
BEGIN = AT - 900
ANOTHER = "another process answers at this address"

Course = Callable[[int], float | None]
"""A value by the number of the sample, 0 to 90, the last of them now."""


def series(name: str, labels: dict[str, str], course: Course | float) -> list[str]:
    values = [(BEGIN + 10 * n, course(n) if callable(course) else course) for n in range(91)]
    return line(name, labels, [(at_s, value) for at_s, value in values if value is not None])


def vllm(
    case: str, pod: str = "a", *, done: Course, started: Course | float | None = None, **more: Course | float
) -> Iterator[str]:
    target = {"namespace": case, "pod": pod}
    own = {**target, "model_name": "m", "engine": "0"}
    yield from series("up", target, more.get("up", 1))
    yield from series("vllm:num_requests_running", own, more.get("running", 5))
    yield from series("vllm:num_requests_waiting", own, more.get("waiting", 0))
    yield from series("vllm:request_success_total", {**own, "finished_reason": "stop"}, done)
    yield from series("vllm:request_prompt_tokens_count", own, done)
    yield from series("vllm:request_prompt_tokens_sum", own, lambda n: 70 * (done(n) or 0))
    if "first" in more:
        yield from series("vllm:time_to_first_token_seconds_count", own, more["first"])
    if "awake" in more:
        yield from series("vllm:engine_sleep_state", {**own, "sleep_state": "awake"}, more["awake"])
    if started is not None:
        yield from series("process_start_time_seconds", target, started)


def sglang(case: str, pod: str, done: Course | None, running: float = 1) -> Iterator[str]:
    target = {"namespace": case, "pod": pod}
    yield from series("up", target, 1)
    for name, value in (("num_running_reqs", running), ("num_queue_reqs", 0)):
        yield from series(f"sglang:{name}", {**target, "tp_rank": "0"}, value)
    if done is not None:
        yield from series("sglang:num_requests_total", {**target, "model_name": "m"}, done)


def trtllm(case: str, pod: str, done: Course | None, running: float = 0) -> Iterator[str]:
    own = {"namespace": case, "pod": pod, "model_name": "m"}
    yield from series("up", {"namespace": case, "pod": pod}, 1)
    for name, value in (("num_requests_running", running), ("num_requests_waiting", 0)):
        yield from series(f"trtllm_{name}", own, value)
    if done is not None:
        yield from series("trtllm_request_success_total", {**own, "finished_reason": "stop"}, done)


def picker(case: str) -> Iterator[str]:
    """llm-d's with flow control: 5 requests/s are passed on, 1 refused; a flow of 2 and one that came 30 s ago wait."""
    target = {"namespace": case, "pod": "epp", "app": "epp"}
    flow = {**target, "model_name": "m", "target_model_name": "m", "fairness_id": "a", "priority": "0"}
    yield from series("up", target, 1)
    yield from series("llm_d_epp_ready_endpoints", {**target, "name": "pool"}, 2)
    yield from series("llm_d_epp_request_total", flow, steady(5))
    name = "llm_d_epp_flow_control_request_queue_duration_seconds"
    for outcome, per_s in (("Dispatched", 5), ("RejectedCapacity", 1)):
        for part in ("count", "sum"):
            yield from series(f"{name}_{part}", {**flow, "outcome": outcome}, steady(per_s))
    yield from series("llm_d_epp_flow_control_queue_size", flow, 2)
    late = {**flow, "fairness_id": "b"}
    yield from series("llm_d_epp_flow_control_queue_size", late, lambda n: 60.0 * (n - 87) if n > 87 else None)
    yield from series("llm_d_epp_request_ttft_seconds_count", {**flow, "streaming": "false"}, steady(5))
    yield from series("llm_d_epp_request_ttft_seconds_sum", {**flow, "streaming": "false"}, steady(5))


def router(case: str) -> Iterator[str]:
    target = {"namespace": case, "pod": "router"}
    yield from series("up", target, 1)
    yield from series("vllm:num_requests_running", {**target, "server": "http://a"}, 5)
    yield from series("vllm:num_requests_running", {**target, "server": "http://b"}, 5)
    yield from series("vllm:healthy_pods_total", {**target, "server": "http://a"}, 1)


def steady(per_s: float, base: float = 0.0) -> Course:
    return lambda n: base + 10 * per_s * n


def in_turn(first: Course, second: Course) -> Course:
    return lambda n: (first, second)[n % 2](n)


def series_of_all_cases() -> Iterator[str]:
    two = in_turn(steady(3, 80_000), steady(3, 70_000))
    yield from vllm("two-old", done=two, started=in_turn(lambda _: 1000.0, lambda _: 1900.0))
    yield from vllm("two-old", "b", done=steady(3), started=1000.0)
    yield from vllm("two-nameless", done=two)
    yield from vllm("handover", done=lambda n: 10.0 * n + (5000 if n > 87 else 0), started=lambda n: 1e9 + (n > 87))
    fresh = {"started": lambda n: 1e9 if n < 88 else AT - 26.0}
    yield from vllm("restart", done=lambda n: 20.0 * n if n < 88 else 20.0 * (n - 87), **fresh)  # type: ignore[arg-type]
    yield from vllm("nameless-restart", done=lambda n: 20.0 * n if n < 88 else 20.0 * (n - 87))
    missed: dict[str, Any] = {"up": lambda n: float(not 84 <= n < 87)}
    missed |= dict.fromkeys(("running", "waiting"), lambda n: None if 84 <= n < 87 else 5.0)
    missed["done"] = lambda n: None if 84 <= n < 87 else 75.0 if n < 84 else 20.0 * (n - 86)
    yield from vllm("missed-restart", started=lambda n: 1e9 if n < 84 else AT - 45.0, **missed)
    missed["done"] = lambda n: None if 84 <= n < 87 else 75.0 if n < 84 else 15.0 * (n - 86)
    yield from vllm("missed-nameless", **missed)
    yield from vllm("young-restart", done=lambda n: 2.0 * max(n - 84, 0) if n < 88 else 3.0 * (n - 87), **fresh)  # type: ignore[arg-type]
    late: dict[str, Any] = dict.fromkeys(("running", "waiting"), lambda n: 5.0 if n > 86 else None)
    late |= {"done": lambda n: 5000 + 20.0 * n if n > 86 else None, "started": 1000.0}
    yield from [*vllm("late", done=steady(2)), *vllm("late", "b", **late)]
    yield from vllm("given-up", done=lambda _: 40.0, first=steady(6, 40), running=30, waiting=9)
    yield from vllm("drained", done=steady(0.1), waiting=lambda n: 90.0 if n < 87 else 0.0)
    yield from [*sglang("fresh-sglang", "a", steady(5)), *sglang("fresh-sglang", "b", None)]
    yield from sglang("first-sglang", "a", steady(5))
    yield from sglang("first-sglang", "b", lambda n: 12.0 if n == 90 else None)
    yield from [*trtllm("fresh-trtllm", "a", steady(5), running=2), *trtllm("fresh-trtllm", "b", None)]
    yield from [*trtllm("idle-trtllm", "a", None), *trtllm("idle-trtllm", "b", None)]
    yield from trtllm("silent-trtllm", "a", None, running=7)
    yield from [*vllm("picked", "w", done=steady(5)), *picker("picked")]
    yield from [*vllm("routed", "a", done=steady(2)), *vllm("routed", "b", done=steady(2)), *router("routed")]
    yield from [*vllm("asleep", done=steady(1), awake=1), *vllm("asleep", "b", done=steady(0), running=0, awake=0)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("prometheus")
    backfill(directory, series_of_all_cases())
    with prometheus(directory) as server:
        yield server


def both(url: str, case: str) -> Observation:
    """The observation now, which is that of the history as well."""
    asking = PrometheusSource(
        url, {"chat": "aggregated"}, labels={"namespace": case}, worker_label="pod", window_s=60, timeout_s=30
    )
    now = asking.observe(AT)
    past = HistorySource.of(asking, {"chat": PoolSpec(role="aggregated")}, start_s=AT, end_s=AT).observe(AT)
    assert past.traffic == now.traffic
    assert past.missing == now.missing
    return now


@pytest.mark.parametrize("case", ["two-old", "two-nameless", "handover", "nameless-restart"])
def test_counters_of_another_process_are_unknown(url: str, case: str) -> None:
    seen = both(url, case)
    assert seen.traffic.requests_per_s is None
    assert seen.traffic.isl is None
    for field in ("requests_per_s", "isl"):
        assert ANOTHER in seen.missing[f"traffic.{field}"]
        assert "(a)" in seen.missing[f"traffic.{field}"]


def test_gauges_of_two_processes_are_unknown_where_that_is_certain(url: str) -> None:
    assert both(url, "two-old").pools["chat"].running is None
    assert both(url, "two-nameless").pools["chat"].running == 5


def test_a_restart_that_can_have_been_counts(url: str) -> None:
    """Of 2 requests/s; the first after the restart are in no increase."""
    seen = both(url, "restart").traffic
    assert seen.requests_per_s is not None
    assert 1.2 <= seen.requests_per_s <= 2.1


def test_a_restart_that_missed_scrapes_hide_takes_nothing_away(url: str) -> None:
    """75 were counted before it and 80 after it, 2 a second; the answers begin with the first 20."""
    seen = both(url, "missed-restart").traffic
    assert seen.requests_per_s is not None
    assert 1.0 <= seen.requests_per_s <= 1.5
    nameless = both(url, "missed-nameless")
    assert nameless.traffic.requests_per_s is None
    assert "without a start time" in nameless.missing["traffic.requests_per_s"]


def test_a_process_that_soon_restarts_has_no_means(url: str) -> None:
    seen = both(url, "young-restart")
    assert seen.traffic.requests_per_s is not None
    assert seen.traffic.isl is None
    assert "restarted soon after it had begun" in seen.missing["traffic.isl"]


def test_a_process_of_before_whose_scrapes_begin_in_the_window_is_no_new_one(url: str) -> None:
    seen = both(url, "late")
    assert seen.traffic.requests_per_s is None
    assert "has scraped b for a part of the window only" in seen.missing["traffic.requests_per_s"]


def test_requests_that_are_given_up_have_had_a_first_token(url: str) -> None:
    seen = both(url, "given-up")
    assert seen.traffic.requests_per_s == pytest.approx(6)
    for whose in ("traffic", "pools.chat.traffic"):
        assert "clients give up" in seen.missing[f"{whose}.requests_per_s.at_least"]


def test_a_queue_that_is_given_up_makes_arrivals_unknown(url: str) -> None:
    seen = both(url, "drained")
    assert seen.traffic.requests_per_s is None
    assert "a frontend would count them (a)" in seen.missing["traffic.requests_per_s"]


@pytest.mark.parametrize(
    ("case", "per_s"),
    [("fresh-sglang", 5), ("fresh-trtllm", 5), ("idle-trtllm", 0), ("first-sglang", 5 + 12 / 60)],
)
def test_a_worker_before_its_first_request_blinds_no_pool(url: str, case: str, per_s: float) -> None:
    assert both(url, case).traffic.requests_per_s == pytest.approx(per_s)


def test_a_busy_worker_without_counters_is_not_idle(url: str) -> None:
    """It was started without statistics of requests."""
    seen = both(url, "silent-trtllm")
    assert seen.traffic.requests_per_s is None
    assert "return_perf_metrics" in seen.missing["traffic.requests_per_s"]


def test_a_worker_that_sleeps_is_no_capacity(url: str) -> None:
    seen = both(url, "asleep")
    assert seen.pools["chat"].coverage == 0.5
    assert "asleep" in seen.missing["pools.chat.workers.b"]


def test_what_waits_in_a_picker_has_come(url: str) -> None:
    """60 s of 6 requests/s that left its queue, and 180 of a flow that began at zero within the window."""
    asking = PrometheusSource(
        url,
        {"chat": "aggregated"},
        labels={"namespace": "picked"},
        pools={"chat": {"pod": "w"}},
        frontend={"app": "epp"},
        worker_label="pod",
        window_s=60,
        timeout_s=30,
    )
    observation = asking.observe(AT)
    traffic = observation.traffic
    assert traffic.requests_per_s == pytest.approx(6 + 180 / 60)
    assert traffic.rejected_per_s == pytest.approx(1)
    assert traffic.queued == 182
    assert "streaming='true' or ''; there is streaming='false'" in observation.missing["traffic.ttft_ms"]


def test_a_router_is_no_worker(url: str) -> None:
    seen = both(url, "routed")
    assert seen.pools["chat"].running == 10
    assert seen.pools["chat"].coverage == pytest.approx(2 / 3)
    assert "which a router has" in seen.missing["pools.chat.workers.router"]
