"""SGLang: its metrics (names as of 0.5, and older ones; also of prefill and decode workers) and its knobs.

- Read for the names: the collectors of 0.5.5, 0.5.8 and 0.5.23. ``request_time_per_output_token_seconds`` (since summer
  2026) observes one value per request, (last token - first) / (tokens - 1); ``inter_token_latency_seconds`` each token
  of an output with its share of the time, also with speculative decoding. 0.5.5 has no counter of retractions and no
  size of the KV cache.
- The gauges are the scheduler's, from each of its ranks: with ``--enable-metrics-for-all-schedulers`` the ranks of one
  tensor parallel group report the same numbers again, while data parallel ranks report their own.
- A series with a ``priority`` is a part of the one without.
- Counters and histograms come from the tokenizer process, and appear on the page with the first request.
- ``num_requests_total`` counts requests that ended. A request that is given up while it waits is not among them;
  ``num_aborted_requests_total`` counts those that are given up, waiting or running.
- A request waits in ``num_grammar_queue_reqs`` until its grammar is compiled, which older releases do not report.
- ``queue_time_seconds`` and the stages of ``per_stage_req_latency_seconds`` are the scheduler's, observed when a stage
  ends. Before the queue a prefill worker connects to a decode worker (``prefill_bootstrap``), and a decode worker
  waits for memory (``decode_bootstrap``). The two overlap, as both have the request from its arrival.
- Prompt tokens that wait stand only in JSON, at ``/v1/loads`` (since early 2026): an object whose ``loads`` has an item
  for each data parallel rank. It costs a second request, so that only ``sglang_loads`` reads it.
- The gauge ``cache_hit_rate`` is not read: each decode step sets it to 0, and its unit differs by version.
"""

from __future__ import annotations

from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.metric_kinds import mean_of
from dynamo_planner.engines.standard_knobs import batched_tokens_knob, sequences_knob
from dynamo_planner.engines.vocabulary import NOT_OF_WORKERS, Counter, Gauge, Histogram, Mean, Vocabulary

LOADS = "/v1/loads"
RANKS = ("tp_rank", "pp_rank", "moe_ep_rank")
TOTAL = {"priority": ("",)}

RUNNING = ("sglang:num_running_reqs", "sglang:num_requests_running")
QUEUE, GRAMMAR = "sglang:num_queue_reqs", "sglang:num_grammar_queue_reqs"
BOOTSTRAP = ("sglang:num_prefill_bootstrap_queue_reqs", "sglang:num_prefill_prealloc_queue_reqs")
SENDING = "sglang:num_prefill_inflight_queue_reqs"
PREALLOCATION, RECEIVING = "sglang:num_decode_prealloc_queue_reqs", "sglang:num_decode_transfer_queue_reqs"
IN_HOST_MEMORY = "sglang:num_decode_host_receive_queue_reqs"
TOKEN_GAP = ("sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds")
QUEUE_TIME, STAGE_TIME = "sglang:queue_time_seconds", "sglang:per_stage_req_latency_seconds"

REQUESTS = Counter(names="sglang:num_requests_total")
PROMPT_TOKENS = Counter(names="sglang:prompt_tokens_total")
GENERATED_TOKENS = Counter(names="sglang:generation_tokens_total")


def waiting(*queues: str | tuple[str, ...]) -> tuple[Gauge, Gauge]:
    """The requests that wait in these queues and for their grammar, and in releases that do not report the latter."""
    return (
        Gauge(names=QUEUE, plus=(*queues, GRAMMAR), where=TOTAL, copies=RANKS),
        Gauge(names=QUEUE, plus=queues, where=TOTAL, copies=RANKS),
    )


def stage(name: str) -> Mean:
    """The time that requests were in one of the stages that SGLang names."""
    return mean_of((STAGE_TIME,), where={"stage": (name,)}, copies=RANKS, scale=1000)


def queue_and_stage(name: str) -> Mean:
    """The time in the queue, and in the stage before it, in which a request waits for another worker or for memory."""
    return mean_of((QUEUE_TIME,), plus=(STAGE_TIME,), where={"stage": ("", name)}, copies=RANKS, scale=1000)


