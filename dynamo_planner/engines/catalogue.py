"""The knobs of each engine, under one name each: vLLM's, or Dynamo's for its router.

>>> for engine in ENGINES:
...     for knob in catalogue(engine).values():
...         print(f"{engine:8} {knob.name:24} {knob.own_name}")
vllm     max_num_batched_tokens   max_num_batched_tokens
vllm     max_num_seqs             max_num_seqs
sglang   max_num_batched_tokens   chunked_prefill_size
sglang   max_num_seqs             max_running_requests
trtllm   max_num_batched_tokens   max_num_tokens
trtllm   max_num_seqs             max_batch_size
llamacpp max_num_batched_tokens   n_batch
llamacpp max_num_ubatch_tokens    n_ubatch
llamacpp max_num_seqs             n_parallel
dynamo   max_local_prefill_length max_local_prefill_length
dynamo   max_prefill_queue_size   max_prefill_queue_size
dynamo   eff_isl_threshold        eff_isl_threshold
dynamo   eff_isl_ratio_threshold  eff_isl_ratio_threshold

No engine changes the first three while it runs (SGLang's ``/set_internal_state`` does not take them), so a change
restarts the workers. Dynamo's router of 0.1 to 0.9 watches its two in etcd; that of 1.x reads its two when it starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.knob import Catalogue, Knob

CHUNK, SEQUENCES, MICRO = "max_num_batched_tokens", "max_num_seqs", "max_num_ubatch_tokens"
LOCAL_PREFILL, PREFILL_QUEUE = "max_local_prefill_length", "max_prefill_queue_size"
EFFECTIVE_ISL, EFFECTIVE_RATIO = "eff_isl_threshold", "eff_isl_ratio_threshold"

_EVERY_ROLE: tuple[Role, ...] = get_args(Role)


def _chunk(own_name: str, argument: str, **more: Any) -> Knob:
    trades = "the TTFT of long prompts, and throughput, for the longest gap between tokens"
    limits = {"minimum": 64, "maximum": 131_072, "step": 1, **more}
    return Knob(name=CHUNK, own_name=own_name, argument=argument, roles=_EVERY_ROLE, trades=trades, **limits)


def _sequences(own_name: str, argument: str, **more: Any) -> Knob:
    trades = "waiting for a place in the batch for ITL and KV cache"
    limits = {"minimum": 1, "maximum": 4096, **more}
    return Knob(name=SEQUENCES, own_name=own_name, argument=argument, roles=_EVERY_ROLE, trades=trades, **limits)


_CONDITION = "queueing for a prefill worker and the transfer of its KV cache for the ITL of the decode workers"

ENGINES: FrozenMap[str, tuple[Knob, ...]] = FrozenMap(
    {
        # vLLM 0.11 and later (``vllm serve``): the budget of a step must have a token for each sequence.
        "vllm": (
            _chunk("max_num_batched_tokens", "--max-num-batched-tokens", at_least=SEQUENCES),
            _sequences("max_num_seqs", "--max-num-seqs"),
        ),
        # SGLang 0.5 (``sglang.launch_server``).
        "sglang": (
            _chunk("chunked_prefill_size", "--chunked-prefill-size"),
            _sequences("max_running_requests", "--max-running-requests"),
        ),
        # TensorRT-LLM 1.0 (``trtllm-serve``).
        "trtllm": (
            _chunk("max_num_tokens", "--max_num_tokens", at_least=SEQUENCES),
            _sequences("max_batch_size", "--max_batch_size"),
        ),
        # llama.cpp (``llama-server``): a logical batch is computed in micro-batches; each slot is a sequence.
        "llamacpp": (
            _chunk("n_batch", "--batch-size", minimum=32, maximum=16_384, at_least=MICRO),
            Knob(
                name=MICRO,
                own_name="n_ubatch",
                argument="--ubatch-size",
                roles=_EVERY_ROLE,
                minimum=32,
                maximum=16_384,
                trades="the speed of prompts for memory",
            ),
            _sequences("n_parallel", "--parallel", maximum=256),
        ),
        # Dynamo's disaggregated router (0.1 to 0.9, keys in etcd), and conditional disaggregation in 1.6.1.
        "dynamo": (
            Knob(
                name=LOCAL_PREFILL,
                own_name=LOCAL_PREFILL,
                minimum=0,
                maximum=131_072,
                applied="router",
                trades=_CONDITION,
            ),
            Knob(
                name=PREFILL_QUEUE,
                own_name=PREFILL_QUEUE,
                minimum=0,
                maximum=1024,
                notch=1,
                applied="router",
                trades=_CONDITION,
            ),
            Knob(
                name=EFFECTIVE_ISL,
                own_name=EFFECTIVE_ISL,
                variable="DYN_ROUTER_CONDITIONAL_DISAGG_EFF_ISL_THRESHOLD",
                minimum=0,
                maximum=131_072,
                trades=_CONDITION,
            ),
            Knob(
                name=EFFECTIVE_RATIO,
                own_name=EFFECTIVE_RATIO,
                variable="DYN_ROUTER_CONDITIONAL_DISAGG_EFF_ISL_RATIO_THRESHOLD",
                minimum=0,
                maximum=1,
                step=0.05,
                notch=1,
                trades=_CONDITION,
            ),
        ),
    }
)
"""Per engine what it has to turn."""


def catalogue(engine: str | None, more: Iterable[Knob] = ()) -> Catalogue:
    """The knobs of an engine (``None``: of none) and those that are added; an added one replaces one of its name.

    Raises ``ValueError`` for an engine that is not known.

    >>> mine = Knob(name="num_speculative_tokens", own_name="num_speculative_tokens", roles=("decode",), notch=1,
    ...             argument="--num-speculative-tokens", minimum=0, maximum=8, trades="compute for ITL")
    >>> list(catalogue("sglang", [mine]))
    ['max_num_batched_tokens', 'max_num_seqs', 'num_speculative_tokens']
    """
    if engine is not None and engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}; the engines with knobs are {', '.join(ENGINES)}")
    own = ENGINES[engine] if engine else ()
    return FrozenMap({knob.name: knob for knob in (*own, *more)})
