"""Dynamo: the metrics of its frontend (names as of 1.6, and older ones) and router, and the router's knobs.

- The frontend counts requests as they come (``requests_started_total``) and as they end.
- Its ``queued_requests`` is not what is in no pool yet: it has every request without a first token, also those in a
  worker's own queue. What is before the workers are the stages ``preprocess`` and ``route``.
- Its KV router counts prompt tokens: of requests that wait before the workers, with ``--router-queue-threshold``, and
  of those that each worker was given and has not computed, which several frontends may count alike.
- A client that goes away is a request that ended with ``error_type`` ``cancelled``.
- Up to 0.4.0 its prefix was ``nv_llm_http_service_``, and there were fewer metrics.
- A series with labels appears with its first use.
- The router's metrics are on the page of the frontend that it is in; ``DYNAMO_ROUTER`` is for a router that runs alone.
"""

from __future__ import annotations

from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.knob import Knob
from dynamo_planner.engines.standard_knobs import EFFECTIVE_ISL, EFFECTIVE_RATIO, LOCAL_PREFILL, PREFILL_QUEUE
from dynamo_planner.engines.vocabulary import Counter, Gauge, Histogram, Quantity, Vocabulary

OF_WORKERS = "it is the workers', not the frontend's: {}"


def frontend(*names: str) -> tuple[str, ...]:
    """The names with both prefixes that they have had."""
    return tuple(prefix + name for prefix in ("dynamo_frontend_", "nv_llm_http_service_") for name in names)


def router(*names: str) -> tuple[str, ...]:
    """The names with the router's prefix."""
    return tuple(f"dynamo_component_router_{name}" for name in names)


HIT_RATE = Histogram(names=router("kv_hit_rate"))
OF_REQUESTS: tuple[Quantity, ...] = ("arrivals", "completions", "cancellations", "rejections")
OF_TOKENS: tuple[Quantity, ...] = ("ttft_ms", "itl_ms", "token_gap_ms", "isl", "osl", "request_duration_s")
NOT_OF_A_FRONTEND: dict[Quantity, str] = {
    "running": OF_WORKERS.format("dynamo_frontend_inflight_requests has what waits and what runs"),
    "waiting_tokens": OF_WORKERS.format("dynamo_frontend_worker_active_prefill_tokens is with what is being computed"),
    "waiting": OF_WORKERS.format("dynamo_frontend_queued_requests has what waits in a pool and before it"),
    "kv_usage": OF_WORKERS.format("there is dynamo_frontend_model_total_kv_blocks only"),
    "kv_capacity_tokens": OF_WORKERS.format("dynamo_frontend_model_total_kv_blocks is of one worker"),
    "awake": OF_WORKERS.format("vllm:engine_sleep_state is on their pages"),
    "first_tokens": "they are not needed, since Dynamo counts requests as they come (requests_started_total)",
    "aborts": "those that were given up are among those that ended (dynamo_frontend_requests_total)",
    "preemptions": OF_WORKERS.format("no metric of Dynamo counts them"),
    "queue_ms": OF_WORKERS.format("dynamo_frontend_stage_duration_seconds is of stages before them"),
    "prefill_ms": OF_WORKERS.format("dynamo_frontend_stage_duration_seconds is of stages before them"),
    "transfer_ms": OF_WORKERS.format(
        "dynamo_component_router_kv_transfer_estimated_latency_seconds goes on to the first token"
    ),
    "first_token_ms": OF_WORKERS.format("dynamo_frontend_time_to_first_token_seconds begins with the request"),
    "decode_ms": OF_WORKERS.format("dynamo_frontend_request_duration_seconds begins with the request"),
    "prefix_hits": "Dynamo reports shares (dynamo_component_router_kv_hit_rate)",
    "prefix_queries": "Dynamo reports shares (dynamo_component_router_kv_hit_rate)",
}

