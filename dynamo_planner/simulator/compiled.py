"""The rules of serving, compiled by numba (extra ``fast``): thirty times as fast, with the same results.

Numba keeps what it compiled on disk, beside this file or where ``NUMBA_CACHE_DIR`` says, until any of the rules
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
from dynamo_planner.simulator import cluster_events, gauges, routing, state, transfer_queue
from dynamo_planner.simulator.engine import event_log, queues, scheduler, step_runs, step_time_table
from dynamo_planner.simulator.engine import state as engine_state

with needs_extra("fast"):
    import numba
    from numba.extending import overload, register_jitable


RULES = (step_runs, event_log, queues, scheduler, state, routing, transfer_queue, gauges, cluster_events)
"""The modules that are compiled."""

OPTIONS: Any = {"_nrt": False, "error_model": "numpy"}


@cache
def compiled() -> Any:
    """:func:`~dynamo_planner.simulator.cluster_events.perform`, compiled."""
    for function in (function for module in RULES for function in _functions_of(module)):
        if function not in _REPLACED:
            inline = "always" if function is state.engine_view else "never"  # a compiled one cannot return a record
            register_jitable(inline=inline, no_cfunc_wrapper=True, **OPTIONS)(function)
    for helper in (step_time_table.look_up, step_time_table._between_prompts):
        register_jitable(**OPTIONS)(helper)
    for function, replacement in _REPLACED.items():
        overload(function, jit_options=OPTIONS)(replacement)
    return numba.njit(cache=True, **OPTIONS)(_entry(_digest()))


def _entry(digest: str) -> Any:
    """The entry, with the digest in its closure, and so in the key of numba's cache."""

    def perform(w: Any, what: int, which: int, to_s: float) -> Any:
        digest  # noqa: B018
        return cluster_events.perform(w, what, which, to_s)

    return perform


def _functions_of(module: ModuleType) -> list[Any]:
    there = [value for value in vars(module).values() if isinstance(value, FunctionType)]
    return [function for function in there if function.__module__ == module.__name__]


def _digest() -> str:
    """The sources of all that the entry calls, which numba's cache does not check."""
    sources = [inspect.getsource(module) for module in (*RULES, engine_state, step_time_table)]
    return hashlib.sha256("".join(sources).encode()).hexdigest()


def _line(timing: Any, prefill_tokens: Any, num_decode: Any, kv_tokens: Any) -> Any:
    def from_table(timing: Any, prefill_tokens: Any, num_decode: Any, kv_tokens: Any) -> Any:
        return step_time_table.look_up(timing, prefill_tokens, num_decode, kv_tokens)

    return from_table


def _lengthen(log: Any) -> Any:
    def full(log: Any) -> Any:
        raise IndexError("the log is full")

    return full


def _soonest(next_event_s: Any) -> Any:
    def first(next_event_s: Any) -> Any:
        worker = 0
        soonest_s = math.inf
        for place in range(len(next_event_s)):
            if next_event_s[place] < soonest_s:
                soonest_s = next_event_s[place]
                worker = place
        return worker

    return first


_REPLACED: dict[Any, Any] = {scheduler.line: _line, event_log.lengthen: _lengthen, cluster_events.soonest: _soonest}
"""Functions that are written differently for records."""
