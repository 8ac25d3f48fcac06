"""Two pages of each engine, and what they mean, worked out by hand: a function of its own for each engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import Observation, Role
from tests.support.sources import engine_pages as pages
from tests.support.sources.by_hand import STAGES, distribution, mean, total

SECONDS = 10.0

Pages = dict[str, str]
Values = dict[str, Any]

GAUGES = ("running", "queued", "queued_tokens", "kv_usage", "kv_capacity_tokens")
TRAFFIC = (
    *("requests_per_s", "rejected_per_s", "preemptions_per_s", "prefix_hit_rate"),
    *("ttft_ms", "itl_ms", "token_gap_ms", "isl", "osl", "request_duration_s"),
)


@dataclass(frozen=True)
class Case:
    """Two turns' pages of one worker by path, what they mean, and which fields each metric is needed for."""

    before: Pages
    after: Pages
    means: Callable[[Pages, Pages], Values]
    needs: Mapping[str, set[str]]
    named: Mapping[str, str] = field(default_factory=dict)
    """Of what the engine cannot tell, the metric that the reason names."""
    role: Role = "aggregated"


def share(part: float, whole: float) -> float:
    return part / whole


def grown(before: str, after: str, name: str, having: str = "") -> float:
    return total(after, name, having) - total(before, name, having)


def of_sglang(before: Pages, after: Pages) -> Values:
    """One rank speaks for both; what has a priority is part of what has none."""
    then, now = before["/metrics"], after["/metrics"]
    rank, done = 'tp_rank="0"', "sglang:num_requests_total"

    def inside(text: str) -> float:
        return total(text, "sglang:num_running_reqs", rank) + waiting(text)

    def waiting(text: str) -> float:
        return total(text, "sglang:num_queue_reqs", rank) - total(text, "sglang:num_queue_reqs", f'{rank},priority="5"')

    return {
        "running": total(now, "sglang:num_running_reqs", rank),
        "queued": waiting(now),
        "queued_tokens": None,
        "kv_usage": total(now, "sglang:token_usage", rank),
        "kv_capacity_tokens": total(now, "sglang:max_total_num_tokens", rank),
        "requests_per_s": (grown(then, now, done) + inside(now) - inside(then)) / SECONDS,
        "rejected_per_s": None,
        "preemptions_per_s": grown(then, now, "sglang:num_retracted_requests_total", rank) / SECONDS,
        "prefix_hit_rate": share(
            grown(then, now, "sglang:cached_tokens_total"), grown(then, now, "sglang:prompt_tokens_total")
        ),
        "ttft_ms": distribution(then, now, "sglang:time_to_first_token_seconds", 1000),
        "itl_ms": distribution(then, now, "sglang:inter_token_latency_seconds", 1000),
        "token_gap_ms": distribution(then, now, "sglang:inter_token_latency_seconds", 1000),
        "isl": {
            "count": grown(then, now, done),
            "mean": share(grown(then, now, "sglang:prompt_tokens_total"), grown(then, now, done)),
        },
        "osl": {
            "count": grown(then, now, done),
            "mean": share(grown(then, now, "sglang:generation_tokens_total"), grown(then, now, done)),
        },
        "request_duration_s": distribution(then, now, "sglang:e2e_request_latency_seconds", 1),
        **dict.fromkeys(STAGES),
        "queue_ms": mean(then, now, "sglang:queue_time_seconds", rank),
        "prefill_ms": mean(then, now, "sglang:per_stage_req_latency_seconds", f'{rank},stage="prefill_forward"'),
    }


def of_trtllm(before: Pages, after: Pages, prefix: str = "trtllm_") -> Values:
    then, now = before["/prometheus/metrics"], after["/prometheus/metrics"]
    done = f"{prefix}request_success_total"

    def inside(text: str) -> float:
        return total(text, f"{prefix}num_requests_running") + total(text, f"{prefix}num_requests_waiting")

    return {
        "running": total(now, f"{prefix}num_requests_running"),
        "queued": total(now, f"{prefix}num_requests_waiting"),
        "queued_tokens": None,
        "kv_usage": total(now, f"{prefix}kv_cache_utilization"),
        "kv_capacity_tokens": 2000 * 32,
        "requests_per_s": (grown(then, now, done) + inside(now) - inside(then)) / SECONDS,
        "rejected_per_s": grown(then, now, f"{prefix}request_error_total", '"503"') / SECONDS,
        "preemptions_per_s": None,
        "prefix_hit_rate": share(
            grown(then, now, f"{prefix}prompt_cached_tokens_total"), grown(then, now, f"{prefix}prompt_tokens_total")
        ),
        "ttft_ms": distribution(then, now, f"{prefix}time_to_first_token_seconds", 1000),
        "itl_ms": distribution(then, now, f"{prefix}time_per_output_token_seconds", 1000),
        "token_gap_ms": None,
        "isl": {
            "count": grown(then, now, done),
            "mean": share(grown(then, now, f"{prefix}prompt_tokens_total"), grown(then, now, done)),
        },
        "osl": {
            "count": grown(then, now, done),
            "mean": share(grown(then, now, f"{prefix}generation_tokens_total"), grown(then, now, done)),
        },
        "request_duration_s": distribution(then, now, f"{prefix}e2e_request_latency_seconds", 1),
        **dict.fromkeys(STAGES),
        **{f"{stage}_ms": mean(then, now, f"{prefix}request_{stage}_time_seconds") for stage in TRTLLM_STAGES},
    }


