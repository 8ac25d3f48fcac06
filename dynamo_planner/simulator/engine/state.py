"""The state of an engine as plain fields, and the numpy record type of such a state.

Compiled code works on arrays of records, and everything else on Python objects; both have the same fields.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from dynamo_planner.simulator.engine.event_log import EventLog
from dynamo_planner.simulator.engine.request import NONE, Request


@dataclass(slots=True, eq=False)
class EngineState:
    """An engine: its limits, its queue, its batch, the run of steps that is planned, and what it has counted.

    Attributes:
        max_num_seqs: the most requests in a batch.
        max_num_batched_tokens: the most tokens that a step computes.
        kv_tokens: the tokens that the KV cache holds.
        slowness: how many times as long each step takes; 1 by default.
        prefill_only: whether a request is done here once its prompt is computed.
        now_s: its clock.
        head: the first request of the queue.
        tail: the last request of the queue.
        waiting: the number of requests in the queue.
        waiting_tokens: the prompt tokens that those have to compute.
        running: the number of requests in the batch.
        decoding: how many of those decode.
        partial: the prompt that is cut in chunks.
        completing: the first of the prompts that the step completes.
        last_completing: the last of them.
        joining: the first of those that decode from their first step on and have no token yet.
        last_joining: the last of them.
        cancelled: how many requests in the batch are cancelled and leave it with the step in progress.
        admitted: the admission number given last.
        kv: tokens that the first step of the run (or the next one) holds, of all requests.
        kv_decoding: the same of those that decode.
        start_s: the start of the run.
        end_s: its end.
        first_step_s: the duration of its first step.
        growth_s: how much longer each step takes than the one before.
        steps: the number of steps in the run; 0 where none is planned.
        step: the number of steps before the run.
        budget: what is left of the tokens of the run's first step.
        chunk: the prompt tokens of ``partial`` in each step of the run.
        prefill_tokens: the prompt tokens in each step of the run.
        preemptions: how often a request lost its KV cache.
        recomputed_tokens: how many tokens were lost by that.
        tokens: the tokens generated while decoding.
        token_time_s: how long those took, summed over all of them.
        busy_s: how long steps took.
        pool: its pool, in a cluster.
        number: its number among all workers, in a cluster.
        load: what it has to do, in a cluster: prompt tokens, or requests where it decodes.
        draining: whether it takes no more requests, in a cluster.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: int
    slowness: float = 1.0
    prefill_only: bool = False
    now_s: float = -math.inf
    head: int = NONE
    tail: int = NONE
    waiting: int = 0
    waiting_tokens: int = 0
    running: int = 0
    decoding: int = 0
    partial: int = NONE
    completing: int = NONE
    last_completing: int = NONE
    joining: int = NONE
    last_joining: int = NONE
    cancelled: int = 0
    admitted: int = 0
    kv: int = 0
    kv_decoding: int = 0
    start_s: float = -math.inf
    end_s: float = -math.inf
    first_step_s: float = 0.0
    growth_s: float = 0.0
    steps: int = 0
    step: int = 0
    budget: int = 0
    chunk: int = 0
    prefill_tokens: int = 0
    preemptions: int = 0
    recomputed_tokens: int = 0
    tokens: int = 0
    token_time_s: float = 0.0
    busy_s: float = 0.0
    pool: int = 0
    number: int = 0
    load: int = 0
    draining: bool = False


class EngineView(NamedTuple):
    """One engine as the rules see it: its state, and what they read and write beside it.

    Attributes:
        state: the engine's own fields.
        requests: all requests, named by their place.
        decode_heap: the places of those that decode, the one with the next last step first.
        timing: how long steps take, as a :class:`~dynamo_planner.simulator.engine.step_time.StepTiming`.
        log: where the rules note what happens.
    """

    state: EngineState
    requests: Sequence[Request]
    decode_heap: MutableSequence[int]
    timing: Any
    log: EventLog


def record_type(state: type, whole: str = "i8") -> np.dtype[np.void]:
    """The numpy record type with the fields of a state; ``whole`` is the type of whole numbers."""
    codes = {float: "f8", int: whole, bool: "b1"}
    return np.dtype([(name, codes[kind]) for name, kind in get_type_hints(state).items()], align=True)
