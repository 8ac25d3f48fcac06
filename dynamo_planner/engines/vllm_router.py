"""The router of vLLM's production stack, as a frontend: its metrics (names as of its main branch of autumn 2026).

- ``num_incoming_requests_total`` counts requests as they come, whether or not there is a worker for them.
- Its other names are vLLM's (``vllm:num_requests_running``), with the label ``server``: what it thinks its workers do.
  They are not read; list the workers for that.
- Tokens are counted of answers that are not streamed (``vllm:input_tokens_total``), so that lengths are the workers'.
- The present means ``vllm:avg_latency`` and ``vllm:avg_itl`` are over windows of its own, and not read.
- ``vllm:request_latency_seconds`` came in 2026.
"""

from __future__ import annotations

from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.vocabulary import STAGES, Counter, Histogram, Vocabulary

OF_WORKERS = "it is the workers', not the router's: {}"
OF_TOKENS = "the router does not time tokens, nor count those that it streams: the workers do ({})"

VLLM_ROUTER = Vocabulary(
    engine="vLLM production-stack router",
    quantities={
        "arrivals": (Counter(names="vllm:num_incoming_requests_total"),),
        "request_duration_s": (Histogram(names="vllm:request_latency_seconds"),),
    },
    cannot_tell={
        **dict.fromkeys(STAGES, OF_WORKERS.format("the router sees requests as a whole")),
        "running": OF_WORKERS.format("vllm:num_requests_running of each"),
        "waiting": OF_WORKERS.format("vllm:num_requests_waiting of each"),
        "waiting_tokens": OF_WORKERS.format("vllm:num_requests_waiting counts requests"),
        "queued_tokens": "the router passes requests on when they come (vllm:num_incoming_requests_total)",
        "prefill_tokens": "the router has no counter of them (vllm:input_tokens_total has what ended)",
        "cancellations": "the router has no counter of them (vllm:request_errors_total has failures)",
        "token_gap_ms": OF_TOKENS.format("vllm:inter_token_latency_seconds"),
        "inside": "it is not needed, since the router counts requests as they come (vllm:num_incoming_requests_total)",
        "queued": "the router passes requests on when they come (vllm:num_incoming_requests_total)",
        "kv_usage": OF_WORKERS.format("vllm:kv_cache_usage_perc"),
        "kv_capacity_tokens": OF_WORKERS.format("vllm:cache_config_info"),
        "awake": OF_WORKERS.format("vllm:engine_sleep_state"),
        "completions": "they are not needed, since the router counts requests as they come",
        "aborts": "the router has no counter of them (vllm:request_errors_total has failures)",
        "first_tokens": "they are not needed, since the router counts requests as they come",
        "rejections": "the router has no counter of them (vllm:num_incoming_requests_total has all)",
        "preemptions": OF_WORKERS.format("vllm:num_preemptions_total"),
        "prefix_hits": OF_WORKERS.format("vllm:prefix_cache_hits_total"),
        "prefix_queries": OF_WORKERS.format("vllm:prefix_cache_queries_total"),
        "prefix_hit_rate": OF_WORKERS.format("vllm:prefix_cache_hits_total"),
        "ttft_ms": OF_TOKENS.format("vllm:time_to_first_token_seconds"),
        "itl_ms": OF_TOKENS.format("vllm:request_time_per_output_token_seconds"),
        "isl": OF_TOKENS.format("vllm:request_prompt_tokens"),
        "osl": OF_TOKENS.format("vllm:request_generation_tokens"),
    },
    with_first_request=("arrivals", "request_duration_s"),
    prefixes=("vllm:",),
    known_by=("vllm:healthy_pods_total", "router_cpu_usage_percent"),
    model_label="model",
)

ENGINE = EngineSpec(frontends={"vllm_router": VLLM_ROUTER})
