"""The queue of an engine, the heap of those that decode, and cancellation.

The queue is chained through the requests. In the heap, the request whose last step comes first stands first. Written
like :mod:`~dynamo_planner.simulator.engine.scheduler`.
"""

from __future__ import annotations

from dynamo_planner.simulator.engine.request import NONE, NOWHERE, Request
from dynamo_planner.simulator.engine.state import EngineState, EngineView
from dynamo_planner.simulator.engine.step_runs import done


def prompt_left(q: Request) -> int:
    """The prompt tokens that a request has to compute; one that was prefilled elsewhere has none."""
    return q.todo if q.todo > 1 else 0


def enqueue(engine: EngineView, request: int) -> None:
    """Put a request at the end of the queue."""
    e, requests = engine.state, engine.requests
    requests[request].next = NONE
    if e.head == NONE:
        e.head = request
    else:
        requests[e.tail].next = request
    e.tail = request
    e.waiting += 1
    e.waiting_tokens += prompt_left(requests[request])


def requeue(engine: EngineView, request: int) -> None:
    """Put a request at the head of the queue."""
    e = engine.state
    engine.requests[request].next = e.head
    if e.head == NONE:
        e.tail = request
    e.head = request
    e.waiting += 1
    e.waiting_tokens += prompt_left(engine.requests[request])


def unqueue(engine: EngineView, request: int) -> None:
    """Take a request out of the queue, wherever it stands there."""
    e, requests = engine.state, engine.requests
    before = NONE
    here = e.head
    while here != request:
        before, here = here, requests[here].next
    after = requests[request].next
    if before == NONE:
        e.head = after
    else:
        requests[before].next = after
    if e.tail == request:
        e.tail = before
    e.waiting -= 1
    e.waiting_tokens -= prompt_left(requests[request])


def push(engine: EngineView, request: int) -> None:
    """Add a request to the heap of those that decode."""
    place = engine.state.decoding
    engine.state.decoding += 1
    _sift_up(engine, place, request)


def _sift_up(engine: EngineView, place: int, request: int) -> None:
    requests, heap = engine.requests, engine.decode_heap
    last_step = requests[request].last_step
    while place > 0:
        parent = (place - 1) >> 1
        if requests[heap[parent]].last_step <= last_step:
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = request


def drop(engine: EngineView, place: int) -> None:
    """Take the entry at a place out of the heap."""
    e, requests, heap = engine.state, engine.requests, engine.decode_heap
    e.decoding -= 1
    size = e.decoding
    moved = heap[size]
    if place == size:
        return
    last_step = requests[moved].last_step
    child = 2 * place + 1
    hole = place
    while child < size:
        if child + 1 < size and requests[heap[child + 1]].last_step < requests[heap[child]].last_step:
            child += 1
        if last_step <= requests[heap[child]].last_step:
            break
        heap[hole] = heap[child]
        hole = child
        child = 2 * hole + 1
    if hole == place:
        _sift_up(engine, place, moved)
    else:
        heap[hole] = moved


def generated(e: EngineState, q: Request, at_s: float) -> int:
    """The tokens that a request has by ``at_s``."""
    if q.last_step == NOWHERE:
        return q.generated
    return q.osl - (q.last_step - e.step - done(e, at_s))


def remove(engine: EngineView, request: int) -> int:
    """Take a request out of the batch between two steps; returns how much of its context had been computed."""
    e, requests, heap = engine.state, engine.requests, engine.decode_heap
    q = requests[request]
    q.generated = generated(e, q, e.now_s)
    held = q.isl + q.generated
    e.kv -= held
    e.running -= 1
    q.admission = NOWHERE
    if q.last_step != NOWHERE:
        e.kv_decoding -= held
        place = 0
        while heap[place] != request:
            place += 1
        drop(engine, place)
        q.last_step = NOWHERE
        return held - 1
    if request == e.partial:
        e.partial = NONE
    else:
        before = NONE
        here = e.completing
        while here != request:
            before, here = here, requests[here].next
        if before == NONE:
            e.completing = q.next
        else:
            requests[before].next = q.next
        if e.last_completing == request:
            e.last_completing = before
    return held - q.todo


def remove_cancelled(engine: EngineView) -> None:
    """Take those that were cancelled while in the batch out of it."""
    e, requests, heap = engine.state, engine.requests, engine.decode_heap
    place = 0
    while place < e.decoding:
        if requests[heap[place]].cancelled:
            remove(engine, heap[place])
            place = 0
        else:
            place += 1
    if e.partial != NONE and requests[e.partial].cancelled:
        remove(engine, e.partial)
    here = e.completing
    while here != NONE:
        following = requests[here].next
        if requests[here].cancelled:
            remove(engine, here)
        here = following
    e.cancelled = 0
