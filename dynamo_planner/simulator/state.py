"""The state of a simulated cluster as plain fields, as Python objects or as rows of numpy records."""

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from dynamo_planner.simulator.engine.event_log import EventLog
from dynamo_planner.simulator.engine.request import NONE, Request
from dynamo_planner.simulator.engine.state import EngineState, EngineView

LATENCY_BUCKETS = 64
"""Latencies are counted in this many buckets."""

FIRST_BUCKET_S = 1e-3
BUCKET_RATIO = 1.25
"""The first bucket goes up to ``FIRST_BUCKET_S``; each further one is wider by this ratio."""


@dataclass(slots=True, eq=False)
class PoolState:
    """A pool of workers behind a router.

    Attributes:
        routing: how the router chooses, as in :mod:`~dynamo_planner.simulator.routing`.
        pulls: whether requests wait in front of the pool until a worker would take them into its next step.
        onward: the pool that comes after it; ``NONE`` by default.
        members: the number of its workers that take requests.
        turn: how many requests were routed in turn.
        head: the first of those that wait in front of it.
        tail: the last of them.
        waiting: their number.
        waiting_tokens: the prompt tokens that those have to compute.
        preemptions: how often a request lost its KV cache in its workers, past and present.
        tokens: the tokens that those have generated.
        token_time_s: how long that took, summed over all tokens.
        busy_s: how long their steps took.
        left: how many requests the pool is done with.
        queue_s: how long those were in the queues of its workers before their first step there.
        prefills: how many of them got their first token there, or had their prompt computed there.
        prefill_s: how long that took from their first step on.
        handed: how many of them came with a prompt that was computed elsewhere.
        transfer_s: how long their KV caches were on the way.
        first_token_s: how long after their prefill elsewhere they got their first token.
        decode_s: how long those that are finished took from their first token on.
    """

    routing: int
    pulls: bool
    onward: int = NONE
    members: int = 0
    turn: int = 0
    head: int = NONE
    tail: int = NONE
    waiting: int = 0
    waiting_tokens: int = 0
    preemptions: int = 0
    tokens: int = 0
    token_time_s: float = 0.0
    busy_s: float = 0.0
    left: int = 0
    queue_s: float = 0.0
    prefills: int = 0
    prefill_s: float = 0.0
    handed: int = 0
    transfer_s: float = 0.0
    first_token_s: float = 0.0
    decode_s: float = 0.0


@dataclass(slots=True, eq=False)
class ClusterState:
    """The clock of a cluster, the next arrival, and what was counted since the start.

    Attributes:
        requests: the number of requests in the trace.
        max_request_tokens: requests that need more KV tokens than this are dropped.
        transfer_s: how long a KV cache takes from prefill to decode.
        transfer_s_per_token: how much longer for each token.
        max_local_prefill: prompts of at most this many tokens are prefilled where they decode; 0 by default.
        now_s: the clock, in seconds of the trace.
        next_arrival: the request that arrives next.
        entry: the pool that requests arrive at.
        transferring: the number of requests on their way to a pool.
        released: the draining worker that has just become empty, or ``NONE``.
        dropped: requests that were dropped.
        first_tokens: requests that have their first token.
        ttft_s: the sum of their TTFT; ``ttft_s2``, as all names that end in 2, is the sum of squares.
        finished: requests that are finished.
        osl: the sum of their tokens.
        duration_s: the sum of the times from their arrival to their last token.
        itls: how many of them have an ITL, that is, more than one token.
        itl_s: the sum of those.
        prompt_tokens: the prompt tokens that were routed.
        hit_tokens: how many of them were in the prefix cache.
        target_ttft_s: the target for TTFT; infinite by default.
        target_itl_s: the target for ITL; infinite by default.
        in_time: how many of the finished requests met both.
    """

    requests: int
    max_request_tokens: int
    transfer_s: float = 0.0
    transfer_s_per_token: float = 0.0
    max_local_prefill: int = 0
    now_s: float = 0.0
    next_arrival: int = 0
    entry: int = 0
    transferring: int = 0
    released: int = NONE
    dropped: int = 0
    first_tokens: int = 0
    ttft_s: float = 0.0
    ttft_s2: float = 0.0
    finished: int = 0
    osl: float = 0.0
    osl2: float = 0.0
    duration_s: float = 0.0
    duration_s2: float = 0.0
    itls: int = 0
    itl_s: float = 0.0
    itl_s2: float = 0.0
    prompt_tokens: float = 0.0
    hit_tokens: float = 0.0
    target_ttft_s: float = math.inf
    target_itl_s: float = math.inf
    in_time: int = 0


class World(NamedTuple):
    """The whole state of a simulation; workers, pools and requests are named by their place.

    Attributes:
        cluster: the state of the cluster, the only entry.
        pools: the state of each pool.
        members: the workers of each pool that take requests.
        engines: the state of each worker's engine.
        decode_heaps: the heap of each engine.
        next_event_s: the time of each worker's next event.
        timings: the timing of each pool.
        requests: all requests of the trace.
        transfers: the heap of requests on their way to a pool.
        transfer_s: when each of them is there.
        ttft_counts: first tokens by bucket of TTFT.
        itl_counts: finished requests by bucket of ITL.
        log: what the rules have noted.
    """

    cluster: Sequence[ClusterState]
    pools: Sequence[PoolState]
    members: Sequence[MutableSequence[int]]
    engines: Sequence[EngineState]
    decode_heaps: Sequence[MutableSequence[int]]
    next_event_s: MutableSequence[float]
    timings: Any
    requests: Sequence[Request]
    transfers: MutableSequence[int]
    transfer_s: MutableSequence[float]
    ttft_counts: MutableSequence[int]
    itl_counts: MutableSequence[int]
    log: EventLog


def engine_view(w: World, worker: int) -> EngineView:
    """The engine of a worker."""
    e = w.engines[worker]
    return EngineView(e, w.requests, w.decode_heaps[worker], w.timings[e.pool], w.log)
