"""TensorRT-LLM: its metrics (a Prometheus page, and iteration statistics in JSON) and its knobs.

- Names on the Prometheus page begin with ``trtllm_`` from 1.3 on, and under Dynamo with ``trtllm:``. Releases 1.1 and
  1.2 (August 2025 to early 2026) have no prefix, and their ``model_name`` is ``undefined``. The last names of a metric
  are those of Dynamo's mocker for this engine. Read for this: the collector of the main branch of autumn 2026, the
  changes that brought it (5785, 11768, 12545), and pages that users of 1.1 and 1.2 published.
- ``trtllm-serve`` has that page at ``/prometheus/metrics`` and the iterations at ``/metrics``; a worker under Dynamo
  has that page at ``/metrics``.
- Those releases have five metrics on that page (completions, duration, TTFT, time per output token, queue time); what
  is running and waiting, and the KV cache, then come from the iterations.
- Iterations are reported once: another reader of them takes them away. Active requests are counted at the beginning of
  an iteration, and so include those that complete in it.
- ``time_per_output_token_seconds`` is observed once per request, and stage times when it ends. Those of prefill and
  decode came with the token counters (March 2026).
"""

from __future__ import annotations

from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.metric_kinds import mean_of
from dynamo_planner.engines.standard_knobs import SEQUENCES, batched_tokens_knob, sequences_knob
from dynamo_planner.engines.vocabulary import (
    NOT_OF_WORKERS,
    Counter,
    Gauge,
    Histogram,
    Mean,
    Product,
    Ratio,
    Vocabulary,
)


def named(*names: str) -> tuple[str, ...]:
    """The names with both prefixes that they have had."""
    return tuple(f"trtllm{mark}{name}" for name in names for mark in ("_", ":"))


def since_1_1(*names: str) -> tuple[str, ...]:
    """The names with the prefixes that they have had, and without one."""
    return (*named(*names), *names)


def of_iteration(path: str) -> str:
    """A value of the iteration statistics."""
    return f"/metrics:{path}"


ENDED = Counter(names=(*since_1_1("request_success_total"), *named("num_requests_completed_total")))
PROMPT_TOKENS = Counter(names=named("prompt_tokens_total"))
GENERATED_TOKENS = Counter(names=named("generation_tokens_total"))

TRTLLM = Vocabulary(
    engine="TensorRT-LLM",
    quantities={
        "running": (
            Gauge(names=named("num_requests_running")),
            Gauge(
                names=of_iteration("numActiveRequests"),
                minus=(of_iteration("numCompletedRequests"),),
                across="last",
            ),
        ),
        "waiting": (
            Gauge(names=named("num_requests_waiting")),
            Gauge(names=of_iteration("numQueuedRequests"), across="last"),
        ),
        "waiting_tokens": (Gauge(names=of_iteration("inflightBatchingStats.numQueuedCtxTokens"), across="last"),),
        "kv_usage": (
            Gauge(names=(*named("kv_cache_utilization"), "trtllm:kv_cache_usage_perc"), across="mean"),
            Ratio(
                part=Gauge(names=of_iteration("kvCacheStats.usedNumBlocks"), across="last"),
                whole=Gauge(names=of_iteration("kvCacheStats.maxNumBlocks"), across="last"),
            ),
        ),
        "kv_capacity_tokens": (
            Product(
                factors=(
                    Gauge(names=named("kv_cache_max_blocks")),
                    Gauge(names=named("kv_cache_tokens_per_block"), across="mean"),
                )
            ),
            Product(
                factors=(
                    Gauge(names=of_iteration("kvCacheStats.maxNumBlocks"), across="last"),
                    Gauge(names=of_iteration("kvCacheStats.tokensPerBlock"), across="last"),
                )
            ),
        ),
        "completions": (ENDED, Counter(names=of_iteration("numCompletedRequests"), numbered=of_iteration("iter"))),
        "rejections": (Counter(names=named("request_error_total"), where={"http_code": ("429", "503")}, rare=True),),
        "preemptions": (Counter(names="trtllm:num_preemptions_total"),),
        "prefix_hits": (Counter(names=named("prompt_cached_tokens_total")),),
        "prefix_queries": (PROMPT_TOKENS,),
        "ttft_ms": (Histogram(names=since_1_1("time_to_first_token_seconds"), scale=1000),),
        "itl_ms": (
            Histogram(
                names=(*since_1_1("time_per_output_token_seconds"), "trtllm:inter_token_latency_seconds"), scale=1000
            ),
        ),
        "isl": (Mean(total=PROMPT_TOKENS, count=ENDED),),
        "osl": (Mean(total=GENERATED_TOKENS, count=ENDED),),
        "request_duration_s": (Histogram(names=since_1_1("e2e_request_latency_seconds")),),
        "queue_ms": (mean_of(since_1_1("request_queue_time_seconds"), scale=1000),),
        "prefill_ms": (mean_of(named("request_prefill_time_seconds"), scale=1000),),
        "decode_ms": (mean_of(named("request_decode_time_seconds"), scale=1000),),
    },
    by_role={
        "decode": {"first_token_ms": (mean_of(since_1_1("time_to_first_token_seconds"), scale=1000),)},
    },
    cannot_tell={
        "awake": "TensorRT-LLM has no metric of an engine that sleeps",
        "aborts": "TensorRT-LLM does not count requests that clients give up",
        "first_tokens": "TensorRT-LLM counts first tokens when requests end (trtllm_time_to_first_token_seconds)",
        "arrivals": "TensorRT-LLM counts requests when they end (trtllm_request_success_total)",
        "inside": "TensorRT-LLM reports running and waiting requests separately (trtllm_num_requests_running, "
        "trtllm_num_requests_waiting)",
        **NOT_OF_WORKERS,
        "prefix_hit_rate": "TensorRT-LLM's own share, trtllm_kv_cache_hit_rate, is since its start, not of a window",
        "token_gap_ms": "TensorRT-LLM observes the mean of a request alone (trtllm_time_per_output_token_seconds)",
        "transfer_ms": "TensorRT-LLM has no metric of it (trtllm_request_queue_time_seconds is the queue alone)",
        "first_token_ms": "only decode workers get prompts that were computed elsewhere "
        "(trtllm_time_to_first_token_seconds)",
    },
    pages=("/prometheus/metrics", "/metrics"),
    with_first_request=(
        *("completions", "ttft_ms", "itl_ms", "isl", "osl", "request_duration_s"),
        *("prefix_queries", "prefix_hits", "queue_ms", "prefill_ms", "decode_ms"),
    ),
    prefixes=("trtllm_", "trtllm:"),
    known_by=("/metrics:",),
    model_label="model_name",
    start_with="return_perf_metrics: true and enable_iter_perf_stats: true",
    switches={"completions": "return_perf_metrics: true"},
)

ENGINE = EngineSpec(
    workers=TRTLLM,
    knobs=(  # of ``trtllm-serve``, 1.0
        batched_tokens_knob("max_num_tokens", "--max_num_tokens", at_least=SEQUENCES),
        sequences_knob("max_batch_size", "--max_batch_size"),
    ),
)
