"""The engines that are known by name: one line each.

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

from dynamo_planner.core.registry import Registry
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.knob import Catalogue, Knob
from dynamo_planner.engines.vocabulary import Vocabulary

ENGINES: Registry[EngineSpec] = Registry(
    "engine",
    EngineSpec,
    "dynamo_planner.engines",
    {
        "vllm": "dynamo_planner.engines.vllm:ENGINE",
        "sglang": "dynamo_planner.engines.sglang:ENGINE",
        "trtllm": "dynamo_planner.engines.trtllm:ENGINE",
        "llamacpp": "dynamo_planner.engines.llamacpp:ENGINE",
        "dynamo": "dynamo_planner.engines.dynamo:ENGINE",
        "llmd": "dynamo_planner.engines.llmd:ENGINE",
        "ray_serve": "dynamo_planner.engines.ray_serve:ENGINE",
        "vllm_router": "dynamo_planner.engines.vllm_router:ENGINE",
    },
)
"""The engines by name, each imported when it is first needed. A page is taken for that of the first one that fits."""


def worker_vocabularies() -> dict[str, Vocabulary]:
    """The vocabularies of workers' metrics, by engine.

    >>> list(worker_vocabularies())
    ['vllm', 'sglang', 'trtllm', 'llamacpp']
    """
    return {name: engine.workers for name, engine in ENGINES.items() if engine.workers is not None}


def setup_vocabularies() -> dict[str, Vocabulary]:
    """The vocabularies of workers that are not detected, by name.

    >>> list(setup_vocabularies())
    ['sglang_loads', 'llamacpp_split']
    """
    return {name: vocabulary for engine in ENGINES.values() for name, vocabulary in engine.setups.items()}


def frontend_vocabularies() -> dict[str, Vocabulary]:
    """The vocabularies of what stands before the workers, by name.

    >>> list(frontend_vocabularies())
    ['dynamo_frontend', 'dynamo_router', 'llmd_picker', 'ray_serve', 'vllm_router']
    """
    return {name: vocabulary for engine in ENGINES.values() for name, vocabulary in engine.frontends.items()}


def detect(names: Iterable[str], among: Iterable[Vocabulary]) -> Vocabulary | None:
    """The first vocabulary that has a metric among the sample names of a page; ``None`` where none has.

    A page of a router that repeats metrics of its workers is not that of a worker.

    >>> detect(["process_start_time_seconds", "sglang:num_running_reqs"], worker_vocabularies().values()).engine
    'SGLang'
    """
    there = frozenset(names)
    return next((each for each in among if there & each.own_names() and there.isdisjoint(each.repeated_by)), None)


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
    own = ENGINES[engine].knobs if engine else ()
    return FrozenMap({knob.name: knob for knob in (*own, *more)})
