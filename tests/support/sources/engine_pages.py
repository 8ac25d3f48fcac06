"""Pages of each engine, written from its metrics' names: what a worker serves before and after a while of load.

Written the way each engine writes: ranks, priorities, ``_created`` series, an exemplar, a timestamp.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

BOUNDS = (0.01, 0.05, 0.1, 0.5, 1, 5)
LENGTHS = (10, 100, 1000)

Values = Sequence[float]


def page(labels: str, gauges: Mapping[str, float], counters: Mapping[str, float], seen: Mapping[str, Values]) -> str:
    """A page in the text format. A name may have labels of its own; ``seen`` are the values that histograms saw."""
    lines: list[str] = []
    for kind, values in (("gauge", gauges), ("counter", counters)):
        for name, value in values.items():
            bare, _, own = name.partition("{")
            inside = ",".join(part for part in (labels, own.rstrip("}")) if part)
            lines += [f"# TYPE {bare} {kind}", f"{bare}{{{inside}}} {value}"]
            if kind == "counter":
                lines.append(f"{bare.removesuffix('_total')}_created{{{inside}}} 1.7e9")
    for name, observed in seen.items():
        bare, _, own = name.partition("{")
        inside = ",".join(part for part in (labels, own.rstrip("}")) if part)
        comma = "," if inside else ""
        bounds = LENGTHS if re.search("sequence_tokens|tokens_histogram", bare) else BOUNDS
        lines.append(f"# TYPE {bare} histogram")
        lines += [f'{bare}_bucket{{{inside}{comma}le="{b}"}} {sum(v <= b for v in observed)}' for b in bounds]
        lines.append(f'{bare}_bucket{{{inside}{comma}le="+Inf"}} {len(observed)} # {{trace_id="a b"}} 0.5 1.7e9')
        lines += [f"{bare}_sum{{{inside}}} {sum(observed)}", f"{bare}_count{{{inside}}} {len(observed)} 1700000000000"]
    return "\n".join(lines) + "\n"


def sglang(
    running: float, queue: float, usage: float, done: float, cached: float, retracted: float, seen: Values
) -> str:
    """Two ranks of one tensor parallel group, which tell the same; ``priority`` splits what waits."""
    engine = 'engine_type="unified",model_name="tiny"'
    ranks = [f'{engine},moe_ep_rank="0",pp_rank="0",tp_rank="{rank}"' for rank in (0, 1)]
    gauges = {
        "sglang:num_running_reqs": running,
        "sglang:num_queue_reqs": queue,
        'sglang:num_queue_reqs{priority="5"}': queue - 1,
        "sglang:token_usage": usage,
        "sglang:max_total_num_tokens": 100_000,
        "sglang:cache_hit_rate": 0.99,
    }
    requests = {
        'sglang:num_requests_total{is_streaming="true"}': done,
        'sglang:num_requests_total{is_streaming="false"}': 2 * done,
        'sglang:prompt_tokens_total{is_streaming="true"}': 700 * done,
        'sglang:prompt_tokens_total{is_streaming="false"}': 800 * done,
        'sglang:generation_tokens_total{is_streaming="true"}': 60 * done,
        'sglang:cached_tokens_total{cache_source="device"}': cached,
        'sglang:cached_tokens_total{cache_source="host"}': cached / 2,
    }
    histograms = {
        'sglang:time_to_first_token_seconds{is_streaming="true"}': seen,
        'sglang:time_to_first_token_seconds{is_streaming="false"}': [2 * value for value in seen],
        "sglang:inter_token_latency_seconds": [value / 10 for value in seen],
        'sglang:e2e_request_latency_seconds{is_streaming="true"}': [3 * value for value in seen],
    }
    scheduled = {
        "sglang:queue_time_seconds": [value / 2 for value in seen],
        'sglang:per_stage_req_latency_seconds{stage="prefill_forward"}': [value / 4 for value in seen],
        'sglang:per_stage_req_latency_seconds{stage="request_process"}': [value / 8 for value in seen],
        'sglang:per_stage_req_latency_seconds{stage="prefill_bootstrap"}': [value / 16 for value in seen],
        'sglang:per_stage_req_latency_seconds{stage="prefill_transfer_kv_cache"}': [value / 32 for value in seen],
        'sglang:per_stage_req_latency_seconds{stage="decode_bootstrap"}': [value / 64 for value in seen],
    }
    retractions = {"sglang:num_retracted_requests_total": retracted}
    own = "".join(page(rank, gauges, retractions, scheduled) for rank in ranks)
    return own + page(engine, {}, requests, histograms)


def trtllm(
    running: float, waiting: float, usage: float, done: float, cached: float, seen: Values, mark: str = "_"
) -> str:
    """The Prometheus page of ``trtllm-serve`` with iteration and per-request metrics switched on."""
    name = f"trtllm{mark}"
    gauges = {
        f"{name}num_requests_running": running,
        f"{name}num_requests_waiting": waiting,
        f"{name}kv_cache_utilization": usage,
        f"{name}kv_cache_max_blocks": 2000,
        f"{name}kv_cache_tokens_per_block": 32,
    }
    counters = {
        f'{name}request_success_total{{finished_reason="stop"}}': done,
        f'{name}request_success_total{{finished_reason="length"}}': done / 2,
        f'{name}request_error_total{{http_code="400"}}': 3 * done,
        f'{name}request_error_total{{http_code="503"}}': done / 4,
        f"{name}prompt_tokens_total": 900 * done,
        f"{name}generation_tokens_total": 90 * done,
        f"{name}prompt_cached_tokens_total": cached,
    }
    histograms = {
        f"{name}time_to_first_token_seconds": seen,
        f"{name}time_per_output_token_seconds": [value / 10 for value in seen],
        f"{name}e2e_request_latency_seconds": [4 * value for value in seen],
        f"{name}request_queue_time_seconds": [value / 2 for value in seen],
        f"{name}request_prefill_time_seconds": [value / 4 for value in seen],
        f"{name}request_decode_time_seconds": [3 * value for value in seen],
    }
    return page('engine_type="trtllm",model_name="tiny"', gauges, counters, histograms)


def iteration(number: int, active: int, done: int, queued: int, used: int) -> dict[str, object]:
    """One of TensorRT-LLM's iterations."""
    return {
        "iter": number,
        "iterLatencyMS": 12.5,
        "numActiveRequests": active,
        "numCompletedRequests": done,
        "numQueuedRequests": queued,
        "kvCacheStats": {"maxNumBlocks": 2000, "usedNumBlocks": used, "tokensPerBlock": 32},
        "inflightBatchingStats": {"numContextRequests": 1, "numQueuedCtxTokens": 700 * queued},
    }


