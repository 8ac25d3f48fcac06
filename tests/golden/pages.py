"""A short metrics page of each engine, before and after ten seconds of load."""

from __future__ import annotations

Turn = dict[str, str]
"""Texts by path."""


def _histogram(name: str, labels: str, buckets: dict[str, int], total: float) -> str:
    lines = [f"# TYPE {name} histogram"]
    lines += [f'{name}_bucket{{{labels},le="{bound}"}} {count}' for bound, count in buckets.items()]
    lines += [f"{name}_sum{{{labels}}} {total}", f"{name}_count{{{labels}}} {buckets['+Inf']}"]
    return "\n".join(lines) + "\n"


def _plain(labels: str, values: dict[str, float]) -> str:
    inside = f"{{{labels}}}" if labels else ""
    kinds = ((name, "counter" if name.endswith("_total") else "gauge", value) for name, value in values.items())
    return "".join(f"# TYPE {name} {kind}\n{name}{inside} {value}\n" for name, kind, value in kinds)


def _vllm(running: int, waiting: int, usage: float, done: int) -> Turn:
    labels = 'engine="0",model_name="tiny"'
    gauges = {
        "vllm:num_requests_running": running,
        "vllm:num_requests_waiting": waiting,
        "vllm:kv_cache_usage_perc": usage,
        "vllm:prefix_cache_hits_total": 30.0 * done,
        "vllm:prefix_cache_queries_total": 100.0 * done,
        "vllm:num_preemptions_total": done // 4,
    }
    success = f'vllm:request_success_total{{{labels},finished_reason="stop"}} {done}\n'
    config = 'vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="1000"} 1\n'
    seconds = {"0.1": done // 2, "0.5": done - 1, "5.0": done, "+Inf": done}
    tokens = {"10.0": 0, "100.0": done // 3, "1000.0": done, "+Inf": done}
    return {
        "/metrics": _plain(labels, gauges)
        + "# TYPE vllm:request_success_total counter\n"
        + success
        + config
        + _histogram("vllm:time_to_first_token_seconds", labels, seconds, 0.3 * done)
        + _histogram("vllm:inter_token_latency_seconds", labels, seconds, 0.02 * done)
        + _histogram("vllm:e2e_request_latency_seconds", labels, seconds, 2.5 * done)
        + _histogram("vllm:request_prompt_tokens", labels, tokens, 400.0 * done)
        + _histogram("vllm:request_generation_tokens", labels, tokens, 120.0 * done)
        + "process_start_time_seconds 500.0\n"
    }


def _sglang(running: int, queue: int, usage: float, done: int) -> Turn:
    labels = 'engine_type="unified",model_name="tiny",tp_rank="0"'
    values = {
        "sglang:num_running_reqs": running,
        "sglang:num_queue_reqs": queue,
        "sglang:token_usage": usage,
        "sglang:max_total_num_tokens": 100_000,
        "sglang:num_requests_total": done,
        "sglang:prompt_tokens_total": 700.0 * done,
        "sglang:generation_tokens_total": 60.0 * done,
        "sglang:cached_tokens_total": 90.0 * done,
        "sglang:num_retracted_requests_total": done // 5,
    }
    seconds = {"0.1": done // 3, "0.5": done - 1, "5.0": done, "+Inf": done}
    return {
        "/metrics": _plain(labels, values)
        + _histogram("sglang:time_to_first_token_seconds", labels, seconds, 0.25 * done)
        + _histogram("sglang:inter_token_latency_seconds", labels, seconds, 0.015 * done)
        + _histogram("sglang:e2e_request_latency_seconds", labels, seconds, 1.5 * done)
    }


def _trtllm(running: int, waiting: int, usage: float, done: int) -> Turn:
    labels = 'engine_type="trtllm",model_name="tiny"'
    values = {
        "trtllm_num_requests_running": running,
        "trtllm_num_requests_waiting": waiting,
        "trtllm_kv_cache_utilization": usage,
        "trtllm_kv_cache_max_blocks": 2000,
        "trtllm_kv_cache_tokens_per_block": 32,
        "trtllm_prompt_tokens_total": 900.0 * done,
        "trtllm_generation_tokens_total": 90.0 * done,
        "trtllm_prompt_cached_tokens_total": 50.0 * done,
        "trtllm_request_success_total": done,
    }
    seconds = {"0.1": done // 3, "0.5": done - 1, "5.0": done, "+Inf": done}
    iteration = (
        f'[{{"iter": {done}, "numActiveRequests": {running}, "numCompletedRequests": 1, "numQueuedRequests": {waiting},'
        ' "kvCacheStats": {"maxNumBlocks": 2000, "usedNumBlocks": 700, "tokensPerBlock": 32}}]'
    )
    return {
        "/prometheus/metrics": _plain(labels, values)
        + _histogram("trtllm_time_to_first_token_seconds", labels, seconds, 0.25 * done)
        + _histogram("trtllm_time_per_output_token_seconds", labels, seconds, 0.015 * done)
        + _histogram("trtllm_e2e_request_latency_seconds", labels, seconds, 1.5 * done),
        "/metrics": iteration,
    }


def _llamacpp(running: int, deferred: int, held: int, done: int) -> Turn:
    values = {
        "llamacpp:requests_processing": running,
        "llamacpp:requests_deferred": deferred,
        "llamacpp:prompt_tokens_total": 300.0 * done,
        "llamacpp:prompt_tokens_cached_total": 40.0 * done,
        "llamacpp:tokens_predicted_total": 120.0 * done,
        "llamacpp:tokens_predicted_seconds_total": 2.5 * done,
    }
    slot = '{"id": 0, "n_ctx": 4096, "is_processing": true, "n_prompt_tokens": %d, "next_token": [{"n_decoded": 5}]}'
    return {"/metrics": _plain("", values), "/slots": "[" + slot % held + "]"}


PAGES: dict[str, tuple[Turn, Turn]] = {
    "vllm": (_vllm(3, 1, 0.2, 10), _vllm(9, 6, 0.7, 42)),
    "sglang": (_sglang(3, 1, 0.2, 10), _sglang(9, 6, 0.7, 42)),
    "trtllm": (_trtllm(3, 1, 0.2, 10), _trtllm(9, 6, 0.7, 42)),
    "llamacpp": (_llamacpp(1, 0, 500, 10), _llamacpp(1, 3, 2900, 42)),
}
