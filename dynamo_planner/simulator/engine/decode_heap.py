"""The heap of the requests that decode in an engine: the one whose last step comes first stands first."""

from __future__ import annotations

from collections.abc import MutableSequence, Sequence

from dynamo_planner.simulator.engine.request import Request
from dynamo_planner.simulator.state import EngineState

Requests = Sequence[Request]
Heap = MutableSequence[int]


def push(e: EngineState, requests: Requests, heap: Heap, request: int) -> None:
    place = e.decoding
    e.decoding += 1
    _sift_up(requests, heap, place, request)


def _sift_up(requests: Requests, heap: Heap, place: int, request: int) -> None:
    last_step = requests[request].last_step
    while place > 0:
        parent = (place - 1) >> 1
        if requests[heap[parent]].last_step <= last_step:
            break
        heap[place] = heap[parent]
        place = parent
    heap[place] = request


def drop(e: EngineState, requests: Requests, heap: Heap, place: int) -> None:
    """Take the entry at a place out of the heap."""
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
        _sift_up(requests, heap, place, moved)
    else:
        heap[hole] = moved
