"""The heap of requests on their way to a pool, by the time at which they are there; written like
:mod:`~dynamo_planner.simulator.engine.scheduler`."""

from __future__ import annotations

from dynamo_planner.simulator.state import World


def push_transfer(w: World, request: int, at_s: float) -> None:
    """Send a request on its way."""
    c = w.cluster[0]
    place = c.transferring
    c.transferring += 1
    while place > 0:
        parent = (place - 1) >> 1
        if w.transfer_s[parent] <= at_s:
            break
        w.transfers[place] = w.transfers[parent]
        w.transfer_s[place] = w.transfer_s[parent]
        place = parent
    w.transfers[place] = request
    w.transfer_s[place] = at_s


def pop_transfer(w: World) -> int:
    """The request that is there first, taken out."""
    c = w.cluster[0]
    first = w.transfers[0]
    c.transferring -= 1
    size = c.transferring
    request, at_s = w.transfers[size], w.transfer_s[size]
    place, child = 0, 1
    while child < size:
        if child + 1 < size and w.transfer_s[child + 1] < w.transfer_s[child]:
            child += 1
        if at_s <= w.transfer_s[child]:
            break
        w.transfers[place] = w.transfers[child]
        w.transfer_s[place] = w.transfer_s[child]
        place = child
        child = 2 * place + 1
    w.transfers[place] = request
    w.transfer_s[place] = at_s
    return first
