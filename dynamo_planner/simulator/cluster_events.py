"""From arrival to last token: how a cluster of engines serves requests, as functions of its state.

Written like :mod:`~dynamo_planner.simulator.engine.scheduler`, to run on Python objects or compiled. Workers and
pools are named by their place. ``wakes`` holds the time of each worker's next event. Whatever passes from one pool to
the next goes through the heap of ``transfers``, also where that takes no time.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence
from typing import Any, NamedTuple

from dynamo_planner.simulator.engine import scheduler as batching
from dynamo_planner.simulator.engine.cancellation import generated
from dynamo_planner.simulator.engine.event_log import FINISHED, FIRST_TOKEN, PREFILLED
from dynamo_planner.simulator.engine.request import NONE, NOWHERE, Request
from dynamo_planner.simulator.gauges import Seen, look
from dynamo_planner.simulator.routing import choose, home
from dynamo_planner.simulator.state import ClusterState, EngineState, Log, PoolState
from dynamo_planner.simulator.transfer_queue import pop_transfer, push_transfer

BUCKETS = 64
BUCKET_RATIO = 1.25
FIRST_BUCKET_S = 1e-3
"""Latencies are counted in buckets that grow by this ratio, the first up to so many seconds."""


class World(NamedTuple):
    """All that there is; ``cluster`` holds a single state."""

    cluster: Sequence[ClusterState]
    pools: Sequence[PoolState]
    members: Sequence[MutableSequence[int]]
    engines: Sequence[EngineState]
    heaps: Sequence[MutableSequence[int]]
    wakes: MutableSequence[float]
    timings: Any
    requests: Sequence[Request]
    transfers: MutableSequence[int]
    transfer_s: MutableSequence[float]
    ttft_counts: MutableSequence[int]
    itl_counts: MutableSequence[int]
    log: Log


def soonest(wakes: Sequence[float]) -> int:
    """The worker whose next event comes first."""
    return min(range(len(wakes)), key=wakes.__getitem__)


def serve(w: World, to_s: float) -> None:
    """Let everything happen up to and at ``to_s``, or only up to the time at which a draining worker is empty."""
    c = w.cluster[0]
    c.released = NONE
    while c.released == NONE:
        worker = soonest(w.wakes)
        at_s = w.wakes[worker]
        transfer_s = w.transfer_s[0] if c.transferring else math.inf
        arrival_s = w.requests[c.coming].arrival_s if c.coming < c.requests else math.inf
        if min(at_s, transfer_s, arrival_s) > to_s:
            c.now_s = to_s
            return
        if at_s <= transfer_s and at_s <= arrival_s:
            c.now_s = at_s
            _run_to(w, worker, at_s)
            settle(w, worker)
            if w.pools[w.engines[worker].pool].pulls:
                dispatch(w, w.engines[worker].pool)
        elif transfer_s <= arrival_s:
            c.now_s = transfer_s
            request = pop_transfer(w)
            route(w, request, w.requests[request].pool)
        else:
            c.now_s = arrival_s
            c.coming += 1
            arrive(w, c.coming - 1)


def arrive(w: World, request: int) -> None:
    """A client sends a request; one that can never fit is dropped."""
    c = w.cluster[0]
    q = w.requests[request]
    if q.isl + q.osl - 1 > c.longest:
        q.cancelled = True
        c.dropped += 1
        return
    entry = c.entry
    if w.pools[entry].onward != NONE and q.isl - q.cached <= c.max_local_prefill:
        entry = w.pools[entry].onward
    route(w, request, entry)


def route(w: World, request: int, pool: int) -> None:
    """Send a request to a worker of a pool, or let it wait in front of it where no worker can take it."""
    p = w.pools[pool]
    q = w.requests[request]
    q.pool = pool
    chosen = NONE if p.pulls and p.waiting else choose(w, request, pool)
    if chosen == NONE:
        q.next = NONE
        if p.head == NONE:
            p.head = request
        else:
            w.requests[p.tail].next = request
        p.tail = request
        p.waiting += 1
        return
    _place(w, request, pool, chosen)


def dispatch(w: World, pool: int) -> None:
    """Send on whoever waits in front of a pool, as long as there are workers to take them."""
    p = w.pools[pool]
    while p.waiting:
        request = p.head
        chosen = choose(w, request, pool)
        if chosen == NONE:
            return
        p.head = w.requests[request].next
        if p.head == NONE:
            p.tail = NONE
        p.waiting -= 1
        _place(w, request, pool, chosen)


def _place(w: World, request: int, pool: int, chosen: int) -> None:
    """Give a request to a worker."""
    c = w.cluster[0]
    worker = w.members[pool][chosen]
    e = w.engines[worker]
    q = w.requests[request]
    if q.todo > 1 and q.generated == 0:
        hit = q.cached if q.cached and home(w, request, pool) == chosen else 0
        q.todo = max(q.isl - hit, 1)
        c.prompt_tokens += q.isl
        c.hit_tokens += hit
    q.cost = q.todo if e.prefill_only else 1
    q.worker = worker
    q.queued_s = c.now_s
    e.load += q.cost
    _run_to(w, worker, c.now_s)
    batching.submit(e, w.requests, w.heaps[worker], w.timings[pool], w.log, request, c.now_s)
    settle(w, worker)


def _run_to(w: World, worker: int, to_s: float) -> None:
    e = w.engines[worker]
    batching.run_to(e, w.requests, w.heaps[worker], w.timings[e.pool], w.log, to_s)


def settle(w: World, worker: int) -> None:
    """Count what has happened in a worker, hand on what it is done with, and note when it will need attention again."""
    c = w.cluster[0]
    e = w.engines[worker]
    for k in range(w.log.size[0]):
        _happened(w, e, w.log.kind[k], w.log.request[k])
    w.wakes[worker] = batching.next_event_s(e, w.requests, w.heaps[worker], w.timings[e.pool], w.log)
    w.log.size[0] = 0
    p = w.pools[e.pool]
    p.tokens += e.tokens
    p.token_time_s += e.token_time_s
    p.busy_s += e.busy_s
    p.preemptions += e.preemptions
    e.tokens = e.preemptions = 0
    e.token_time_s = e.busy_s = 0.0
    if e.draining and e.running == 0 and e.waiting == 0:
        c.released = worker


def _happened(w: World, e: EngineState, kind: int, request: int) -> None:
    c = w.cluster[0]
    q = w.requests[request]
    if kind == FIRST_TOKEN:
        ttft_s = q.first_token_s - q.arrival_s
        c.first_tokens += 1
        c.ttft_s += ttft_s
        c.ttft_s2 += ttft_s * ttft_s
        w.ttft_counts[_bucket(ttft_s)] += 1
    elif kind == FINISHED:
        e.load -= q.cost
        duration_s = q.finished_s - q.arrival_s
        c.finished += 1
        c.osl += q.osl
        c.osl2 += q.osl * q.osl
        c.duration_s += duration_s
        c.duration_s2 += duration_s * duration_s
        if q.osl > 1:
            itl_s = (q.finished_s - q.first_token_s) / (q.osl - 1)
            c.itls += 1
            c.itl_s += itl_s
            c.itl_s2 += itl_s * itl_s
            w.itl_counts[_bucket(itl_s)] += 1
    elif kind == PREFILLED:
        e.load -= q.cost
        q.todo = 1
        q.pool = w.pools[e.pool].onward
        q.prefilled_s = c.now_s
        push_transfer(w, request, c.now_s + c.transfer_s + c.transfer_s_per_token * (q.isl + q.generated))


def _bucket(seconds: float) -> int:
    if seconds <= FIRST_BUCKET_S:
        return 0
    return min(math.ceil(math.log(seconds / FIRST_BUCKET_S) / math.log(BUCKET_RATIO)), BUCKETS - 1)


def withdraw(w: World, worker: int) -> None:
    """The worker is gone: what it had goes back to the entry, with the tokens that the client has already."""
    e = w.engines[worker]
    _run_to(w, worker, w.cluster[0].now_s)
    settle(w, worker)
    while e.head != NONE:
        request = e.head
        e.head = w.requests[request].next
        _return(w, request)
    for k in range(e.decoding):
        request = w.heaps[worker][k]
        w.requests[request].generated = generated(e, w.requests[request], e.now_s)
        _return(w, request)
    if e.partial != NONE:
        _return(w, e.partial)
    while e.completing != NONE:
        request = e.completing
        e.completing = w.requests[request].next
        _return(w, request)
    w.wakes[worker] = math.inf


def _return(w: World, request: int) -> None:
    c = w.cluster[0]
    q = w.requests[request]
    q.last_step = NOWHERE
    q.admission = NOWHERE
    q.todo = q.isl + q.generated
    q.pool = c.entry
    q.retries += 1
    push_transfer(w, request, c.now_s)


def replan(w: World, worker: int) -> None:
    """The limits of a worker have changed: its next step is planned with the new ones."""
    e = w.engines[worker]
    now_s = w.cluster[0].now_s
    _run_to(w, worker, now_s)
    if e.steps:
        batching.cut(e, w.requests, w.heaps[worker], w.log, now_s)
    settle(w, worker)


SERVE, DISPATCH, WITHDRAW, REPLAN = range(4)
"""What can be done to a world."""


def perform(w: World, what: int, which: int, to_s: float) -> tuple[int, Seen, Seen]:
    """Do one of these, with the worker, the pool or the time that it is about; one entry, so that it is compiled once.

    Returns the draining worker that has become empty (or ``NONE``), and what the first and the last pool show then.
    """
    if what == SERVE:
        serve(w, to_s)
    elif what == DISPATCH:
        dispatch(w, which)
    elif what == WITHDRAW:
        withdraw(w, which)
    elif what == REPLAN:
        replan(w, which)
    return w.cluster[0].released, look(w, 0), look(w, len(w.pools) - 1)
