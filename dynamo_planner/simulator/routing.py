"""Which worker of a pool takes a request; written like :mod:`~dynamo_planner.simulator.engine.scheduler`."""

from __future__ import annotations

import math

from dynamo_planner.simulator.engine.request import NONE
from dynamo_planner.simulator.engine.state import EngineState
from dynamo_planner.simulator.state import World

LEAST_LOADED, ROUND_ROBIN, HASH = 0, 1, 2
"""How a pool chooses the worker for a request."""


def choose(w: World, request: int, pool: int) -> int:
    """The place among the members of the pool of the worker that takes a request; ``NONE`` where there is none."""
    p = w.pools[pool]
    members = w.members[pool]
    if p.members == 0:
        return NONE
    if p.routing == ROUND_ROBIN and not p.pulls:
        p.turn += 1
        return (p.turn - 1) % p.members
    if p.routing == HASH and not p.pulls:
        return home(w, request, pool)
    chosen = NONE
    least = math.inf
    for k in range(p.members):
        e = w.engines[members[k]]
        if e.load < least and (not p.pulls or _has_room(w, e, request)):
            least = e.load
            chosen = k
    return chosen


def _has_room(w: World, e: EngineState, request: int) -> bool:
    """Whether a request would be in the worker's next step."""
    if e.waiting or e.running >= e.max_num_seqs:
        return False
    if e.prefill_only:
        return e.running == 0 or (e.start_s == w.cluster[0].now_s and e.budget > 0)
    q = w.requests[request]
    return e.kv + q.isl + q.generated <= e.kv_tokens


def home(w: World, request: int, pool: int) -> int:
    """The member with the highest hash of request and worker (rendezvous hashing): few move when members change."""
    best = NONE
    highest = -1
    for k in range(w.pools[pool].members):
        worker = w.engines[w.members[pool][k]].number
        mixed = ((request + 1) * 2654435761 + (worker + 1) * 2246822519) % 4294967296
        mixed = ((mixed ^ (mixed >> 15)) * 2146121005) % 4294967296
        mixed = ((mixed ^ (mixed >> 13)) * 1540483477) % 4294967296
        if mixed > highest:
            highest = mixed
            best = k
    return best
