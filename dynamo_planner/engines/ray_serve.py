"""Ray Serve, and Ray Serve LLM, as a frontend: its metrics (names as of Ray 2.60, and older ones).

- Read for the names: the wheel of 2.60.0, and the page of a Serve application of it whose deployments have the names of
  Ray Serve LLM's and export vLLM's metrics. Ray puts ``ray_`` before every name, writes ``_`` for ``:``
  (``ray_vllm_num_requests_running``; ``ray_vllm:...`` in older ones) and ``_total`` behind a counter (once without).
- Ray has one page a node, with the metrics of all processes on it: proxies, replicas and their engines, apart by
  ``WorkerId``. A worker that is scraped there is a node; through Prometheus ``worker_label: WorkerId`` tells replicas
  apart.
- Values come to the page every ten seconds (``RAY_metrics_report_interval_ms``): windows want a multiple of it.
- ``num_router_requests`` counts requests as they come to a deployment, whether or not they then wait: those of the
  ingress of Ray Serve LLM (``OpenAiIngress``) are the arrivals. Of another application they are the HTTP requests that
  ended and the change of those that go on.
- ``deployment_queued_queries`` are requests that no replica has yet.
- Ray Serve LLM times no tokens: TTFT, ITL and lengths are the engine's.
"""

from __future__ import annotations

from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.vocabulary import STAGES, Counter, Gauge, Histogram, Quantity, Vocabulary


def counted(name: str) -> tuple[str, ...]:
    """The names of a counter, with and without the ending that Ray adds."""
    return (f"ray_serve_{name}_total", f"ray_serve_{name}")


OF_ENGINE = "Ray Serve does not time tokens: the engine does ({})"
OF_WORKERS = "it is the engine's: {}"
COMING: tuple[Quantity, ...] = ("arrivals", "completions", "rejections", "inside", "queued", "request_duration_s")

RAY_SERVE = Vocabulary(
    engine="Ray Serve",
    quantities={
        "inside": (Gauge(names="ray_serve_num_ongoing_http_requests"),),
        "queued": (Gauge(names="ray_serve_deployment_queued_queries"),),
        "arrivals": (Counter(names=counted("num_router_requests"), where={"deployment": "OpenAiIngress"}),),
        "completions": (Counter(names=counted("num_http_requests")),),
        "rejections": (Counter(names=counted("num_http_requests"), where={"status_code": ("429", "503")}, rare=True),),
        "cancellations": (Counter(names=counted("num_http_requests"), where={"status_code": "499"}, rare=True),),
        "request_duration_s": (Histogram(names="ray_serve_http_request_latency_ms", scale=0.001),),
    },
    cannot_tell={
        **dict.fromkeys(STAGES, OF_WORKERS.format("Ray Serve sees requests as a whole")),
        "running": OF_WORKERS.format("ray_vllm_num_requests_running"),
        "waiting": OF_WORKERS.format("ray_vllm_num_requests_waiting"),
        "waiting_tokens": OF_WORKERS.format("ray_vllm_num_requests_waiting counts requests"),
        "queued_tokens": "Ray Serve counts requests (ray_serve_deployment_queued_queries)",
        "prefill_tokens": "Ray Serve counts requests (ray_serve_num_ongoing_http_requests)",
        "token_gap_ms": OF_ENGINE.format("ray_vllm_inter_token_latency_seconds"),
        "kv_usage": OF_WORKERS.format("ray_vllm_kv_cache_usage_perc"),
        "kv_capacity_tokens": OF_WORKERS.format("ray_vllm_cache_config_info"),
        "awake": OF_WORKERS.format("ray_vllm_engine_sleep_state"),
        "aborts": "Ray Serve counts them with all that ended (ray_serve_num_http_requests_total, status_code 499)",
        "first_tokens": OF_ENGINE.format("ray_vllm_time_to_first_token_seconds"),
        "preemptions": OF_WORKERS.format("ray_vllm_num_preemptions_total"),
        "prefix_hits": OF_WORKERS.format("ray_vllm_prefix_cache_hits_total"),
        "prefix_queries": OF_WORKERS.format("ray_vllm_prefix_cache_queries_total"),
        "prefix_hit_rate": OF_WORKERS.format("ray_vllm_prefix_cache_hits_total"),
        "ttft_ms": OF_ENGINE.format("ray_vllm_time_to_first_token_seconds"),
        "itl_ms": OF_ENGINE.format("ray_vllm_request_time_per_output_token_seconds"),
        "isl": OF_ENGINE.format("ray_vllm_request_prompt_tokens"),
        "osl": OF_ENGINE.format("ray_vllm_request_generation_tokens"),
    },
    with_first_request=COMING,
    prefixes=("ray_serve_",),
    known_by=("ray_serve_deployment_replica_healthy", "ray_serve_proxy_status"),
    transient=("WorkerId",),
)

ENGINE = EngineSpec(frontends={"ray_serve": RAY_SERVE})
