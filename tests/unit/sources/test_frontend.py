"""A Dynamo frontend beside the workers: what it tells equals what is worked out by hand, and it comes first."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import Observation
from dynamo_planner.engines.registry import detect, frontend_vocabularies, worker_vocabularies
from dynamo_planner.engines.vocabulary import EXPLAINING, QUANTITIES, Vocabulary
from dynamo_planner.sources import FrontendSource, ScrapeSource, SourceError
from dynamo_planner.sources.scraping.exposition import parse_page
from tests.support.paths import DATA
from tests.support.sources import engine_pages as pages
from tests.support.sources.by_hand import distribution, total
from tests.support.sources.farm import Farm, Vllm

EVERY_VOCABULARY = [*worker_vocabularies().values(), *frontend_vocabularies().values()]
CAPTURED = DATA / "metrics"
SECONDS = 10.0

BEFORE = pages.dynamo(started=20, done=10, inflight=15, route=2, seen=(0.3, 0.6), hits=(0.5,))
AFTER = pages.dynamo(started=80, done=30, inflight=45, route=6, seen=(0.3, 0.6, 0.02, 2.0, 4.0), hits=(0.5, 0.2, 0.6))

FIELDS = (
    *("requests_per_s", "rejected_per_s", "aborted_per_s", "prefix_hit_rate"),
    *("queued", "queued_tokens", "prefill_tokens"),
    *("ttft_ms", "itl_ms", "token_gap_ms", "isl", "osl", "request_duration_s"),
)


def as_plain(value: Any) -> Any:
    if isinstance(value, Dist):
        return {"count": value.count, "mean": value.mean} | {str(each): at for each, at in value.quantiles.items()}
    return value


def observe_two(farm: Farm, before: str, after: str, model: str | None = "tiny") -> Observation:
    source = FrontendSource([farm.url("front")], model=model, timeout_s=10)
    farm.pages = {"front": before}
    source.observe(1000.0)
    farm.pages = {"front": after}
    return source.observe(1000.0 + SECONDS)


def told(observation: Observation) -> dict[str, Any]:
    return {name: as_plain(getattr(observation.traffic, name)) for name in FIELDS}


def by_hand(before: str, after: str, model: str = 'model="tiny"') -> dict[str, Any]:
    def grown(name: str, having: str) -> float:
        return total(after, name, having) - total(before, name, having)

    name = "dynamo_frontend_{}".format
    return {
        "requests_per_s": grown(name("requests_started_total"), model) / SECONDS,
        "rejected_per_s": grown(name("requests_total"), f'{model},error_type="overload"') / SECONDS,
        "aborted_per_s": grown(name("requests_total"), f'{model},error_type="cancelled"') / SECONDS,
        "queued_tokens": total(after, name("router_queue_pending_isl_tokens")),
        "prefill_tokens": total(after, name("worker_active_prefill_tokens")),
        "token_gap_ms": distribution(before, after, name("inter_token_latency_seconds"), 1000, model),
        "prefix_hit_rate": distribution(before, after, "dynamo_component_router_kv_hit_rate", 1)["mean"],
        "queued": total(after, name("stage_requests"), 'stage="preprocess"')
        + total(after, name("stage_requests"), 'stage="route"'),
        "ttft_ms": distribution(before, after, name("time_to_first_token_seconds"), 1000, model),
        "itl_ms": distribution(before, after, name("inter_token_latency_seconds"), 1000, model),
        "isl": distribution(before, after, name("input_sequence_tokens"), 1, model),
        "osl": distribution(before, after, name("output_sequence_tokens"), 1, model),
        "request_duration_s": distribution(before, after, name("request_duration_seconds"), 1, model),
    }


def test_two_pages_equal_what_is_worked_out_by_hand(farm: Farm) -> None:
    found, expected = told(observe_two(farm, BEFORE, AFTER, model="Tiny")), by_hand(BEFORE, AFTER)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


METRICS = {
    "dynamo_frontend_requests_started_total": {"requests_per_s"},
    "dynamo_frontend_requests_total": {"rejected_per_s", "aborted_per_s"},
    "dynamo_frontend_router_queue_pending_isl_tokens": {"queued_tokens"},
    "dynamo_frontend_worker_active_prefill_tokens": {"prefill_tokens"},
    "dynamo_frontend_stage_requests": {"queued"},
    "dynamo_component_router_kv_hit_rate": {"prefix_hit_rate"},
    "dynamo_frontend_time_to_first_token_seconds": {"ttft_ms"},
    "dynamo_frontend_inter_token_latency_seconds": {"itl_ms", "token_gap_ms"},
    "dynamo_frontend_input_sequence_tokens": {"isl"},
    "dynamo_frontend_output_sequence_tokens": {"osl"},
    "dynamo_frontend_request_duration_seconds": {"request_duration_s"},
}


@pytest.mark.parametrize("change", ["dropped", "renamed"])
@pytest.mark.parametrize(("metric", "fields"), METRICS.items(), ids=METRICS)
def test_a_metric_that_is_gone_is_unknown_and_named_and_nothing_else_is(
    metric: str, fields: set[str], change: str, farm: Farm
) -> None:
    def changed(page: str) -> str:
        if change == "renamed":
            return re.sub(rf"\b{metric}(?=[_{{ ])", f"{metric}_v2", page)
        return "".join(line for line in page.splitlines(keepends=True) if not re.search(rf"\b{metric}[_{{ ]", line))

    whole, observation = told(observe_two(farm, BEFORE, AFTER)), observe_two(farm, changed(BEFORE), changed(AFTER))
    found = told(observation)
    if metric.endswith("started_total"):  # then it is what ended and what is inside; 20 + 4 + 2 + 0.5 and 30
        assert found["requests_per_s"] == pytest.approx((20 + 4 + 2 + 0.5 + 30) / SECONDS)
        return
    assert {name for name in FIELDS if found[name] is None} == fields
    assert all(found[name] == whole[name] for name in FIELDS if name not in fields)
    for name in fields:
        assert metric in observation.missing[f"traffic.{name}"]


def test_an_older_frontend(farm: Farm) -> None:
    """It counted no requests as they came: 20 + 4 + 2 + 0.5 ended, and 30 more are inside."""

    def older(page: str) -> str:
        page = "".join(line for line in page.splitlines(keepends=True) if "started" not in line and "stage" not in line)
        return page.replace("dynamo_frontend_", "nv_llm_http_service_").replace('error_type="', 'x="')

    observation = observe_two(farm, older(BEFORE), older(AFTER))
    whole = told(observe_two(farm, BEFORE, AFTER))
    found = told(observation)
    newer = ("rejected_per_s", "aborted_per_s", "queued", "queued_tokens", "prefill_tokens")
    assert found == whole | {"requests_per_s": pytest.approx(5.65), **dict.fromkeys(newer)}
    assert "dynamo_frontend_requests_total" in observation.missing["traffic.rejected_per_s"]
    assert "dynamo_frontend_stage_requests" in observation.missing["traffic.queued"]


def test_a_frontend_that_had_no_request_yet(farm: Farm) -> None:
    """Its series come with their first use, and count from zero then."""
    fresh = "dynamo_frontend_disconnected_clients 0\n"
    traffic = observe_two(farm, fresh, fresh).traffic
    assert (traffic.requests_per_s, traffic.queued, traffic.observed_at_s, traffic.ttft_ms) == (0, 0, 1010, None)
    traffic = observe_two(farm, fresh, AFTER).traffic
    assert traffic.requests_per_s == pytest.approx(120 / SECONDS)
    assert traffic.ttft_ms is not None
    assert traffic.ttft_ms.count == 5


def test_several_frontends_are_added_and_all_are_needed(farm: Farm) -> None:
    source = FrontendSource(farm.urls("a", "b"), model="tiny", timeout_s=10)
    farm.pages = {"a": BEFORE, "b": BEFORE}
    source.observe(0)
    farm.pages = {"a": AFTER, "b": BEFORE}
    whole = told(observe_two(farm, BEFORE, AFTER))
    farm.pages = {"a": AFTER, "b": BEFORE}
    traffic = source.observe(SECONDS).traffic
    assert traffic.requests_per_s == pytest.approx(whole["requests_per_s"])
    assert traffic.queued == 7 + 3
    farm.pages = {"a": AFTER}
    with pytest.raises(SourceError, match=r"a frontend could not be scraped: .*/b/metrics: it answered 404"):
        source.observe(2 * SECONDS)


def test_a_frontend_comes_before_the_workers(farm: Farm) -> None:
    """What clients saw is the frontend's; what it does not know, and the pools, are the workers'."""
    frontend = FrontendSource([farm.url("front")], model="tiny", timeout_s=10)
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"}, frontend=frontend, timeout_s=10)
    farm.pages = {"front": BEFORE, "w0": Vllm().page()}
    source.observe(1000.0)
    farm.pages = {"front": AFTER, "w0": Vllm(done=5, running=2, preempted=4, ttft_s=(0.2,)).page()}
    observation = source.observe(1000.0 + SECONDS)
    traffic, pool = observation.traffic, observation.pools["workers"]
    assert traffic.requests_per_s == pytest.approx(9)
    assert traffic.queued == 7
    assert traffic.preemptions_per_s == pytest.approx(0.4)
    assert pool.traffic is not None
    assert pool.traffic.requests_per_s == pytest.approx(0.7)
    assert traffic.ttft_ms is not None
    assert traffic.ttft_ms.count == 3
    assert "traffic.preemptions_per_s" not in observation.missing
    farm.pages = {"w0": Vllm(done=25, preempted=4, ttft_s=(0.2,)).page()}
    observation = source.observe(1000.0 + 2 * SECONDS)
    assert observation.traffic.requests_per_s == pytest.approx((25 + 0) / 20), "then the workers' own"
    assert "a frontend could not be scraped" in observation.missing["traffic.queued"]


def behind_a_frontend(farm: Farm, worker: Vllm) -> Observation:
    """A worker that ends as it is here, behind a frontend at which 9 requests come in a second."""
    frontend = FrontendSource([farm.url("front")], model="tiny", timeout_s=10)
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"}, frontend=frontend, timeout_s=10)
    farm.pages = {"front": BEFORE, "w0": Vllm(waiting=worker.waiting).page()}
    source.observe(1000.0)
    farm.pages = {"front": AFTER, "w0": worker.page()}
    return source.observe(1000.0 + SECONDS)


def test_workers_that_count_more_than_the_frontends(farm: Farm) -> None:
    """One of two frontends is not listed; fewer at the workers are no contradiction, and said."""
    more = behind_a_frontend(farm, Vllm(done=240))
    assert more.traffic.requests_per_s is None
    assert "the frontends count 9 requests/s and the workers 24" in more.missing["traffic.requests_per_s"]
    fewer = behind_a_frontend(farm, Vllm(done=20))
    assert fewer.traffic.requests_per_s == pytest.approx(9)
    assert "not all workers are listed" in fewer.missing["traffic.requests_per_s.workers"]


def test_a_frontend_that_counts_at_the_door_has_no_lower_bound(farm: Farm) -> None:
    """Of 90 requests 90 had a first token, and the clients gave them up; others wait."""
    observation = behind_a_frontend(farm, Vllm(ttft_s=(0.2,) * 90, waiting=30))
    assert observation.traffic.requests_per_s == pytest.approx(9)
    assert observation.pools["workers"].traffic is not None
    assert "pools.workers.traffic.requests_per_s.at_least" in observation.missing
    assert not any(field.startswith("traffic.requests_per_s") for field in observation.missing)


def test_requests_that_ask_for_several_answers(farm: Farm) -> None:
    """90 requests with 4 answers of 25 tokens each: vLLM counts 360, and the frontend's 9 requests/s agree with it."""
    frontend = FrontendSource([farm.url("front")], model="tiny", timeout_s=10)
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"}, frontend=frontend, timeout_s=10)

    def page(asked: int, answers: int) -> str:
        labels = 'model_name="tiny",engine="0"'
        name = "vllm:request_params_n"
        return Vllm(done=answers).page() + f"{name}_count{{{labels}}} {asked}\n{name}_sum{{{labels}}} {answers}\n"

    farm.pages = {"front": BEFORE, "w0": page(0, 0)}
    source.observe(1000.0)
    farm.pages = {"front": AFTER, "w0": page(90, 360)}
    observation = source.observe(1000.0 + SECONDS)
    assert observation.traffic.requests_per_s == pytest.approx(9)
    pool = observation.pools["workers"].traffic
    assert pool is not None
    assert pool.requests_per_s == pytest.approx(36), "of answers, which is the load of the pool"


