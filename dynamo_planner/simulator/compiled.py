"""The rules of serving, compiled by numba (extra ``fast``): thirty times as fast, with the same results.

What was compiled is kept on disk by numba, beside this file or where ``NUMBA_CACHE_DIR`` says, until any of the rules
changes.
"""

from __future__ import annotations

import hashlib
import inspect
import math
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.simulator import cluster_events as serving
from dynamo_planner.simulator import gauges as looking
from dynamo_planner.simulator import routing
from dynamo_planner.simulator import transfer_queue as transfers
from dynamo_planner.simulator.engine import cancellation as leaving
from dynamo_planner.simulator.engine import decode_heap
from dynamo_planner.simulator.engine import event_log as happening
from dynamo_planner.simulator.engine import queue as waiting
from dynamo_planner.simulator.engine import scheduler as batching
from dynamo_planner.simulator.engine import step_runs as runs
from dynamo_planner.simulator.engine import step_time_table as step_table

with needs_extra("fast"):
    import numba
    from numba.extending import overload, register_jitable


RULES = (runs, decode_heap, happening, waiting, leaving, batching, routing, transfers, looking, serving)
"""The modules that are compiled."""

OPTIONS: Any = {"_nrt": False, "error_model": "numpy"}


@cache
def compiled() -> Any:
    """:func:`~dynamo_planner.simulator.cluster_events.perform`, compiled."""
    for function in (function for module in RULES for function in _functions_of(module)):
        if function not in _REPLACED:
            register_jitable(**OPTIONS)(function)
    for helper in (step_table.look_up, step_table._between_prompts):
        register_jitable(**OPTIONS)(helper)
    for function, replacement in _REPLACED.items():
        overload(function, jit_options=OPTIONS)(replacement)
    return numba.njit(cache=True, **OPTIONS)(_entry(_digest()))


def _entry(digest: str) -> Any:
    """The entry, with the digest in its closure, and so in the key of numba's cache."""

    def perform(w: Any, what: int, which: int, to_s: float) -> Any:
        digest  # noqa: B018
        return serving.perform(w, what, which, to_s)

    return perform


def _functions_of(module: ModuleType) -> list[Any]:
    there = [value for value in vars(module).values() if isinstance(value, FunctionType)]
    return [function for function in there if function.__module__ == module.__name__]


def _digest() -> str:
    """What numba's cache does not look at: the sources of all that the entry calls, and of the state."""
    sources = [inspect.getsource(module) for module in (*RULES, step_table)]
    return hashlib.sha256("".join(sources).encode()).hexdigest()


def _line(timing: Any, prefill_tokens: Any, num_decode: Any, kv_tokens: Any) -> Any:
    def from_table(timing: Any, prefill_tokens: Any, num_decode: Any, kv_tokens: Any) -> Any:
        return step_table.look_up(timing, prefill_tokens, num_decode, kv_tokens)

    return from_table


def _lengthen(log: Any) -> Any:
    def full(log: Any) -> Any:
        raise IndexError("the log is full")

    return full


def _soonest(wakes: Any) -> Any:
    def first(wakes: Any) -> Any:
        worker = 0
        soonest_s = math.inf
        for place in range(len(wakes)):
            if wakes[place] < soonest_s:
                soonest_s = wakes[place]
                worker = place
        return worker

    return first


_REPLACED: dict[Any, Any] = {batching.line: _line, happening.lengthen: _lengthen, serving.soonest: _soonest}
"""What is written otherwise for records than for objects."""
