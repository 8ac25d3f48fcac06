"""Taking requests out of a batch before they are done.

Written like :mod:`~dynamo_planner.simulator.engine.scheduler`.
"""

from __future__ import annotations

from dynamo_planner.simulator.engine.decode_heap import Heap, Requests, drop
from dynamo_planner.simulator.engine.request import NONE, NOWHERE, Request
from dynamo_planner.simulator.engine.step_runs import done
from dynamo_planner.simulator.state import EngineState


def generated(e: EngineState, q: Request, at_s: float) -> int:
    """The tokens that a request has by ``at_s``."""
    if q.last_step == NOWHERE:
        return q.generated
    return q.osl - (q.last_step - e.step - done(e, at_s))


def remove(e: EngineState, requests: Requests, heap: Heap, request: int) -> int:
    """Take a request out of the batch between two steps; returns how much of its context had been computed."""
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
        drop(e, requests, heap, place)
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


def let_leave(e: EngineState, requests: Requests, heap: Heap) -> None:
    """Whoever was cancelled while in the batch leaves it."""
    place = 0
    while place < e.decoding:
        if requests[heap[place]].cancelled:
            remove(e, requests, heap, heap[place])
            place = 0
        else:
            place += 1
    if e.partial != NONE and requests[e.partial].cancelled:
        remove(e, requests, heap, e.partial)
    here = e.completing
    while here != NONE:
        following = requests[here].next
        if requests[here].cancelled:
            remove(e, requests, heap, here)
        here = following
    e.leaving = 0
