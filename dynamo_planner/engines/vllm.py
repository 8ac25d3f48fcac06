"""vLLM: its metrics (names as of 0.32, and older ones, also from before its V1 engine) and its knobs.

- Read for the names: a page of 0.32, a main branch of 2026, and the change that brought ITL of requests (24015). Forms
  of Ray and KServe differ in the prefix. Ray shows all processes of a node on one page, apart by ``WorkerId``.
- vLLM's production-stack router repeats metrics of its workers under the same names.
- ``kv_cache_usage_perc`` is a fraction, whatever its name says; up to 2025 it was ``gpu_cache_usage_perc``, and the
  prefix cache counters had ``gpu_`` in front.
- ``request_time_per_output_token_seconds`` (since 0.11) observes one value per request, (last token - first) /
  (tokens - 1). ``inter_token_latency_seconds``, before 0.11 ``time_per_output_token_seconds``, observes one per output
  of a step, which with speculative decoding has several tokens: it stands for the other only where there is none.
- ``request_success_total`` counts requests that ended, by ``finished_reason``. The V1 engine does not count those that
  clients give up; they are in ``time_to_first_token_seconds`` if their first token came, and else nowhere.
- ``num_requests_waiting`` has all reasons for which requests wait (``num_requests_waiting_by_reason``).
- ``engine_sleep_state`` is 1 with ``sleep_state="awake"`` while an engine takes requests.
- Stage times are observed when a request ends. A request of a decode worker waits in its queue for the KV cache too,
  and its TTFT there counts from the end of prefill elsewhere. ``nixl_xfer_time_seconds`` is of the connector that
  fetches KV caches, one value per transfer.
- The engine before V1 could swap requests out, which were then neither running nor waiting, and reported its prefix hit
  rate as a gauge (-1 where the cache is off).
"""

from __future__ import annotations

from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.metric_kinds import mean_of
from dynamo_planner.engines.standard_knobs import SEQUENCES, batched_tokens_knob, sequences_knob
from dynamo_planner.engines.vocabulary import NOT_OF_WORKERS, Counter, Gauge, Histogram, Info, Vocabulary

VLLM = Vocabulary(
    engine="vLLM",
    quantities={
        "running": (Gauge(names="vllm:num_requests_running"),),
        "waiting": (
            Gauge(names="vllm:num_requests_waiting", plus=("vllm:num_requests_swapped",)),
            Gauge(names="vllm:num_requests_waiting"),
        ),
        "kv_usage": (Gauge(names=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), across="mean"),),
        "kv_capacity_tokens": (Info(names="vllm:cache_config_info", labels=("num_gpu_blocks", "block_size")),),
        "awake": (Gauge(names="vllm:engine_sleep_state", where={"sleep_state": ("awake",)}, across="mean"),),
        "completions": (Counter(names="vllm:request_success_total"),),
        "first_tokens": (Counter(names="vllm:time_to_first_token_seconds_count"),),
        "rejections": (Counter(names="vllm:admission_rejections_total"),),
        "preemptions": (Counter(names="vllm:num_preemptions_total"),),
        "prefix_hits": (Counter(names=("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total")),),
        "prefix_queries": (Counter(names=("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total")),),
        "prefix_hit_rate": (Gauge(names="vllm:gpu_prefix_cache_hit_rate", across="mean"),),
        "ttft_ms": (Histogram(names="vllm:time_to_first_token_seconds", scale=1000),),
        "itl_ms": (
            Histogram(names="vllm:request_time_per_output_token_seconds", scale=1000),
            Histogram(
                names=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
                unless=("vllm:spec_decode_num_drafts_total",),
                scale=1000,
            ),
        ),
        "token_gap_ms": (
            Histogram(names=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"), scale=1000),
        ),
        "isl": (Histogram(names="vllm:request_prompt_tokens"),),
        "osl": (Histogram(names="vllm:request_generation_tokens"),),
        "choices": (Histogram(names="vllm:request_params_n"),),
        "request_duration_s": (Histogram(names="vllm:e2e_request_latency_seconds"),),
        "queue_ms": (mean_of(("vllm:request_queue_time_seconds",), scale=1000),),
        "prefill_ms": (mean_of(("vllm:request_prefill_time_seconds",), scale=1000),),
        "decode_ms": (mean_of(("vllm:request_decode_time_seconds",), scale=1000),),
    },
    by_role={
        "decode": {
            "transfer_ms": (mean_of(("vllm:nixl_xfer_time_seconds",), scale=1000),),
            "first_token_ms": (mean_of(("vllm:time_to_first_token_seconds",), scale=1000),),
        },
    },
    cannot_tell={
        "arrivals": "vLLM counts requests when they end (vllm:request_success_total)",
        "aborts": "vLLM does not count requests that clients give up",
        "inside": "vLLM reports running and waiting requests separately (vllm:num_requests_running, "
        "vllm:num_requests_waiting)",
        "waiting_tokens": "vLLM counts the requests that wait (vllm:num_requests_waiting) and not their tokens: a KV "
        "router in front does",
        **NOT_OF_WORKERS,
        "transfer_ms": "only decode workers fetch KV caches (vllm:nixl_xfer_time_seconds)",
        "first_token_ms": "only decode workers get prompts that were computed elsewhere "
        "(vllm:time_to_first_token_seconds)",
    },
    prefixes=("vllm:",),
    repeated_by=("vllm:num_incoming_requests_total", "vllm:healthy_pods_total"),
    transient=("WorkerId",),
    model_label="model_name",
    start_without="--disable-log-stats",
)

ENGINE = EngineSpec(
    workers=VLLM,
    knobs=(  # of ``vllm serve``, 0.11 and later: the budget of a step must have a token for each sequence
        batched_tokens_knob("max_num_batched_tokens", "--max-num-batched-tokens", at_least=SEQUENCES),
        sequences_knob("max_num_seqs", "--max-num-seqs"),
    ),
)