TRTLLM_STAGES = ("queue", "prefill", "decode")


def of_iterations(before: Pages, after: Pages) -> Values:
    """The last iteration tells what is; what completed in it is in it no more."""
    then, now = (json.loads(each["/metrics"])[-1] for each in (before, after))

    def inside(last: Mapping[str, Any]) -> float:
        return float(last["numActiveRequests"] - last["numCompletedRequests"] + last["numQueuedRequests"])

    done = sum(each["numCompletedRequests"] for each in json.loads(after["/metrics"]))
    return dict.fromkeys((*TRAFFIC, *STAGES)) | {
        "running": now["numActiveRequests"] - now["numCompletedRequests"],
        "queued": now["numQueuedRequests"],
        "queued_tokens": now["inflightBatchingStats"]["numQueuedCtxTokens"],
        "kv_usage": now["kvCacheStats"]["usedNumBlocks"] / now["kvCacheStats"]["maxNumBlocks"],
        "kv_capacity_tokens": now["kvCacheStats"]["maxNumBlocks"] * now["kvCacheStats"]["tokensPerBlock"],
        "requests_per_s": (done + inside(now) - inside(then)) / SECONDS,
    }


def of_llamacpp(before: Pages, after: Pages) -> Values:
    then, now = before["/metrics"], after["/metrics"]
    slots = json.loads(after["/slots"])
    cached = grown(then, now, "llamacpp:prompt_tokens_cached_total")
    predicted = grown(then, now, "llamacpp:tokens_predicted_total")
    seconds = grown(then, now, "llamacpp:tokens_predicted_seconds_total")
    room = slots[0]["n_ctx"]  # which the slots share
    return dict.fromkeys((*TRAFFIC, *STAGES)) | {
        "running": total(now, "llamacpp:requests_processing"),
        "queued": total(now, "llamacpp:requests_deferred"),
        "queued_tokens": None,
        "kv_usage": sum(slot["n_prompt_tokens"] for slot in slots if slot["is_processing"]) / room,
        "kv_capacity_tokens": room,
        "prefix_hit_rate": cached / (cached + grown(then, now, "llamacpp:prompt_tokens_total")),
        "itl_ms": {"count": predicted, "mean": 1000 * seconds / predicted},
    }


