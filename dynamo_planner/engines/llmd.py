"""The endpoint picker of llm-d and of the Gateway API inference extension, as a frontend: its metrics.

- Read for the names: the picker of the Gateway API inference extension (``inference_model_`` in 0.x,
  ``inference_objective_``, ``inference_pool_`` and ``inference_extension_`` since 1.0), and that of llm-d's router
  (``llm_d_router_epp_`` in the first half of 2026, ``llm_d_epp_`` since), which shows the older names as well for a
  while. The newest name on the page is read.
- ``request_total`` counts requests when they are passed on. Without flow control that is when they come. With it
  (``featureGates: [flowControl]``), they wait in a queue before, and leave it by several doors, which
  ``flow_control_request_queue_duration_seconds`` counts by ``outcome``: these and the change of the queue are arrivals.
- Series of flow control go when no one sent requests with their ``fairness_id`` for a while.
- ``request_ttft_seconds`` has answers that are not streamed as well, with ``streaming="false"``: their first token
  comes with their last, and they are not read.
- ``request_streaming_tpot_seconds`` (before ``request_tpot_seconds``) observes one value per request.
- ``inflight_tokens`` (prompt tokens that are not in the cache, and with ``addEstimatedOutputTokens`` what is still to
  come) and the predicted latencies are there with the plugins ``inflight-load-producer`` and
  ``predicted-latency-producer``.
- Metrics want a bearer token by default (``--metrics-endpoint-auth``).
"""

from __future__ import annotations

from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.vocabulary import STAGES, Counter, Gauge, Histogram, Quantity, Vocabulary

PREFIXES = ("llm_d_epp_", "llm_d_router_epp_")
OBJECTIVE, MODEL, EXTENSION = "inference_objective_", "inference_model_", "inference_extension_"

TURNED_AWAY = ("RejectedCapacity", "RejectedNoEndpoints", "RejectedOther", "EvictedTTL", "EvictedNoEndpoints")
"""Outcomes of flow control for requests that no worker got because of the load."""

SHED = ("InferencePoolResourceExhausted", "ResourceExhausted", "ServiceUnavailable")
"""Errors for the same, without flow control."""


def named(name: str, older: str = "", *, prefixes: tuple[str, ...] = (OBJECTIVE, MODEL)) -> tuple[str, ...]:
    """The name with the prefixes of llm-d, and the name that it had before with those and the older ones."""
    before = older or name
    new = tuple(prefix + name for prefix in PREFIXES[:1])
    return (*new, *(prefix + before for prefix in (*PREFIXES[1:], *prefixes)))


def of_flow_control(name: str) -> tuple[str, ...]:
    """The name of a metric of flow control, with the prefixes that it has had."""
    return named(f"flow_control_{name}", prefixes=(EXTENSION,))


LEFT_QUEUE = of_flow_control("request_queue_duration_seconds_count")
QUEUE = Gauge(names=of_flow_control("queue_size"))
PROMPT, CACHED = named("request_input_tokens", "input_tokens"), named("request_cached_tokens", "prompt_cached_tokens")
OF_WORKERS = "it is the workers', not the picker's: {}"
OF_REQUESTS: tuple[Quantity, ...] = ("arrivals", "completions", "prefix_hits", "prefix_queries")
OF_TOKENS: tuple[Quantity, ...] = ("ttft_ms", "itl_ms", "isl", "osl", "request_duration_s")

LLMD_PICKER = Vocabulary(
    engine="llm-d endpoint picker",
    quantities={
        "inside": (QUEUE,),
        "queued": (QUEUE,),
        "arrivals": (Counter(names=named("request_total"), unless=LEFT_QUEUE),),
        "completions": (Counter(names=LEFT_QUEUE),),
        "rejections": (
            Counter(names=LEFT_QUEUE, where={"outcome": TURNED_AWAY}, rare=True),
            Counter(names=named("request_error_total"), where={"error_code": SHED}, rare=True),
        ),
        "prefix_hits": (Counter(names=tuple(f"{name}_sum" for name in CACHED)),),
        "prefix_queries": (Counter(names=tuple(f"{name}_sum" for name in PROMPT)),),
        "ttft_ms": (Histogram(names=named("request_ttft_seconds"), where={"streaming": ("true", "")}, scale=1000),),
        "itl_ms": (Histogram(names=named("request_streaming_tpot_seconds", "request_tpot_seconds"), scale=1000),),
        "isl": (Histogram(names=PROMPT),),
        "osl": (Histogram(names=named("request_output_tokens", "output_tokens")),),
        "request_duration_s": (Histogram(names=named("request_duration_seconds")),),
    },
    cannot_tell={
        **dict.fromkeys(STAGES, OF_WORKERS.format("the picker sees requests as a whole")),
        "running": OF_WORKERS.format("llm_d_epp_average_running_requests is a mean over them"),
        "waiting": OF_WORKERS.format("llm_d_epp_average_queue_size is a mean over them"),
        "waiting_tokens": OF_WORKERS.format("no metric of the picker has them"),
        "queued_tokens": "flow control counts requests and bytes (llm_d_epp_flow_control_queue_size)",
        "prefill_tokens": "llm_d_epp_inflight_tokens may have tokens that are still to come besides",
        "cancellations": "no metric of llm-d counts those that were given up while they ran",
        "token_gap_ms": "the picker observes the mean of a request (llm_d_epp_request_streaming_tpot_seconds)",
        "kv_usage": OF_WORKERS.format("llm_d_epp_average_kv_cache_utilization is a mean over them"),
        "kv_capacity_tokens": OF_WORKERS.format("no metric of the picker has it"),
        "awake": OF_WORKERS.format("llm_d_epp_ready_endpoints counts those that are ready"),
        "aborts": "llm-d counts them with all others that leave its queue (outcome EvictedContextCancelled of "
        "llm_d_epp_flow_control_request_queue_duration_seconds), and those that run not at all",
        "first_tokens": "they are not needed, since the picker counts requests as they come (llm_d_epp_request_total)",
        "preemptions": OF_WORKERS.format("no metric of the picker counts them"),
        "prefix_hit_rate": "the picker reports tokens instead (llm_d_epp_request_cached_tokens)",
    },
    with_first_request=(*OF_REQUESTS, *OF_TOKENS, "inside", "queued", "rejections"),
    prefixes=(*PREFIXES, OBJECTIVE, MODEL, EXTENSION, "inference_pool_"),
    known_by=(
        *named("info", prefixes=(EXTENSION,)),
        *named("ready_endpoints", prefixes=()),
        "inference_pool_ready_pods",
    ),
    transient=("fairness_id",),
    model_label="model_name",
    switches={"queued": "featureGates: [flowControl]"},
)

ENGINE = EngineSpec(frontends={"llmd_picker": LLMD_PICKER})
