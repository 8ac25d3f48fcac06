"""Gauges of a pool; written like :mod:`~dynamo_planner.simulator.engine.scheduler`."""

from __future__ import annotations

from typing import NamedTuple

from dynamo_planner.simulator.engine.step_runs import done, end_of
from dynamo_planner.simulator.state import World


class PoolGauges(NamedTuple):
    """The gauges of a pool at a moment.

    Attributes:
        in_front: requests that wait in front of the pool.
        in_front_tokens: the prompt tokens that those have to compute.
        queued: requests in the queues of its workers.
        queued_tokens: the prompt tokens that those have to compute.
        running: requests in their batches.
        kv_usage: the mean of their KV usage, 0 to 1.
        kv_usage_max: the highest.
        tokens: tokens that the pool has generated so far while decoding.
        token_time_s: how long that took, summed over all tokens.
        preemptions, left, queue_s, prefills, prefill_s, handed, transfer_s, first_token_s, decode_s: as in
            :class:`~dynamo_planner.simulator.state.PoolState`.
    """

    in_front: int
    in_front_tokens: int
    queued: int
    queued_tokens: int
    running: int
    kv_usage: float
    kv_usage_max: float
    tokens: int
    token_time_s: float
    preemptions: int
    left: int
    queue_s: float
    prefills: int
    prefill_s: float
    handed: int
    transfer_s: float
    first_token_s: float
    decode_s: float


def pool_gauges(w: World, pool: int) -> PoolGauges:
    """The gauges of a pool now."""
    p = w.pools[pool]
    now_s = w.cluster[0].now_s
    queued = 0
    queued_tokens = 0
    running = 0
    usage = 0.0
    usage_max = 0.0
    tokens = p.tokens
    token_time_s = p.token_time_s
    for k in range(p.members):
        e = w.engines[w.members[pool][k]]
        steps = done(e, now_s)
        queued += e.waiting
        queued_tokens += e.waiting_tokens
        running += e.running
        used = (e.kv + e.decoding * (steps if e.steps else -1)) / e.kv_tokens
        usage += used
        usage_max = max(usage_max, used)
        tokens += e.decoding * steps
        if steps:
            token_time_s += e.decoding * (end_of(e, steps) - e.start_s)
    return PoolGauges(
        p.waiting,
        p.waiting_tokens,
        queued,
        queued_tokens,
        running,
        usage / p.members if p.members else 0.0,
        usage_max,
        tokens,
        token_time_s,
        p.preemptions,
        p.left,
        p.queue_s,
        p.prefills,
        p.prefill_s,
        p.handed,
        p.transfer_s,
        p.first_token_s,
        p.decode_s,
    )