SGLANG = Case(
    before={"/metrics": pages.sglang(3, 2, 0.2, 10, 1000, 1, (0.02, 0.3))},
    after={"/metrics": pages.sglang(8, 9, 0.7, 16, 4000, 5, (0.02, 0.3, 0.04, 0.07, 0.7, 2.0))},
    means=of_sglang,
    needs={
        "sglang:num_running_reqs": {"running", "requests_per_s"},
        "sglang:num_queue_reqs": {"queued", "requests_per_s"},
        "sglang:token_usage": {"kv_usage"},
        "sglang:max_total_num_tokens": {"kv_capacity_tokens"},
        "sglang:num_requests": {"requests_per_s", "isl", "osl"},
        "sglang:prompt_tokens": {"isl", "prefix_hit_rate"},
        "sglang:generation_tokens": {"osl"},
        "sglang:cached_tokens": {"prefix_hit_rate"},
        "sglang:num_retracted_requests": {"preemptions_per_s"},
        "sglang:time_to_first_token_seconds": {"ttft_ms"},
        "sglang:inter_token_latency_seconds": {"itl_ms", "token_gap_ms"},
        "sglang:e2e_request_latency_seconds": {"request_duration_s"},
        "sglang:queue_time_seconds": {"queue_ms"},
        "sglang:per_stage_req_latency_seconds": {"prefill_ms"},
    },
    named={
        "rejected_per_s": "sglang:num_aborted_requests_total",
        "queued_tokens": "/v1/loads",
        "transfer_ms": "prefill_transfer_kv_cache",
        "decode_ms": "sglang:request_time_per_output_token_seconds",
    },
)
TRTLLM = Case(
    before={"/prometheus/metrics": pages.trtllm(3, 1, 0.2, 8, 500, (0.02, 0.3)), "/metrics": "[]"},
    after={"/prometheus/metrics": pages.trtllm(5, 7, 0.6, 20, 4000, (0.02, 0.3, 0.06, 0.4)), "/metrics": "[]"},
    means=of_trtllm,
    needs={
        "trtllm_num_requests_running": {"running", "requests_per_s"},
        "trtllm_num_requests_waiting": {"queued", "requests_per_s"},
        "trtllm_kv_cache_utilization": {"kv_usage"},
        "trtllm_kv_cache_max_blocks": {"kv_capacity_tokens"},
        "trtllm_kv_cache_tokens_per_block": {"kv_capacity_tokens"},
        "trtllm_request_success": {"requests_per_s", "isl", "osl"},
        "trtllm_request_error": {"rejected_per_s"},
        "trtllm_prompt_tokens": {"isl", "prefix_hit_rate"},
        "trtllm_generation_tokens": {"osl"},
        "trtllm_prompt_cached_tokens": {"prefix_hit_rate"},
        "trtllm_time_to_first_token_seconds": {"ttft_ms"},
        "trtllm_time_per_output_token_seconds": {"itl_ms"},
        "trtllm_e2e_request_latency_seconds": {"request_duration_s"},
        **{f"trtllm_request_{stage}_time_seconds": {f"{stage}_ms"} for stage in TRTLLM_STAGES},
    },
    named={
        "preemptions_per_s": "trtllm:num_preemptions_total",
        "queued_tokens": "inflightBatchingStats.numQueuedCtxTokens",
        "token_gap_ms": "trtllm_time_per_output_token_seconds",
    },
)
ITERATIONS = Case(
    before={"/metrics": pages.iterations((4, 3, 0, 1, 300), (5, 4, 1, 0, 400))},
    after={"/metrics": pages.iterations((6, 4, 2, 0, 500), (7, 6, 0, 3, 900), (8, 7, 3, 5, 1000))},
    means=of_iterations,
    needs={
        "numActiveRequests": {"running", "requests_per_s"},
        "numQueuedRequests": {"queued", "requests_per_s"},
        "numCompletedRequests": {"running", "requests_per_s"},
        "usedNumBlocks": {"kv_usage"},
        "maxNumBlocks": {"kv_usage", "kv_capacity_tokens"},
        "tokensPerBlock": {"kv_capacity_tokens"},
        "numQueuedCtxTokens": {"queued_tokens"},
    },
    named={
        "ttft_ms": "trtllm_time_to_first_token_seconds",
        "isl": "trtllm_prompt_tokens_total",
        "prefix_hit_rate": "trtllm_prompt_cached_tokens_total",
        "queue_ms": "trtllm_request_queue_time_seconds",
    },
)
LLAMACPP = Case(
    before={"/metrics": pages.llamacpp(1, 0, 100, 50, 1000, 9.0), "/slots": pages.slots(7, None)},
    after={"/metrics": pages.llamacpp(2, 3, 400, 250, 1500, 24.0), "/slots": pages.slots(1024, 3072, None)},
    means=of_llamacpp,
    needs={
        "llamacpp:requests_processing": {"running"},
        "llamacpp:requests_deferred": {"queued"},
        "llamacpp:prompt_tokens_total": {"prefix_hit_rate"},
        "llamacpp:prompt_tokens_cached": {"prefix_hit_rate"},
        "llamacpp:tokens_predicted_total": {"itl_ms"},
        "llamacpp:tokens_predicted_seconds": {"itl_ms"},
        "n_ctx": {"kv_usage", "kv_capacity_tokens"},
        '"n_prompt_tokens"': {"kv_usage"},
    },
    named={
        "requests_per_s": "llamacpp:tokens_predicted_total",
        "ttft_ms": "llamacpp:prompt_seconds_total",
        "isl": "llamacpp:prompt_tokens_total",
        "osl": "llamacpp:tokens_predicted_total",
        "request_duration_s": "llamacpp:tokens_predicted_seconds_total",
        "rejected_per_s": "llamacpp:requests_deferred",
        "preemptions_per_s": "llama.cpp preempts no request",
        "queued_tokens": "llamacpp:requests_deferred",
        "token_gap_ms": "llamacpp:tokens_predicted_seconds_total",
        "queue_ms": "llamacpp:requests_deferred",
        "prefill_ms": "llamacpp:prompt_seconds_total",
    },
)
CASES = {"SGLang": SGLANG, "TensorRT-LLM": TRTLLM, "its iterations": ITERATIONS, "llama.cpp": LLAMACPP}


def as_plain(value: Any) -> Any:
    if isinstance(value, Dist):
        quantiles = {str(share): quantile for share, quantile in value.quantiles.items()}
        return {"count": value.count, "mean": value.mean, **quantiles}
    return value


def told(observation: Observation) -> Values:
    pool = observation.pools["workers"]
    assert pool.traffic is not None
    return {
        **{name: getattr(pool, name) for name in GAUGES},
        **{name: as_plain(getattr(pool.traffic, name)) for name in TRAFFIC},
        **{name: as_plain(getattr(pool.stages, name)) for name in STAGES},
    }


def key_of(name: str) -> str:
    if name in STAGES:
        return f"pools.workers.stages.{name}"
    return f"pools.workers.{name}" if name in GAUGES else f"pools.workers.traffic.{name}"
