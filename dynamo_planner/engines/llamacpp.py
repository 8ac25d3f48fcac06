"""llama.cpp: its metrics (names as of build 11549: ``/metrics``, and the slots at ``/slots``) and its knobs.

- It counts tokens and not requests, when a request leaves its slot, so that neither arrivals nor lengths of requests
  are known: count them at a frontend.
- The gauges ``prompt_tokens_seconds``, ``predicted_tokens_seconds`` and ``n_busy_slots_per_decode`` are over the time
  since they were last read by anyone, and are not used.
- ``prompt_tokens_total`` excludes prompt tokens from the cache.
- There is no metric of the KV cache. Each slot reports how many tokens it holds (``n_prompt_tokens``, with the
  generated ones) and may hold (``n_ctx``). What an idle slot holds is cache, which gives way.
- Started without ``--parallel``, four slots share one cache, and each may hold all of it: ``n_ctx`` is the size of the
  cache (since the end of 2025, change 16736). With ``--parallel N`` and no ``--kv-unified`` each slot has its own, and
  the size is their sum. No page tells which it is: ``llamacpp`` is the former, ``llamacpp_split`` the latter. Slots
  that hold more together, with what idle ones keep, than one may hold do not share.
"""

from __future__ import annotations

from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.knob import Knob
from dynamo_planner.engines.standard_knobs import EVERY_ROLE, MICRO, batched_tokens_knob, sequences_knob
from dynamo_planner.engines.vocabulary import NOT_OF_WORKERS, Counter, Gauge, Mean, Ratio, Vocabulary

TOKENS = "llamacpp:tokens_predicted_total"
SECONDS = "llamacpp:tokens_predicted_seconds_total"
FROM_CACHE = "llamacpp:prompt_tokens_cached_total"
COMPUTED = "llamacpp:prompt_tokens_total"
SEPARATE = "its slots do not share one KV cache, so name the engine llamacpp_split"
SHARED_SIZE = Gauge(names="/slots:n_ctx", across="mean", holds="/slots:n_prompt_tokens", too_much=SEPARATE)
SUM_OF_SIZES = Gauge(names="/slots:n_ctx")
HELD = Gauge(names="/slots:n_prompt_tokens", where={"is_processing": "true"})

OF_NO_KNOWN_NUMBER = (
    "llamacpp:prompt_seconds_total and llamacpp:tokens_predicted_seconds_total are of no known number of requests"
)

LLAMACPP = Vocabulary(
    engine="llama.cpp",
    quantities={
        "running": (Gauge(names="llamacpp:requests_processing"),),
        "waiting": (Gauge(names="llamacpp:requests_deferred"),),
        "kv_usage": (
            Ratio(
                part=HELD,
                whole=SHARED_SIZE,
                above_one=SEPARATE,
            ),
        ),
        "kv_capacity_tokens": (SHARED_SIZE,),
        "prefix_hits": (Counter(names=FROM_CACHE),),
        "prefix_queries": (Counter(names=COMPUTED, plus=(FROM_CACHE,)),),
        "itl_ms": (Mean(total=Counter(names=SECONDS), count=Counter(names=TOKENS), scale=1000),),
    },
    cannot_tell={
        "awake": "llama.cpp has no metric of a model that is unloaded",
        "aborts": "llama.cpp counts tokens (llamacpp:tokens_predicted_total) and no requests: ask a frontend",
        "first_tokens": "llama.cpp counts tokens (llamacpp:tokens_predicted_total) and no requests: ask a frontend",
        "arrivals": "llama.cpp counts tokens (llamacpp:tokens_predicted_total) and no requests: ask a frontend",
        "completions": "llama.cpp counts tokens (llamacpp:tokens_predicted_total) and no requests: ask a frontend",
        "inside": "llama.cpp reports running and waiting requests separately (llamacpp:requests_processing, "
        "llamacpp:requests_deferred)",
        "waiting_tokens": "llama.cpp counts the requests that wait (llamacpp:requests_deferred) and not their tokens",
        **NOT_OF_WORKERS,
        "rejections": "llama.cpp refuses no request (llamacpp:requests_deferred has no limit)",
        "preemptions": "llama.cpp preempts no request",
        "prefix_hit_rate": "llama.cpp reports tokens instead (llamacpp:prompt_tokens_cached_total)",
        "ttft_ms": "llama.cpp has no metric of it (llamacpp:prompt_seconds_total is without the time in the queue, "
        "and of no known number of requests)",
        "token_gap_ms": f"llama.cpp has the mean of all tokens alone ({SECONDS})",
        "isl": "llama.cpp counts prompt tokens (llamacpp:prompt_tokens_total) and no requests",
        "osl": "llama.cpp counts generated tokens (llamacpp:tokens_predicted_total) and no requests",
        "request_duration_s": f"llama.cpp has no metric of it ({OF_NO_KNOWN_NUMBER})",
        "queue_ms": "llama.cpp has no metric of it (llamacpp:requests_deferred is the queue's length)",
        "prefill_ms": f"llama.cpp counts seconds and no requests ({OF_NO_KNOWN_NUMBER})",
        "transfer_ms": "llama.cpp transfers no KV cache between servers",
        "first_token_ms": "llama.cpp computes prompts where it generates tokens",
        "decode_ms": f"llama.cpp counts seconds and no requests ({OF_NO_KNOWN_NUMBER})",
    },
    prefixes=("llamacpp:",),
    pages=("/metrics", "/slots"),
    model_parameter="model",
    start_with="--metrics",
    switches={"kv_usage": "--slots", "kv_capacity_tokens": "--slots"},
)

LLAMACPP_SPLIT = LLAMACPP.replace(
    quantities=FrozenMap(
        {
            **LLAMACPP.quantities,
            "kv_usage": (Ratio(part=HELD, whole=SUM_OF_SIZES),),
            "kv_capacity_tokens": (SUM_OF_SIZES,),
        }
    )
)

ENGINE = EngineSpec(
    workers=LLAMACPP,
    setups={"llamacpp_split": LLAMACPP_SPLIT},
    knobs=(  # of ``llama-server``: a logical batch is computed in micro-batches; each slot is a sequence
        batched_tokens_knob("n_batch", "--batch-size", minimum=32, maximum=16_384, at_least=MICRO),
        Knob(
            name=MICRO,
            own_name="n_ubatch",
            argument="--ubatch-size",
            roles=EVERY_ROLE,
            minimum=32,
            maximum=16_384,
            trades="the speed of prompts for memory",
        ),
        sequences_knob("n_parallel", "--parallel", maximum=256),
    ),
)