def test_wrong_urls_are_refused_before_anything_is_asked() -> None:
    for urls, message in (
        ([], "no frontend"),
        ("http://h:1", "urls is a list"),
        (["ftp://h"], "is not an http"),
        (["http://me:secret@h"], "leave it out"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            FrontendSource(urls)
        assert "secret" not in str(refused.value)
        with pytest.raises(SourceError, match=message):
            FrontendSource(lambda urls=urls: urls).observe(0)  # type: ignore[misc]


def test_captured_pages_of_the_frontend(farm: Farm) -> None:
    """Dynamo 1.6.1, 17 requests of which 16 were in it at first; values taken off the two captures."""
    before, after = ((CAPTURED / f"dynamo_frontend{name}.prom").read_text() for name in ("", "_after"))
    observation = observe_two(farm, before, after, model=None)
    traffic = observation.traffic
    assert (traffic.requests_per_s, traffic.queued) == (0, 0)
    assert traffic.isl is not None
    assert traffic.isl.count == 12
    assert traffic.isl.mean == pytest.approx((2419 - 607) / 12)
    assert traffic.osl is not None
    assert traffic.osl.count == 16
    assert traffic.osl.mean == pytest.approx(100)
    assert traffic.ttft_ms is not None
    assert traffic.ttft_ms.mean == pytest.approx(1000 * (43.337167359 - 0.164642495) / 12)
    assert traffic.itl_ms is not None
    assert traffic.itl_ms.count == 1591 - 263
    assert traffic.prefix_hit_rate is None
    assert traffic.rejected_per_s == 0
    assert "vllm" not in "".join(observation.missing.values())


@pytest.mark.parametrize(
    ("name", "engine", "unknown"),
    [
        ("dynamo_mocker_worker", "vLLM", {"kv_capacity_tokens"}),
        ("dynamo_mocker_worker_sglang", "SGLang", {"kv_usage", "kv_capacity_tokens"}),
        ("dynamo_mocker_worker_trtllm", "TensorRT-LLM", {"kv_capacity_tokens"}),
    ],
)
def test_captured_pages_of_workers_behind_it(name: str, engine: str, unknown: set[str], farm: Farm) -> None:
    """Dynamo's mocker in the names of each engine: 4 of 16 requests run."""
    text = (CAPTURED / f"{name}.prom").read_text()
    farm.pages = {"w0": text}
    observation = ScrapeSource({"w": farm.urls("w0")}, {"w": "aggregated"}, timeout_s=10).observe(0)
    pool = observation.pools["w"]
    assert (pool.running, pool.queued) == (4, 12)
    assert pool.kv_usage == (None if "kv_usage" in unknown else 0.165)
    for field in unknown:
        assert f"{engine.lower()[:3].replace('ten', 'trt')}" in observation.missing[f"pools.w.{field}"]


@pytest.mark.parametrize("vocabulary", EVERY_VOCABULARY, ids=lambda each: str(each.engine))
def test_every_quantity_is_told_or_it_is_said_why_not(vocabulary: Vocabulary) -> None:
    assert {*vocabulary.quantities, *vocabulary.cannot_tell, *EXPLAINING} == set(QUANTITIES)
    assert not set(vocabulary.quantities) & set(vocabulary.cannot_tell)
    assert Vocabulary.model_validate_json(vocabulary.model_dump_json()) == vocabulary


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("vllm", "vLLM"),
        ("sglang", "SGLang"),
        ("trtllm", "TensorRT-LLM"),
        ("llamacpp", "llama.cpp"),
        ("dynamo_frontend", "Dynamo frontend"),
    ],
)
def test_an_engine_is_told_from_its_page(name: str, engine: str) -> None:
    page = parse_page(
        (CAPTURED / f"{name}.prom").read_text(), frozenset[str]().union(*(each.names() for each in EVERY_VOCABULARY))
    )
    for order in (EVERY_VOCABULARY, EVERY_VOCABULARY[::-1]):
        found = detect(page, [each for each in order if each.engine != "Dynamo router"])
        assert found is not None
        assert found.engine == engine
    assert detect({"python_info", "process_start_time_seconds"}, EVERY_VOCABULARY) is None