def iterations(*values: tuple[int, int, int, int, int]) -> str:
    """What ``/metrics`` of ``trtllm-serve`` answers."""
    return json.dumps([iteration(*each) for each in values])


def llamacpp(running: float, deferred: float, computed: float, cached: float, predicted: float, seconds: float) -> str:
    """A llama.cpp server, which has no labels."""
    gauges = {
        "llamacpp:requests_processing": running,
        "llamacpp:requests_deferred": deferred,
        "llamacpp:predicted_tokens_seconds": 4711,
    }
    counters = {
        "llamacpp:prompt_tokens_total": computed,
        "llamacpp:prompt_tokens_cached_total": cached,
        "llamacpp:tokens_predicted_total": predicted,
        "llamacpp:tokens_predicted_seconds_total": seconds,
    }
    return page("", gauges, counters, {}).replace("{}", "")


def slots(*held: int | None) -> str:
    """The slots of a llama.cpp server; ``None`` is an idle one that keeps its cache."""
    return json.dumps(
        [
            {
                "id": place,
                "n_ctx": 4096,
                "is_processing": tokens is not None,
                "n_prompt_tokens": 40 if tokens is None else tokens,
                "next_token": [{"n_decoded": 5}],
            }
            for place, tokens in enumerate(held)
        ]
    )


def dynamo(started: float, done: float, inflight: float, route: float, seen: Values, hits: Values) -> str:
    """A Dynamo frontend that serves two models, with a KV router in it."""
    pages = []
    for model, times in (("tiny", 1.0), ("other", 1000.0)):
        gauges = {"dynamo_frontend_inflight_requests": times * inflight, "dynamo_frontend_queued_requests": 99}
        counters = {
            'dynamo_frontend_requests_started_total{endpoint="chat",request_type="stream"}': times * started,
            'dynamo_frontend_requests_started_total{endpoint="chat",request_type="unary"}': times * started / 2,
            'dynamo_frontend_requests_total{error_type="",status="success"}': times * done,
            'dynamo_frontend_requests_total{error_type="overload",status="error"}': times * done / 5,
            'dynamo_frontend_requests_total{error_type="validation",status="error"}': times * done / 10,
            'dynamo_frontend_requests_total{error_type="cancelled",status="error"}': times * done / 40,
        }
        histograms = {
            "dynamo_frontend_time_to_first_token_seconds": [times * value for value in seen],
            "dynamo_frontend_inter_token_latency_seconds": [times * value / 10 for value in seen],
            "dynamo_frontend_input_sequence_tokens": [times * value * 100 for value in seen],
            "dynamo_frontend_output_sequence_tokens": [times * value * 50 for value in seen],
            "dynamo_frontend_request_duration_seconds": [times * value * 2 for value in seen],
        }
        pages.append(page(f'model="{model}"', gauges, counters, histograms))
    stages = {
        'dynamo_frontend_stage_requests{phase="",stage="preprocess"}': 1,
        'dynamo_frontend_stage_requests{phase="aggregated",stage="route"}': route,
        'dynamo_frontend_stage_requests{phase="aggregated",stage="dispatch"}': 50,
    }
    tokens = {
        'dynamo_frontend_router_queue_pending_isl_tokens{worker_type="prefill"}': 300 * route,
        'dynamo_frontend_router_queue_pending_isl_tokens{worker_type="decode"}': 0,
        'dynamo_frontend_worker_active_prefill_tokens{dp_rank="0",worker_id="1",worker_type="prefill"}': 50 * inflight,
        'dynamo_frontend_worker_active_prefill_tokens{dp_rank="0",worker_id="2",worker_type="prefill"}': 30 * inflight,
    }
    router = {"dynamo_component_router_kv_hit_rate": hits}
    return "".join(pages) + page("", stages | tokens, {}, {}) + page('router_id="1",worker_id="a"', {}, {}, router)
