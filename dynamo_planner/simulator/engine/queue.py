"""The queue of an engine, chained through its requests.

Written like :mod:`~dynamo_planner.simulator.engine.scheduler`.
"""

from __future__ import annotations

from dynamo_planner.simulator.engine.decode_heap import Requests
from dynamo_planner.simulator.engine.request import NONE
from dynamo_planner.simulator.state import EngineState


def append(e: EngineState, requests: Requests, request: int) -> None:
    """Put a request at the end of the queue."""
    requests[request].next = NONE
    if e.head == NONE:
        e.head = request
    else:
        requests[e.tail].next = request
    e.tail = request
    e.waiting += 1


def first_again(e: EngineState, requests: Requests, request: int) -> None:
    requests[request].next = e.head
    if e.head == NONE:
        e.tail = request
    e.head = request
    e.waiting += 1


def unqueue(e: EngineState, requests: Requests, request: int) -> None:
    """Take a request out of the queue, wherever it stands there."""
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
