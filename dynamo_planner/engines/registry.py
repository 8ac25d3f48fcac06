"""The vocabularies that are known by name, and telling from a page which one it speaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dynamo_planner.core.values import FrozenMap
from dynamo_planner.engines.dynamo import DYNAMO_FRONTEND, DYNAMO_ROUTER
from dynamo_planner.engines.llamacpp import LLAMACPP
from dynamo_planner.engines.sglang import SGLANG
from dynamo_planner.engines.trtllm import TRTLLM
from dynamo_planner.engines.vllm import VLLM
from dynamo_planner.engines.vocabulary import Vocabulary

ENGINES: Mapping[str, Vocabulary] = FrozenMap({"vllm": VLLM, "sglang": SGLANG, "trtllm": TRTLLM, "llamacpp": LLAMACPP})
"""Those of workers."""

FRONTENDS: Mapping[str, Vocabulary] = FrozenMap({"dynamo_frontend": DYNAMO_FRONTEND, "dynamo_router": DYNAMO_ROUTER})
"""Those of what stands before the workers."""


def detect(names: Iterable[str], among: Iterable[Vocabulary]) -> Vocabulary | None:
    """The first vocabulary that has a metric among the sample names of a page; ``None`` where none has.

    >>> detect(["process_start_time_seconds", "sglang:num_running_reqs"], ENGINES.values()).engine
    'SGLang'
    """
    there = frozenset(names)
    return next((each for each in among if there & each.own_names()), None)