SGLANG = Vocabulary(
    engine="SGLang",
    quantities={
        "running": (Gauge(names=RUNNING, where=TOTAL, copies=RANKS),),
        "waiting": waiting(),
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
        "aborts": (Counter(names="sglang:num_aborted_requests_total"),),
        "first_tokens": (Counter(names="sglang:time_to_first_token_seconds_count"),),
        "preemptions": (Counter(names="sglang:num_retracted_requests_total", copies=RANKS),),
        "prefix_hits": (Counter(names="sglang:cached_tokens_total"),),
        "prefix_queries": (PROMPT_TOKENS,),
        "ttft_ms": (Histogram(names="sglang:time_to_first_token_seconds", scale=1000),),
        "itl_ms": (
            Histogram(names="sglang:request_time_per_output_token_seconds", scale=1000),
            Histogram(names=TOKEN_GAP, scale=1000),
        ),
        "token_gap_ms": (Histogram(names=TOKEN_GAP, scale=1000),),
        "isl": (Histogram(names="sglang:prompt_tokens_histogram"), Mean(total=PROMPT_TOKENS, count=REQUESTS)),
        "osl": (Histogram(names="sglang:generation_tokens_histogram"), Mean(total=GENERATED_TOKENS, count=REQUESTS)),
        "request_duration_s": (Histogram(names="sglang:e2e_request_latency_seconds"),),
        "queue_ms": (mean_of((QUEUE_TIME,), copies=RANKS, scale=1000),),
        "prefill_ms": (stage("prefill_forward"),),
    },
    by_role={
        "prefill": {
            "running": (Gauge(names=RUNNING, plus=(SENDING,), where=TOTAL, copies=RANKS),),
            "waiting": waiting(BOOTSTRAP),
            "queue_ms": (queue_and_stage("prefill_bootstrap"),),
            "transfer_ms": (stage("prefill_transfer_kv_cache"),),
        },
        "decode": {
            "waiting": (
                *waiting(PREALLOCATION, RECEIVING, IN_HOST_MEMORY),
                *waiting(PREALLOCATION, RECEIVING),
            ),
            "queue_ms": (queue_and_stage("decode_bootstrap"),),
        },
    },
    cannot_tell={
        "awake": "SGLang has no metric of an engine that sleeps",
        "arrivals": "SGLang counts requests when they end (sglang:num_requests_total)",
        "inside": "SGLang reports running and waiting requests separately (sglang:num_running_reqs, "
        "sglang:num_queue_reqs)",
        "waiting_tokens": "SGLang counts the requests that wait (sglang:num_queue_reqs) and not their tokens, but at "
        "/v1/loads, which engine: sglang_loads reads",
        **NOT_OF_WORKERS,
        "rejections": "SGLang has no counter of refused requests (sglang:num_aborted_requests_total "
        "counts those that clients cancelled)",
        "prefix_hit_rate": "SGLang's own share, sglang:cache_hit_rate, is of the last prefill batch only",
        "transfer_ms": "prefill workers send KV caches and observe it (stage prefill_transfer_kv_cache of "
        "sglang:per_stage_req_latency_seconds); the stage decode_transferred waits for prefill too",
        "first_token_ms": "SGLang's decode workers do not observe when prefill ended "
        "(sglang:per_stage_req_latency_seconds)",
        "decode_ms": "SGLang observes the mean of a token (sglang:request_time_per_output_token_seconds), "
        "not the whole",
    },
    with_first_request=(
        *("completions", "first_tokens", "prefix_queries", "ttft_ms", "itl_ms", "isl", "osl", "request_duration_s"),
        *("prefix_hits", "token_gap_ms", "queue_ms", "prefill_ms", "transfer_ms"),
    ),
    prefixes=("sglang:",),
    transient=("WorkerId",),
    model_label="model_name",
    start_with="--enable-metrics",
)

WAITING_TOKENS = Gauge(names=f"{LOADS}:num_waiting_uncached_tokens")

SGLANG_LOADS = SGLANG.replace(
    pages=("/metrics", LOADS),
    quantities=FrozenMap({**SGLANG.quantities, "waiting_tokens": (WAITING_TOKENS,)}),
)

ENGINE = EngineSpec(
    workers=SGLANG,
    setups={"sglang_loads": SGLANG_LOADS},
    knobs=(  # of ``sglang.launch_server``, 0.5
        batched_tokens_knob("chunked_prefill_size", "--chunked-prefill-size"),
        sequences_knob("max_running_requests", "--max-running-requests"),
    ),
)
