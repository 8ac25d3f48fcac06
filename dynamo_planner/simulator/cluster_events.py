"""From arrival to last token: how a cluster of engines serves requests, as functions of its state.

Written like :mod:`~dynamo_planner.simulator.engine.scheduler`, to run on Python objects or compiled. Workers and pools
are named by their place. A request that passes from one pool to the next goes through the heap of ``transfers``, also
where that takes no time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dynamo_planner.simulator.engine import scheduler
from dynamo_planner.simulator.engine.event_log import FINISHED, FIRST_TOKEN, PREFILLED
from dynamo_planner.simulator.engine.queues import generated, prompt_left
from dynamo_planner.simulator.engine.request import NONE, NOWHERE
from dynamo_planner.simulator.engine.state import EngineState, EngineView
from dynamo_planner.simulator.gauges import PoolGauges, pool_gauges
from dynamo_planner.simulator.routing import choose, home
from dynamo_planner.simulator.state import BUCKET_RATIO, FIRST_BUCKET_S, LATENCY_BUCKETS, World, engine_view
from dynamo_planner.simulator.transfer_queue import pop_transfer, push_transfer

LOG_BUCKET_RATIO = math.log(BUCKET_RATIO)


def soonest(next_event_s: Sequence[float]) -> int:
    """The worker whose next event comes first."""
    return min(range(len(next_event_s)), key=next_event_s.__getitem__)


def serve(w: World, to_s: float) -> None:
    """Process all events up to and at ``to_s``, or only up to the time at which a draining worker is empty."""
    c = w.cluster[0]
    c.released = NONE
    while c.released == NONE:
        worker = soonest(w.next_event_s)
        at_s = w.next_event_s[worker]
        transfer_s = w.transfer_s[0] if c.transferring else math.inf
        arrival_s = w.requests[c.next_arrival].arrival_s if c.next_arrival < c.requests else math.inf
        if at_s > to_s and transfer_s > to_s and arrival_s > to_s:
            c.now_s = to_s
            return
        if at_s <= transfer_s and at_s <= arrival_s:
            c.now_s = at_s
            engine = engine_view(w, worker)
            scheduler.run_to(engine, at_s)
            settle(w, worker, engine)
            if w.pools[engine.state.pool].pulls:
                dispatch(w, engine.state.pool)
        elif transfer_s <= arrival_s:
            c.now_s = transfer_s
            request = pop_transfer(w)
            route(w, request, w.requests[request].pool)
        else:
            c.now_s = arrival_s
            c.next_arrival += 1
            arrive(w, c.next_arrival - 1)


def arrive(w: World, request: int) -> None:
    """A client sends a request; one that can never fit is dropped."""
    c = w.cluster[0]
    q = w.requests[request]
    if q.isl + q.osl - 1 > c.max_request_tokens:
        q.cancelled = True
        c.dropped += 1
        return
    entry = c.entry
    local = c.max_local_prefill > 0 and q.isl - q.cached <= c.max_local_prefill
    if local and w.pools[entry].onward != NONE:
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
        p.waiting_tokens += prompt_left(q)
        return
    _place(w, request, pool, chosen)


def dispatch(w: World, pool: int) -> None:
    """Route the requests that wait in front of a pool, as long as there are workers to take them."""
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
        p.waiting_tokens -= prompt_left(w.requests[request])
        _place(w, request, pool, chosen)


def _place(w: World, request: int, pool: int, chosen: int) -> None:
    """Give a request to a worker."""
    c = w.cluster[0]
    worker = w.members[pool][chosen]
    engine = engine_view(w, worker)
    e = engine.state
    q = w.requests[request]
    if q.todo > 1 and q.generated == 0:
        hit = q.cached if q.cached and home(w, request, pool) == chosen else 0
        q.todo = max(q.isl - hit, 1)
        c.prompt_tokens += q.isl
        c.hit_tokens += hit
    q.cost = q.todo if e.prefill_only else 1
    q.worker = worker
    q.queued_s = c.now_s
    q.started_s = math.nan
    e.load += q.cost
    scheduler.run_to(engine, c.now_s)
    scheduler.submit(engine, request, c.now_s)
    settle(w, worker, engine)


def settle(w: World, worker: int, engine: EngineView) -> None:
    """Count the events of a worker, pass on the requests that it is done with, and note the time of its next event."""
    c = w.cluster[0]
    e = engine.state
    for k in range(w.log.size[0]):
        _count_event(w, e, w.log.kind[k], w.log.request[k])
    w.next_event_s[worker] = scheduler.next_event_s(engine)
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


def _count_event(w: World, e: EngineState, kind: int, request: int) -> None:
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
        itl_s = 0.0
        if q.osl > 1:
            itl_s = (q.finished_s - q.first_token_s) / (q.osl - 1)
            c.itls += 1
            c.itl_s += itl_s
            c.itl_s2 += itl_s * itl_s
            w.itl_counts[_bucket(itl_s)] += 1
        _count_stages(w, e, request, q.first_token_s)
        if q.first_token_s - q.arrival_s <= c.target_ttft_s and itl_s <= c.target_itl_s:
            c.in_time += 1
    elif kind == PREFILLED:
        e.load -= q.cost
        q.todo = 1
        q.pool = w.pools[e.pool].onward
        q.prefilled_s = c.now_s
        _count_stages(w, e, request, c.now_s)
        push_transfer(w, request, c.now_s + c.transfer_s + c.transfer_s_per_token * (q.isl + q.generated))


def _count_stages(w: World, e: EngineState, request: int, prefilled_s: float) -> None:
    """Count how long a request was in each stage, now that its pool is done with it.

    One that had its first token before its worker crashed, and began anew, has no prefill.
    """
    c = w.cluster[0]
    p = w.pools[e.pool]
    q = w.requests[request]
    p.left += 1
    p.queue_s += q.started_s - q.queued_s
    if prefilled_s >= q.started_s:
        p.prefills += 1
        p.prefill_s += prefilled_s - q.started_s
    if e.prefill_only:
        return
    p.decode_s += q.finished_s - q.first_token_s
    if q.prefilled_s <= q.queued_s and prefilled_s >= q.started_s:
        p.handed += 1
        p.transfer_s += c.transfer_s + c.transfer_s_per_token * q.isl
        p.first_token_s += prefilled_s - q.prefilled_s


def _bucket(seconds: float) -> int:
    if seconds <= FIRST_BUCKET_S:
        return 0
    return min(math.ceil(math.log(seconds / FIRST_BUCKET_S) / LOG_BUCKET_RATIO), LATENCY_BUCKETS - 1)


def withdraw(w: World, worker: int) -> None:
    """The worker is gone: what it had goes back to the entry, with the tokens that the client has already."""
    engine = engine_view(w, worker)
    e = engine.state
    scheduler.run_to(engine, w.cluster[0].now_s)
    settle(w, worker, engine)
    while e.head != NONE:
        request = e.head
        e.head = w.requests[request].next
        _return(w, request)
    for k in range(e.decoding):
        request = engine.decode_heap[k]
        w.requests[request].generated = generated(e, w.requests[request], e.now_s)
        _return(w, request)
    if e.partial != NONE:
        _return(w, e.partial)
    while e.completing != NONE:
        request = e.completing
        e.completing = w.requests[request].next
        _return(w, request)
    w.next_event_s[worker] = math.inf


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
    engine = engine_view(w, worker)
    now_s = w.cluster[0].now_s
    scheduler.run_to(engine, now_s)
    if engine.state.steps:
        scheduler.cut(engine, now_s)
    settle(w, worker, engine)


SERVE, DISPATCH, WITHDRAW, REPLAN = range(4)
"""The operations on a world."""


def perform(w: World, what: int, which: int, to_s: float) -> tuple[int, PoolGauges, PoolGauges]:
    """Do one of these, with the worker, the pool or the time that it is about; one entry, so that it is compiled once.

    Returns the draining worker that has become empty (or ``NONE``), and the gauges of the first and the last pool.
    """
    if what == SERVE:
        serve(w, to_s)
    elif what == DISPATCH:
        dispatch(w, which)
    elif what == WITHDRAW:
        withdraw(w, which)
    elif what == REPLAN:
        replan(w, which)
    return w.cluster[0].released, pool_gauges(w, 0), pool_gauges(w, len(w.pools) - 1)
