"""vLLM's metrics (names as of 0.32, and the ones that they had before).

``kv_cache_usage_perc`` is a fraction, whatever its name says; up to 2025 it was ``gpu_cache_usage_perc``, and the
prefix cache counters had ``gpu_`` in front. ``inter_token_latency_seconds`` was ``time_per_output_token_seconds``. Both
observe one value for each token, not for each request. ``request_success_total`` counts every request that ended, also
aborted and failed ones, by ``finished_reason``.
"""

from __future__ import annotations

from dynamo_planner.sources.vocabulary import Counter, Gauge, Histogram, Info, Vocabulary

VLLM = Vocabulary(
    engine="vLLM",
    quantities={
        "running": Gauge(names=("vllm:num_requests_running",)),
        "waiting": Gauge(names=("vllm:num_requests_waiting",)),
        "kv_usage": Gauge(names=("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"), across="mean"),
        "kv_capacity_tokens": Info(names=("vllm:cache_config_info",), labels=("num_gpu_blocks", "block_size")),
        "completions": Counter(names=("vllm:request_success_total",)),
        "prefix_hits": Counter(names=("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total")),
        "prefix_queries": Counter(names=("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total")),
        "ttft_ms": Histogram(names=("vllm:time_to_first_token_seconds",), scale=1000),
        "itl_ms": Histogram(
            names=("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"), scale=1000
        ),
        "isl": Histogram(names=("vllm:request_prompt_tokens",)),
        "osl": Histogram(names=("vllm:request_generation_tokens",)),
        "request_duration_s": Histogram(names=("vllm:e2e_request_latency_seconds",)),
    },
)
