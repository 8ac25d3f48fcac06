"""What is read off two pages of each engine equals what is worked out by hand, and a metric that is gone blinds nothing
else. Engines cannot run here: the pages are written from their metrics' names (``engine_pages``), or captured."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from dynamo_planner.core.snapshot import Observation, Role
from dynamo_planner.engines.registry import worker_vocabularies
from dynamo_planner.sources import ScrapeSource
from dynamo_planner.sources.aggregation.sample import read_page
from dynamo_planner.sources.scraping.config import ScrapeConfig
from tests.support.sources import engine_pages as pages
from tests.support.sources.engine_cases import (
    CASES,
    ITERATIONS,
    LLAMACPP,
    SECONDS,
    SGLANG,
    TRTLLM,
    Case,
    Pages,
    as_plain,
    key_of,
    of_sglang,
    of_trtllm,
    told,
)
from tests.support.sources.farm import Farm


def serve(farm: Farm, turn: Pages) -> None:
    farm.pages = {f"w0{path}": text for path, text in turn.items()}


def observe_two(farm: Farm, case: Case, before: Pages | None = None, after: Pages | None = None) -> Observation:
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": case.role}, timeout_s=10)
    serve(farm, case.before if before is None else before)
    source.observe(1000.0)
    serve(farm, case.after if after is None else after)
    return source.observe(1000.0 + SECONDS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_two_pages_equal_what_is_worked_out_by_hand(case: Case, farm: Farm) -> None:
    observation = observe_two(farm, case)
    expected, found = case.means(case.before, case.after), told(observation)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    for name, value in found.items():
        assert (value is None) == (key_of(name) in observation.missing), name
    for name, metric in case.named.items():
        assert metric in observation.missing[key_of(name)]


def each_metric() -> list[Any]:
    return [pytest.param(case, metric, id=f"{name} {metric}") for name, case in CASES.items() for metric in case.needs]


@pytest.mark.parametrize("change", ["dropped", "renamed", "not a number"])
@pytest.mark.parametrize(("case", "metric"), each_metric())
def test_a_metric_that_is_gone_is_unknown_and_named_and_nothing_else_is(
    case: Case, metric: str, change: str, farm: Farm
) -> None:
    def changed(turn: Pages) -> Pages:
        return {path: of_json(text) if text.startswith("[") else of_text(text) for path, text in turn.items()}

    def of_text(text: str) -> str:
        if change == "dropped":
            return "".join(line for line in text.splitlines(keepends=True) if not is_of(line))
        if change == "renamed":
            return "".join(line.replace(metric, f"{metric}_v2") for line in text.splitlines(keepends=True))
        return "".join(
            re.sub(r" \S+( \d+)?$", r" NaN\1", line, flags=re.MULTILINE) if is_of(line) and line[0] != "#" else line
            for line in text.splitlines(keepends=True)
        )

    def is_of(line: str) -> bool:
        name = line.removeprefix("# TYPE ").partition("{")[0].partition(" ")[0]
        return re.fullmatch(re.escape(metric) + "(_total|_created|_sum|_count|_bucket)?", name) is not None

    def of_json(text: str) -> str:
        name = metric.strip('"')
        if change == "dropped":
            return re.sub(rf'"{name}": [^,}}]+, |, "{name}": [^,}}]+', "", text)
        if change == "renamed":
            return text.replace(f'"{name}"', f'"{name}V2"')
        return re.sub(rf'"{name}": [^,}}]+', f'"{name}": "many"', text)

    whole = told(observe_two(farm, case))
    before, after = changed(case.before), changed(case.after)
    assert (before, after) != (case.before, case.after)
    observation = observe_two(farm, case, before, after)
    found, fields = told(observation), case.needs[metric]
    assert {name for name in whole if found[name] is None and whole[name] is not None} == fields
    assert {name: found[name] for name in whole if name not in fields} == {
        name: value for name, value in whole.items() if name not in fields
    }
    for name in fields:
        assert metric.strip('"') in observation.missing[key_of(name)], name


def test_a_colon_in_the_prefix_of_tensorrt_llm(farm: Farm) -> None:
    turns = [
        {path: text.replace("trtllm_", "trtllm:") for path, text in each.items()}
        for each in (TRTLLM.before, TRTLLM.after)
    ]
    found = told(observe_two(farm, TRTLLM, *turns))
    assert found == told(observe_two(farm, TRTLLM))
    for name, value in of_trtllm(turns[0], turns[1], "trtllm:").items():
        assert found[name] == pytest.approx(value), name


def test_an_older_tensorrt_llm_has_its_gauges_from_the_iterations(farm: Farm) -> None:
    """Only what is per request is on the Prometheus page: 12 + 6 more ended, and 9 instead of 3 are inside."""

    def only_requests(text: str) -> str:
        return "".join(line for line in text.splitlines(keepends=True) if re.search("request_|token_seconds", line))

    turns = [
        {"/prometheus/metrics": only_requests(each["/prometheus/metrics"]), "/metrics": iterations["/metrics"]}
        for each, iterations in ((TRTLLM.before, ITERATIONS.before), (TRTLLM.after, ITERATIONS.after))
    ]
    found = told(observe_two(farm, TRTLLM, *turns))
    assert (found["running"], found["queued"], found["kv_usage"], found["kv_capacity_tokens"]) == (4, 5, 0.5, 64_000)
    assert found["requests_per_s"] == pytest.approx((18 + 9 - 3) / SECONDS)
    assert found["ttft_ms"]["count"] == 2


@pytest.mark.parametrize(
    ("after", "requests_per_s", "running"),
    [
        (pages.iterations(), 0, 3),
        (pages.iterations((6, 3, 3, 0, 0)), 0, 0),
        (pages.iterations((7, 3, 3, 0, 0)), None, 0),
        (pages.iterations((1, 2, 0, 0, 9), (2, 2, 1, 0, 9)), 0.2, 1),
    ],
    ids=["nothing happened", "the next one", "one was taken by another reader", "a new process"],
)
def test_iterations_are_told_once(after: str, requests_per_s: float | None, running: float, farm: Farm) -> None:
    """Before, three requests were inside after iteration 5."""
    observation = observe_two(farm, ITERATIONS, after={"/metrics": after})
    assert observation.pools["workers"].running == running
    assert observation.traffic.requests_per_s == requests_per_s
    if requests_per_s is None:
        assert "another reader got 6 to 6" in observation.missing["traffic.requests_per_s"]


def test_iterations_go_on_after_a_turn_without_any(farm: Farm) -> None:
    source = ScrapeSource({"workers": farm.urls("w0")}, {"workers": "aggregated"}, timeout_s=10)
    for turn, text in enumerate((pages.iterations((5, 4, 1, 0, 400)), "[]", pages.iterations((6, 5, 2, 0, 300)))):
        serve(farm, {"/metrics": text})
        observation = source.observe(10.0 * turn)
    assert observation.traffic.requests_per_s == pytest.approx((0 + 2 + 3 - 3) / 20)
    serve(farm, {"/metrics": "[]"})
    assert source.observe(30).pools["workers"].running == 3
    serve(farm, {"/metrics": pages.iterations((8, 5, 2, 0, 300))})
    assert source.observe(40).traffic.requests_per_s is None, "iteration 7 was taken by another reader"


@pytest.mark.parametrize(
    ("role", "running", "queued"), [("aggregated", 8, 3), ("prefill", 8 + 20, 3 + 100), ("decode", 8, 3 + 1000 + 4000)]
)
@pytest.mark.parametrize("older", [False, True])
def test_queues_of_sglang_by_role(role: Role, running: float, queued: float, older: bool, farm: Farm) -> None:
    labels = 'engine_type="x",model_name="tiny",tp_rank="0"'
    gauges = {
        "sglang:num_running_reqs": 8,
        "sglang:num_queue_reqs": 3,
        f"sglang:num_prefill_{'prealloc' if older else 'bootstrap'}_queue_reqs": 100,
        "sglang:num_prefill_inflight_queue_reqs": 20,
        "sglang:num_decode_prealloc_queue_reqs": 1000,
        "sglang:num_decode_transfer_queue_reqs": 4000,
    }
    case = Case({}, {}, of_sglang, {}, role=role)
    text = pages.page(labels, gauges, {}, {})
    pool = observe_two(farm, case, {"/metrics": text}, {"/metrics": text}).pools["workers"]
    assert (pool.running, pool.queued) == (running, queued)
    if role != "aggregated":
        renamed = {"/metrics": text.replace("_queue_reqs", "_reqs")}
        observation = observe_two(farm, case, renamed, renamed)
        assert observation.pools["workers"].queued is None
        assert "queue_reqs is not on its page" in observation.missing["pools.workers.queued"]


@pytest.mark.parametrize(
    ("role", "stages"),
    [
        ("prefill", {"queue_ms": 1 / 2 + 1 / 16, "prefill_ms": 1 / 4, "transfer_ms": 1 / 32}),
        ("decode", {"queue_ms": 1 / 2 + 1 / 64, "prefill_ms": 1 / 4}),
    ],
)
def test_stages_of_sglang_by_role(role: Role, stages: dict[str, float], farm: Farm) -> None:
    """Each stage is a part of the values of the page, of which 0.04, 0.07, 0.7 and 2 s are new."""
    queues = ("prefill_bootstrap", "prefill_inflight", "decode_prealloc", "decode_transfer")
    more = pages.page('tp_rank="0"', {f"sglang:num_{name}_queue_reqs": 0 for name in queues}, {}, {})
    turns = [{"/metrics": turn["/metrics"] + more} for turn in (SGLANG.before, SGLANG.after)]
    found = observe_two(farm, replace(SGLANG, role=role), *turns).pools["workers"].stages
    known = {name: dist.mean for name, dist in found if dist is not None}
    assert known == pytest.approx({name: part * 1000 * 2.81 / 4 for name, part in stages.items()})


def test_stages_of_a_vllm_decode_worker(farm: Farm) -> None:
    """Three transfers took 0.3 s; the first token came 0.6 s after the request, in the mean of two."""
    gauges = {"vllm:num_requests_running": 1, "vllm:num_requests_waiting": 0}
    before, after = (
        pages.page(
            'model_name="tiny"',
            gauges,
            {},
            {"vllm:nixl_xfer_time_seconds": moved, "vllm:time_to_first_token_seconds": waited},
        )
        for moved, waited in (((0.1,), (0.5,)), ((0.1, 0.1, 0.05, 0.15), (0.5, 0.4, 0.8)))
    )
    case = Case({"/metrics": before}, {"/metrics": after}, of_sglang, {}, role="decode")
    stages = observe_two(farm, case).pools["workers"].stages
    assert as_plain(stages.transfer_ms) == pytest.approx({"mean": 100, "count": 3})
    assert as_plain(stages.first_token_ms) == pytest.approx({"mean": 600, "count": 2})


def test_data_parallel_ranks_of_sglang_are_added(farm: Farm) -> None:
    """Two data parallel ranks, the first told by both of its tensor parallel ranks."""
    text = "".join(
        pages.page(
            f'dp_rank="{dp}",tp_rank="{tp}"',
            {"sglang:num_running_reqs": 3 + dp, "sglang:token_usage": 0.2 + dp / 2},
            {},
            {},
        )
        for dp, tp in ((0, 0), (0, 1), (1, 2))
    )
    pool = observe_two(farm, SGLANG, {"/metrics": text}, {"/metrics": text}).pools["workers"]
    assert pool.running == 3 + 4
    assert pool.kv_usage == pytest.approx((0.2 + 0.7) / 2)


def test_an_sglang_worker_without_a_request_yet_has_none(farm: Farm) -> None:
    """Its counters come onto the page with the first request that ends; then they count from zero."""
    gauges = {"sglang:num_running_reqs": 0, "sglang:num_queue_reqs": 0}
    fresh = {"/metrics": pages.page('tp_rank="0"', gauges, {"sglang:num_retracted_requests_total": 0}, {})}
    assert observe_two(farm, SGLANG, fresh, fresh).traffic.requests_per_s == 0
    observation = observe_two(farm, SGLANG, fresh)
    assert observation.traffic.requests_per_s == pytest.approx((3 * 16 + 8 + 9) / SECONDS)
    assert observation.traffic.ttft_ms is not None
    assert observation.traffic.ttft_ms.count == 12


def test_token_histograms_of_sglang_are_better_than_means(farm: Farm) -> None:
    def with_lengths(turn: Pages, lengths: tuple[float, ...]) -> Pages:
        more = pages.page("", {}, {}, {"sglang:prompt_tokens_histogram": lengths})
        return {"/metrics": turn["/metrics"] + more.replace("{}", "")}

    found = told(
        observe_two(farm, SGLANG, with_lengths(SGLANG.before, (900,)), with_lengths(SGLANG.after, (900, 50, 60, 500)))
    )
    assert found["isl"] == pytest.approx(
        {"count": 3, "mean": 610 / 3, "0.5": 10 + 90 * 1.5 / 2, "0.9": 100 + 900 * 0.7, "0.99": 100 + 900 * 0.97}
    )


def test_llamacpp_without_slots_says_how_to_have_them(farm: Farm) -> None:
    turns = [{"/metrics": each["/metrics"]} for each in (LLAMACPP.before, LLAMACPP.after)]
    observation = observe_two(farm, LLAMACPP, *turns)
    assert observation.pools["workers"].running == 2
    assert observation.pools["workers"].kv_usage is None
    for name in ("kv_usage", "kv_capacity_tokens"):
        why = observation.missing[f"pools.workers.{name}"]
        assert re.search(r"/slots:n_.* is not on its page \(start it with --slots\).*it answered 404", why), why
    sample = read_page(
        {"llamacpp:requests_processing": {(): 1.0}}, worker_vocabularies()["llamacpp"], 0.0, {"/slots": "it is gone"}
    )
    assert "it is gone" in sample.unknown["kv_usage"]
    assert sample.unknown["itl_ms"] == "llamacpp:tokens_predicted_seconds_total is not on its page", "no slot has it"


def test_a_share_in_percent_says_how_to_name_it() -> None:
    sample = read_page({"vllm:kv_cache_usage_perc": {(): 30.0}}, worker_vocabularies()["vllm"], 0.0)
    assert re.search("is 30, and a share is at most 1: .* scale of 0.01", sample.unknown["kv_usage"])


def test_slots_of_llamacpp_share_one_cache_or_have_one_each(farm: Farm) -> None:
    """Two slots of three are at work, with 900 and 600 tokens; each may hold 2048."""
    slots = [{"id": place, "n_ctx": 2048, "is_processing": place < 2} for place in range(3)]
    slots[0]["n_prompt_tokens"], slots[1]["n_prompt_tokens"] = 900, 600
    turn = {**LLAMACPP.before, "/slots": json.dumps(slots)}
    shared = observe_two(farm, LLAMACPP, turn, turn).pools["workers"]
    assert shared.kv_capacity_tokens == 2048
    assert shared.kv_usage == pytest.approx(1500 / 2048)
    split = observed_as("llamacpp_split", farm).pools["workers"]
    assert split.kv_capacity_tokens == 6144
    assert split.kv_usage == pytest.approx(1500 / 6144)
    slots[0]["n_prompt_tokens"] = 1700
    turn = {**LLAMACPP.before, "/slots": json.dumps(slots)}
    observation = observe_two(farm, LLAMACPP, turn, turn)
    assert observation.pools["workers"].kv_usage is None
    assert "name the engine llamacpp_split" in observation.missing["pools.workers.kv_usage"]
    assert "name the engine llamacpp_split" in observation.missing["pools.workers.kv_capacity_tokens"]


def observed_as(engine: str, farm: Farm) -> Observation:
    """What the pages of the farm are in the vocabulary of an engine that a configuration names."""
    source = ScrapeConfig.model_validate({"engine": engine}).build(
        {"workers": "aggregated"}, {"workers": farm.urls("w0")}
    )
    return source.observe(1000.0)


@pytest.mark.parametrize(("engine", "case"), CASES.items(), ids=CASES)
def test_mixed_pools(engine: str, case: Case, farm: Farm) -> None:
    """Workers of other engines beside it, each told from its own page."""
    others = {f"o{place}": other for place, (name, other) in enumerate(CASES.items()) if name != engine}
    source = ScrapeSource(
        {"workers": farm.urls("w0"), "others": farm.urls(*others)}, {"workers": "aggregated", "others": "aggregated"}
    )
    for at_s, turn in ((1000.0, "before"), (1000.0 + SECONDS, "after")):
        farm.pages = {
            f"{name}{path}": text
            for name, each in ({"w0": case} | others).items()
            for path, text in getattr(each, turn).items()
        }
        observation = source.observe(at_s)
    assert observation.pools["others"].coverage == 1
    assert told(observation) == told(observe_two(farm, case))


def test_vllm_before_v1(farm: Farm) -> None:
    """Swapped requests are in it and do not run, and the prefix hit rate is a gauge; -1 is a cache that is off."""
    labels = 'model_name="tiny"'

    def old(running: float, swapped: float, done: float, rate: float) -> Pages:
        gauges = {
            "vllm:num_requests_running": running,
            "vllm:num_requests_waiting": 1,
            "vllm:num_requests_swapped": swapped,
            "vllm:gpu_cache_usage_perc": 0.4,
            "vllm:gpu_prefix_cache_hit_rate": rate,
        }
        counters = {'vllm:request_success_total{finished_reason="stop"}': done}
        return {"/metrics": pages.page(labels, gauges, counters, {"vllm:time_per_output_token_seconds": [0.02] * 9})}

    case = Case(old(4, 0, 10, 0.5), old(2, 5, 20, 0.7), of_sglang, {})
    observation = observe_two(farm, case)
    found = told(observation)
    assert (found["running"], found["queued"], found["kv_usage"], found["prefix_hit_rate"]) == (2, 6, 0.4, 0.7)
    assert found["requests_per_s"] == pytest.approx((10 + 8 - 5) / SECONDS)
    observation = observe_two(farm, case, after=old(2, 5, 20, -1))
    assert observation.traffic.prefix_hit_rate is None
    assert "prefix_cache_hits_total" in observation.missing["traffic.prefix_hit_rate"]


def test_disaggregated_sglang_counts_no_request_twice(farm: Farm) -> None:
    """A request ends at its prefill worker and at its decode worker; it is told from the one or the other."""
    source = ScrapeSource(
        {"p": farm.urls("w0"), "d": farm.urls("w1")}, {"p": "prefill", "d": "decode"}, timeout_s=10, model="tiny"
    )
    queues = {
        f"sglang:num_{name}_queue_reqs": 0
        for name in ("prefill_bootstrap", "prefill_inflight", "decode_prealloc", "decode_transfer")
    }
    more = pages.page('tp_rank="0"', queues, {}, {})
    for at_s, turn in ((1000.0, SGLANG.before), (1000.0 + SECONDS, SGLANG.after)):
        farm.pages = {"w0": turn["/metrics"] + more, "w1": turn["/metrics"] + more}
        observation = source.observe(at_s)
    alone = told(observe_two(farm, SGLANG))
    traffic = observation.traffic
    assert traffic.requests_per_s == pytest.approx(alone["requests_per_s"])
    for name in ("ttft_ms", "itl_ms", "isl", "osl"):
        assert as_plain(getattr(traffic, name)) == alone[name]
    assert traffic.preemptions_per_s == pytest.approx(alone["preemptions_per_s"])
    assert traffic.request_duration_s is None
