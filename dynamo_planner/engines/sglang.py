"""SGLang: its metrics (names as of 0.5, and older ones; also of prefill and decode workers) and its knobs.

- The gauges are the scheduler's, from each of its ranks: with ``--enable-metrics-for-all-schedulers`` the ranks of one
  tensor parallel group report the same numbers again, while data parallel ranks report their own.
- A series with a ``priority`` is a part of the one without.
- Counters and histograms come from the tokenizer process, and appear on the page with the first request.
- ``num_requests_total`` counts requests that ended. A request that is aborted while it waits is in no counter of
  completions.
- The gauge ``cache_hit_rate`` is not read: each decode step sets it to 0, and its unit differs by version.
"""

from __future__ import annotations

from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.standard_knobs import batched_tokens_knob, sequences_knob
from dynamo_planner.engines.vocabulary import Counter, Gauge, Histogram, Mean, Vocabulary

RANKS = ("tp_rank", "pp_rank", "moe_ep_rank")
TOTAL = {"priority": ("",)}

RUNNING = ("sglang:num_running_reqs", "sglang:num_requests_running")
QUEUE = "sglang:num_queue_reqs"
BOOTSTRAP = ("sglang:num_prefill_bootstrap_queue_reqs", "sglang:num_prefill_prealloc_queue_reqs")
SENDING = "sglang:num_prefill_inflight_queue_reqs"
PREALLOCATION, RECEIVING = "sglang:num_decode_prealloc_queue_reqs", "sglang:num_decode_transfer_queue_reqs"

REQUESTS = Counter(names="sglang:num_requests_total")
PROMPT_TOKENS = Counter(names="sglang:prompt_tokens_total")
GENERATED_TOKENS = Counter(names="sglang:generation_tokens_total")

SGLANG = Vocabulary(
    engine="SGLang",
    quantities={
        "running": (Gauge(names=RUNNING, where=TOTAL, copies=RANKS),),
        "waiting": (Gauge(names=QUEUE, where=TOTAL, copies=RANKS),),
        "kv_usage": (Gauge(names="sglang:token_usage", copies=RANKS, across="mean"),),
        "kv_capacity_tokens": (
            Gauge(names="sglang:max_total_num_tokens", copies=RANKS),
            Gauge(
                names="sglang:kv_used_tokens",
                plus=("sglang:kv_available_tokens", "sglang:kv_evictable_tokens"),
                copies=RANKS,
            ),
        ),
        "completions": (REQUESTS,),
        "preemptions": (Counter(names="sglang:num_retracted_requests_total", copies=RANKS),),
        "prefix_hits": (Counter(names="sglang:cached_tokens_total"),),
        "prefix_queries": (PROMPT_TOKENS,),
        "ttft_ms": (Histogram(names="sglang:time_to_first_token_seconds", scale=1000),),
        "itl_ms": (
            Histogram(names=("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"), scale=1000),
        ),
        "isl": (Histogram(names="sglang:prompt_tokens_histogram"), Mean(total=PROMPT_TOKENS, count=REQUESTS)),
        "osl": (Histogram(names="sglang:generation_tokens_histogram"), Mean(total=GENERATED_TOKENS, count=REQUESTS)),
        "request_duration_s": (Histogram(names="sglang:e2e_request_latency_seconds"),),
    },
    by_role={
        "prefill": {
            "running": (Gauge(names=RUNNING, plus=(SENDING,), where=TOTAL, copies=RANKS),),
            "waiting": (Gauge(names=QUEUE, plus=(BOOTSTRAP,), where=TOTAL, copies=RANKS),),
        },
        "decode": {
            "waiting": (Gauge(names=QUEUE, plus=(PREALLOCATION, RECEIVING), where=TOTAL, copies=RANKS),),
        },
    },
    cannot_tell={
        "arrivals": "SGLang counts requests when they end (sglang:num_requests_total)",
        "inside": "SGLang reports running and waiting requests separately (sglang:num_running_reqs, "
        "sglang:num_queue_reqs)",
        "queued": "only a frontend knows of requests that are in no pool yet",
        "rejections": "SGLang has no counter of refused requests (sglang:num_aborted_requests_total "
        "counts those that clients cancelled)",
        "prefix_hit_rate": "SGLang's own share, sglang:cache_hit_rate, is of the last prefill batch only",
    },
    with_first_request=(
        *("completions", "prefix_queries", "ttft_ms", "itl_ms", "isl", "osl", "request_duration_s"),
        "prefix_hits",
    ),
    model_label="model_name",
    start_with="--enable-metrics",
)

ENGINE = EngineSpec(
    workers=SGLANG,
    knobs=(  # of ``sglang.launch_server``, 0.5
        batched_tokens_knob("chunked_prefill_size", "--chunked-prefill-size"),
        sequences_knob("max_running_requests", "--max-running-requests"),
    ),
)