DYNAMO_FRONTEND = Vocabulary(
    engine="Dynamo frontend",
    quantities={
        "inside": (Gauge(names=frontend("inflight_requests", "inflight_requests_total")),),
        "queued": (Gauge(names="dynamo_frontend_stage_requests", where={"stage": ("preprocess", "route")}),),
        "queued_tokens": (Gauge(names="dynamo_frontend_router_queue_pending_isl_tokens"),),
        "prefill_tokens": (Gauge(names="dynamo_frontend_worker_active_prefill_tokens"),),
        "arrivals": (Counter(names="dynamo_frontend_requests_started_total"),),
        "completions": (Counter(names=frontend("requests_total")),),
        "cancellations": (
            Counter(names="dynamo_frontend_requests_total", where={"error_type": "cancelled"}, rare=True),
        ),
        "rejections": (Counter(names="dynamo_frontend_requests_total", where={"error_type": "overload"}, rare=True),),
        "prefix_hit_rate": (HIT_RATE,),
        "ttft_ms": (Histogram(names=frontend("time_to_first_token_seconds"), scale=1000),),
        "itl_ms": (Histogram(names=frontend("inter_token_latency_seconds"), scale=1000),),
        "token_gap_ms": (Histogram(names=frontend("inter_token_latency_seconds"), scale=1000),),
        "isl": (Histogram(names=frontend("input_sequence_tokens")),),
        "osl": (Histogram(names=frontend("output_sequence_tokens")),),
        "request_duration_s": (Histogram(names=frontend("request_duration_seconds")),),
    },
    cannot_tell=NOT_OF_A_FRONTEND,
    with_first_request=(*OF_REQUESTS, *OF_TOKENS, "inside", "queued"),
    prefixes=("dynamo_frontend_", "nv_llm_http_service_"),
    known_by=("dynamo_frontend_disconnected_clients", "dynamo_frontend_model_context_length"),
    model_label="model",
)

DYNAMO_ROUTER = Vocabulary(
    engine="Dynamo router",
    quantities={
        "arrivals": (Counter(names=router("requests_started_total")),),
        "completions": (Counter(names=router("requests_total")),),
        "prefix_hit_rate": (HIT_RATE,),
        "ttft_ms": (Histogram(names=router("time_to_first_token_seconds"), scale=1000),),
        "itl_ms": (Histogram(names=router("inter_token_latency_seconds"), scale=1000),),
        "token_gap_ms": (Histogram(names=router("inter_token_latency_seconds"), scale=1000),),
        "isl": (Histogram(names=router("input_sequence_tokens")),),
        "osl": (Histogram(names=router("output_sequence_tokens")),),
    },
    cannot_tell={
        **NOT_OF_A_FRONTEND,
        "inside": "the router has no gauge of them (dynamo_component_router_requests_started_total counts)",
        "queued": "the router has no gauge of them (dynamo_component_router_requests_started_total counts)",
        "queued_tokens": "they are on the page of a frontend (dynamo_frontend_router_queue_pending_isl_tokens)",
        "prefill_tokens": "they are on the page of a frontend (dynamo_frontend_worker_active_prefill_tokens)",
        "cancellations": "the router has no counter of them (dynamo_component_router_requests_total has all)",
        "rejections": "the router has no counter of them (dynamo_component_router_requests_total has all)",
        "request_duration_s": "the router has no metric of it (dynamo_frontend_request_duration_seconds has)",
    },
    with_first_request=(*OF_REQUESTS, *OF_TOKENS),
    prefixes=("dynamo_component_router_",),
    model_label="model",
)

REMOTE_PREFILL = "queueing for a prefill worker and the transfer of its KV cache for the ITL of the decode workers"
"""What it trades to prefill a prompt on another worker."""

ENGINE = EngineSpec(
    frontends={"dynamo_frontend": DYNAMO_FRONTEND, "dynamo_router": DYNAMO_ROUTER},
    knobs=(  # the first two of the router of 0.1 to 0.9, the others of conditional disaggregation in 1.6.1
        Knob(
            name=LOCAL_PREFILL,
            own_name=LOCAL_PREFILL,
            minimum=0,
            maximum=131_072,
            applied="router",
            trades=REMOTE_PREFILL,
        ),
        Knob(
            name=PREFILL_QUEUE,
            own_name=PREFILL_QUEUE,
            minimum=0,
            maximum=1024,
            notch=1,
            applied="router",
            trades=REMOTE_PREFILL,
        ),
        Knob(
            name=EFFECTIVE_ISL,
            own_name=EFFECTIVE_ISL,
            variable="DYN_ROUTER_CONDITIONAL_DISAGG_EFF_ISL_THRESHOLD",
            minimum=0,
            maximum=131_072,
            trades=REMOTE_PREFILL,
        ),
        Knob(
            name=EFFECTIVE_RATIO,
            own_name=EFFECTIVE_RATIO,
            variable="DYN_ROUTER_CONDITIONAL_DISAGG_EFF_ISL_RATIO_THRESHOLD",
            minimum=0,
            maximum=1,
            step=0.05,
            notch=1,
            trades=REMOTE_PREFILL,
        ),
    ),
)
