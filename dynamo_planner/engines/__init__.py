"""Inference engines as data: which metrics each reports, which knobs it has, how it must be started.

Which file to open:

- ``vllm``, ``sglang``, ``trtllm``, ``llamacpp``, ``dynamo`` -- one engine each: ``ENGINE``, an ``EngineSpec``.
- ``llmd``, ``ray_serve``, ``vllm_router`` -- what may stand before workers, without workers of its own.
- ``registry`` -- the engines by name, detection of a page's engine, and ``catalogue``, the knobs of an engine.
- ``named`` -- fields of a configuration that take the name of an engine.
- ``vocabulary``, ``metric_kinds`` -- what an engine's metrics are written in: quantities, and metrics that give them.
- ``knob``, ``standard_knobs`` -- what a knob is, its checks, and the names under which policies know knobs.

To add an engine, write one file like ``vllm`` and one line in ``registry``. An engine of another package is named as
``package.module:NAME``, or by an entry point in the group ``dynamo_planner.engines``; and a source takes a
``Vocabulary`` of your own, an executor your own ``Knob`` values.
"""

from dynamo_planner.engines.engine_spec import EngineSpec
from dynamo_planner.engines.knob import Catalogue, Knob, KnobError, check_knobs
from dynamo_planner.engines.registry import ENGINES, catalogue, detect
from dynamo_planner.engines.vocabulary import Vocabulary

__all__ = [
    "ENGINES",
    "Catalogue",
    "EngineSpec",
    "Knob",
    "KnobError",
    "Vocabulary",
    "catalogue",
    "check_knobs",
    "detect",
]
