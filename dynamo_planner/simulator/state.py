"""The state of an engine as plain fields, and the numpy record type of such a state.

Compiled code works on arrays of records, and everything else on Python objects; both have the same fields.
"""

from __future__ import annotations

import math
from typing import get_type_hints

import numpy as np

from dynamo_planner.simulator.engine.request import NONE


class EngineState:
    """An engine: its limits, its queue, its batch, the run of steps that is planned, and what it has counted.

    ``kv`` are the tokens that the first step of the run (or the next one) holds, of all requests, and ``kv_decoding``
    of those that decode. ``partial`` is a prompt that is cut in chunks, ``completing`` are those that the step
    completes, and ``joining`` those that decode from their first step on and have no token yet. ``tokens`` were
    generated while decoding, which took ``token_time_s`` over all of them; steps took ``busy_s``. In a cluster it is
    number ``number`` of all workers, and ``load`` is what it has to do: prompt tokens, or requests where it decodes.
    """

    __slots__ = (
        "admitted",
        "budget",
        "busy_s",
        "chunk",
        "completing",
        "decoding",
        "draining",
        "end_s",
        "first_step_s",
        "growth_s",
        "head",
        "joining",
        "kv",
        "kv_decoding",
        "kv_tokens",
        "last_completing",
        "last_joining",
        "leaving",
        "load",
        "max_num_batched_tokens",
        "max_num_seqs",
        "now_s",
        "number",
        "partial",
        "pool",
        "preemptions",
        "prefill_only",
        "prefill_tokens",
        "recomputed_tokens",
        "running",
        "slowness",
        "start_s",
        "step",
        "steps",
        "tail",
        "token_time_s",
        "tokens",
        "waiting",
    )

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_tokens: int
    slowness: float
    prefill_only: bool
    now_s: float
    head: int
    tail: int
    waiting: int
    running: int
    decoding: int
    partial: int
    completing: int
    last_completing: int
    joining: int
    last_joining: int
    leaving: int
    admitted: int
    kv: int
    kv_decoding: int
    start_s: float
    end_s: float
    first_step_s: float
    growth_s: float
    steps: int
    step: int
    budget: int
    chunk: int
    prefill_tokens: int
    preemptions: int
    recomputed_tokens: int
    tokens: int
    token_time_s: float
    busy_s: float
    pool: int
    number: int
    load: int
    draining: bool

    def __init__(self, max_num_seqs: int, max_num_batched_tokens: int, kv_tokens: int) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.kv_tokens = kv_tokens
        self.slowness = 1.0
        self.prefill_only = self.draining = False
        self.head = self.tail = self.partial = self.completing = self.last_completing = NONE
        self.joining = self.last_joining = NONE
        self.now_s = self.start_s = self.end_s = -math.inf
        self.first_step_s = self.growth_s = self.token_time_s = self.busy_s = 0.0


class PoolState:
    """A pool of workers behind a router: how it chooses, who waits in front of it, and which pool comes after it.

    ``pulls``: requests wait in front of it until a worker would take them into its next step. Its workers, past and
    present, have generated ``tokens`` in ``token_time_s`` over all of them, and were busy for ``busy_s``.
    """

    __slots__ = (
        "busy_s",
        "head",
        "members",
        "onward",
        "preemptions",
        "pulls",
        "routing",
        "tail",
        "token_time_s",
        "tokens",
        "turn",
        "waiting",
    )

    routing: int
    pulls: bool
    onward: int
    members: int
    turn: int
    head: int
    tail: int
    waiting: int
    preemptions: int
    tokens: int
    token_time_s: float
    busy_s: float

    def __init__(self, routing: int, *, pulls: bool, onward: int) -> None:
        self.routing = routing
        self.pulls = pulls
        self.onward = onward
        self.members = self.turn = self.waiting = self.preemptions = self.tokens = 0
        self.token_time_s = self.busy_s = 0.0
        self.head = self.tail = NONE


class ClusterState:
    """The clock of a cluster, the next arrival (``coming``), and what was counted since the start.

    Names that end in 2 are sums of squares. ``released``: the draining worker that has just become empty.
    """

    __slots__ = (
        "coming",
        "dropped",
        "duration_s",
        "duration_s2",
        "entry",
        "finished",
        "first_tokens",
        "hit_tokens",
        "itl_s",
        "itl_s2",
        "itls",
        "longest",
        "max_local_prefill",
        "now_s",
        "osl",
        "osl2",
        "prompt_tokens",
        "released",
        "requests",
        "transfer_s",
        "transfer_s_per_token",
        "transferring",
        "ttft_s",
        "ttft_s2",
    )

    now_s: float
    requests: int
    coming: int
    entry: int
    longest: int
    max_local_prefill: int
    transfer_s: float
    transfer_s_per_token: float
    transferring: int
    released: int
    dropped: int
    first_tokens: int
    ttft_s: float
    ttft_s2: float
    finished: int
    osl: float
    osl2: float
    duration_s: float
    duration_s2: float
    itls: int
    itl_s: float
    itl_s2: float
    prompt_tokens: float
    hit_tokens: float

    def __init__(self, requests: int) -> None:
        for name, kind in get_type_hints(type(self)).items():
            setattr(self, name, kind(0))
        self.requests = requests
        self.released = NONE


class Log:
    """What the rules have noted and nobody has read yet: ``size[0]`` entries."""

    def __init__(self) -> None:
        self.size = [0]
        self.at_s: list[float] = []
        self.kind: list[int] = []
        self.request: list[int] = []


def record_type(state: type, whole: str = "i8") -> np.dtype[np.void]:
    """The numpy record type with the fields of a state; ``whole`` is that of whole numbers."""
    codes = {float: "f8", int: whole, bool: "b1"}
    return np.dtype([(name, codes[kind]) for name, kind in get_type_hints(state).items()], align=True)
