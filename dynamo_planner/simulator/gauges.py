"""What a pool shows of itself; written like :mod:`~dynamo_planner.simulator.engine.scheduler`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from dynamo_planner.simulator.engine import step_runs as runs

if TYPE_CHECKING:
    from dynamo_planner.simulator.cluster_events import World


class Seen(NamedTuple):
    """What a pool shows at a moment: ``in_front`` wait in front of it, ``queued`` and ``running`` are in its workers,
    and ``kv_usage`` is their mean. ``tokens`` (and the time that they took) are of all that it has generated so far."""

    in_front: int
    queued: int
    running: int
    kv_usage: float
    tokens: int
    token_time_s: float


def look(w: World, pool: int) -> Seen:
    """What the pool shows now."""
    p = w.pools[pool]
    now_s = w.cluster[0].now_s
    queued = 0
    running = 0
    usage = 0.0
    tokens = p.tokens
    token_time_s = p.token_time_s
    for k in range(p.members):
        e = w.engines[w.members[pool][k]]
        steps = runs.done(e, now_s)
        queued += e.waiting
        running += e.running
        usage += (e.kv + e.decoding * (steps if e.steps else -1)) / e.kv_tokens
        tokens += e.decoding * steps
        if steps:
            token_time_s += e.decoding * (runs.end_of(e, steps) - e.start_s)
    return Seen(p.waiting, queued, running, usage / p.members if p.members else 0.0, tokens, token_time_s)
