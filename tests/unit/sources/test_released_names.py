"""Names as releases and setups have them: without a prefix, with a longer one, without colons, and of no model."""

from __future__ import annotations

import pytest

from dynamo_planner.engines.registry import frontend_vocabularies, worker_vocabularies
from dynamo_planner.engines.sglang import SGLANG
from dynamo_planner.engines.trtllm import TRTLLM
from dynamo_planner.engines.vllm import VLLM
from dynamo_planner.sources.aggregation.models import select_model
from dynamo_planner.sources.aggregation.sample import read_page
from dynamo_planner.sources.prometheus.detection import detection_pattern, vocabulary_of
from dynamo_planner.sources.prometheus.promql import queries_of
from dynamo_planner.sources.prometheus.query_keys import QueryKey
from dynamo_planner.sources.prometheus.scope import Scope
from dynamo_planner.sources.scraping.exposition import MAX_SERIES
from dynamo_planner.sources.scraping.spelled_page import SpelledPages

WORKERS = list(worker_vocabularies().values())

VLLM_PAGE = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 3.0
vllm:request_success_total{model_name="m",finished_reason="stop"} 9.0
vllm:request_time_per_output_token_seconds_bucket{model_name="m",le="+Inf"} 4
vllm:request_time_per_output_token_seconds_count{model_name="m"} 4
vllm:request_time_per_output_token_seconds_sum{model_name="m"} 0.1
"""


def parsed(text: str) -> dict[str, object]:
    return dict(SpelledPages(WORKERS).parse(text, MAX_SERIES, set()))


@pytest.mark.parametrize("spelling", ["ray_vllm:", "kserve_vllm:", "vllm_", "team_a_vllm_", "edge:vllm:"])
def test_a_page_is_read_however_a_setup_spells_the_names(spelling: str) -> None:
    assert parsed(VLLM_PAGE.replace("vllm:", spelling)) == parsed(VLLM_PAGE)


def test_a_name_that_only_ends_like_one_is_not_read() -> None:
    assert parsed("shop_request_success_total 5\nmyvllm_num_requests_running 2\n") == {}


def test_names_of_the_engine_win_over_other_spellings() -> None:
    page = parsed(VLLM_PAGE + 'vllm_num_requests_running{model_name="m"} 99\n')
    assert page == parsed(VLLM_PAGE)


def test_trtllm_serve_before_1_3_has_no_prefix_and_no_model() -> None:
    labels = 'engine_type="undefined",model_name="undefined"'
    text = "".join(
        f'{name}_bucket{{{labels},le="+Inf"}} 8\n{name}_count{{{labels}}} 8\n{name}_sum{{{labels}}} {total}\n'
        for name, total in (("time_to_first_token_seconds", 2), ("time_per_output_token_seconds", 0.16))
    )
    page = SpelledPages(WORKERS).parse(
        f'{text}request_success_total{{{labels},finished_reason="stop"}} 8\n', MAX_SERIES, set()
    )
    picked, others = select_model(page, "model_name", "qwen3")
    sample = read_page(picked, TRTLLM, at_s=0.0)
    assert not others
    assert sum(sample.counters["completions"].values()) == 8
    means = {name: sum(each.total for each in data.values()) / 8 for name, data in sample.histograms.items()}
    assert means == {"ttft_ms": 250, "itl_ms": pytest.approx(20)}


def test_the_gap_of_a_step_is_no_itl_beside_speculative_decoding() -> None:
    name, labels = "vllm:inter_token_latency_seconds", '{model_name="m"}'
    step = f"{name}_count{labels} 5\n{name}_sum{labels} 1\n"
    drafts = 'vllm:spec_decode_num_drafts_total{model_name="m"} 7\n'
    both = read_page(SpelledPages(WORKERS).parse(VLLM_PAGE + step + drafts, MAX_SERIES, set()), VLLM, at_s=0.0)
    (of_requests,) = both.histograms["itl_ms"].values()
    assert (of_requests.count, of_requests.total) == (4, 100)
    plain = read_page(SpelledPages(WORKERS).parse(step, MAX_SERIES, set()), VLLM, at_s=0.0)
    (of_steps,) = plain.histograms["itl_ms"].values()
    assert of_steps.count == 5
    speculative = read_page(SpelledPages(WORKERS).parse(step + drafts, MAX_SERIES, set()), VLLM, at_s=0.0)
    assert "vllm:spec_decode_num_drafts_total" in speculative.unknown["itl_ms"]
    query = queries_of(VLLM, Scope(window_s=60))[QueryKey("itl_ms", "count")]
    assert 'unless on (instance) {__name__=~"vllm:spec_decode_num_drafts_total"}' in query


def test_prometheus_is_asked_for_the_names_as_they_are_spelled() -> None:
    found = vocabulary_of({"ray_vllm_num_requests_running", "ray_vllm_request_success_total"}, WORKERS)
    assert found is not None
    queries = queries_of(found, Scope(labels={"job": "ray"}, window_s=60))
    assert queries[QueryKey("waiting")].endswith('sum by (instance) (ray_vllm_num_requests_waiting{job="ray"})')
    frontends = list(frontend_vocabularies().values())
    other = vocabulary_of({"prod_dynamo_frontend_requests_total"}, frontends)
    assert other is not None
    assert next(other.quantities["completions"][0].samples()) == "prod_dynamo_frontend_requests_total"
    assert "(?:.*[:_])?(?:" in detection_pattern(WORKERS)
    assert vocabulary_of({"node_load1"}, WORKERS) is None


def test_sglang_of_autumn_2026_has_itl_of_requests_and_one_more_queue() -> None:
    labels = 'model_name="m",tp_rank="0"'
    queues = ("num_queue_reqs", "num_decode_prealloc_queue_reqs", "num_decode_transfer_queue_reqs")
    text = "".join(f"sglang:{name}{{{labels}}} 2\n" for name in queues)
    decode = SGLANG.for_role("decode")
    assert read_page(SpelledPages(WORKERS).parse(text, MAX_SERIES, set()), decode, at_s=0.0).gauges["waiting"] == 6
    text += f"sglang:num_decode_host_receive_queue_reqs{{{labels}}} 5\nsglang:num_grammar_queue_reqs{{{labels}}} 1\n"
    for name, count, total in (("inter_token_latency", 90, 1.8), ("request_time_per_output_token", 3, 0.09)):
        text += "".join(
            f'sglang:{name}_seconds_{part}{{model_name="m"{label}}} {value}\n'
            for part, label, value in (("bucket", ',le="+Inf"', count), ("count", "", count), ("sum", "", total))
        )
    sample = read_page(SpelledPages(WORKERS).parse(text, MAX_SERIES, set()), decode, at_s=0.0)
    assert sample.gauges["waiting"] == 12
    (of_requests,) = sample.histograms["itl_ms"].values()
    assert of_requests.count == 3
    assert of_requests.total == pytest.approx(90)
