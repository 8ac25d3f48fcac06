"""Saturation: replicas by what a full pool does, whatever the model says of it.

A pool is saturated where its KV cache is full and requests wait or are preempted, or where a queue grows. What it then
shows needs no profile: the requests that a replica holds when full, and the rate at which it completes them::

    g        = (N - N_before) / span                      requests that come beyond those that leave, per second
    x        = (rate - g) / ready                         completions per second and replica
    hold     = ready (N + g lead_s) / running             all that are there, and come until a start is ready, at once
    keep up  = (rate + queued / CLEAR_S) / x              as many as come, and what waits in a minute

======  ===========================================================================================================
N       requests in the pool, running and queued; before: at the start of the window that ``rate`` is the mean of
``x``   is little while requests that stay for long are still young, which is why the smaller of both counts, where
        the KV cache is full; elsewhere replicas could hold more than they do, and only ``keep up`` counts
======  ===========================================================================================================

One replica with 230 running and 80 queued, to which 8 requests/s come and in which 16 were 30 s ago: ``g = 9.8``, more
than come, so nothing leaves and only ``hold`` counts. With a start of 90 s that is ``(310 + 90 * 8) / 230 = 4.5``, for
no more than come can stay: 5 replicas.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from itertools import pairwise
from typing import NamedTuple

from dynamo_planner.core.snapshot import PoolStatus
from dynamo_planner.policies.sla.tick import Tick

FULL_KV_USAGE = 0.95
"""A KV cache with this share in use is full."""

CLEAR_S = 60.0
"""Seconds within which what waits is to be gone."""

GROWTH_Z = 3.0
"""Standard deviations of arrivals by which a pool has to have filled, so that a queue counts as growing."""

MAX_RISE = 8.0
"""At most this many times the ready replicas are asked for at once."""

BUSY_QUEUE = 2.0
"""Fewer requests than this waiting for each replica at either end of a window are no backlog."""

MAX_KV_USAGE = 0.9
"""Nothing is learned of engines with more of their KV cache in use."""

MAX_CROWDS = 24
"""Counts of requests that are kept."""


class Crowd(NamedTuple):
    """The requests in a pool of this many ready replicas at a time, in Unix seconds; ``queued`` of them wait."""

    at_s: float
    ready: int
    requests: float
    queued: float


class Saturated(NamedTuple):
    """The replicas that a saturated pool needs by what it shows, and why."""

    replicas: int
    message: str


class Backlog(NamedTuple):
    """The speed of a pool that has a backlog.

    Args:
        completed_per_s: Completions per second and replica.
        busy_up_to_per_s: Replicas that complete at most this many per second each were never idle.
    """

    completed_per_s: float
    busy_up_to_per_s: float


def part_that_comes(rate: float, queued: float) -> float:
    """The part of the replicas of a saturated pool that serve what comes. The others are for what waits, which would
    not wait, had they been there: with 20 requests/s and 600 waiting, ``20 / (20 + 600 / 60) = 2 / 3``."""
    return rate / (rate + queued / CLEAR_S) if rate else 1.0


def crowd_of(tick: Tick, queued: float | None) -> Crowd | None:
    """The requests in a pool; ``None`` where they are unknown."""
    pool = tick.pool
    if pool.running is None or queued is None:
        return None
    running = pool.running / (pool.reporting or 1.0)
    return Crowd(tick.snapshot.at_s, tick.replicas.ready, running + queued, queued)


def with_crowd(crowds: tuple[Crowd, ...], new: Crowd | None, window_s: float) -> tuple[Crowd, ...]:
    """The counts with one more, and without those that are older than the window needs."""
    if new is None:
        return ()
    apart_s = window_s / MAX_CROWDS * 2
    kept = [crowd for crowd in crowds if new.at_s - crowd.at_s <= 2 * window_s or crowd is crowds[-1]]
    if len(kept) > 1 and kept[-1].at_s - kept[-2].at_s < apart_s:
        kept.pop()
    return (*kept[-MAX_CROWDS:], new)


def backlog_of(tick: Tick, crowds: tuple[Crowd, ...], now: Crowd | None, window_s: float) -> Backlog | None:
    """What a pool with a backlog for all of the window shows of its speed; ``None`` where it has none, or has other
    replicas than then.

    A queue of ``q`` that is looked at again after ``gap`` seconds cannot have been gone in between if ``ready``
    replicas complete at most ``x`` each::

        ready x gap <= q + rate gap

    Two replicas, 100 that wait, and 8 requests/s for 30 s: up to ``(100 / 30 + 8) / 2 = 5.67`` each per second. Of a
    queue of 5 and one of 2 ten minutes later, with 12 requests/s at one replica, that is 12: one that completes 23
    was idle in between.
    """
    rate = tick.snapshot.traffic.requests_per_s
    if now is None or rate is None or not now.ready or now.queued < BUSY_QUEUE * now.ready:
        return None
    then = _at_start(crowds, now, window_s)
    if then is None or then.ready != now.ready or then.queued < BUSY_QUEUE * now.ready:
        return None
    rate *= tick.share
    left = rate * (now.at_s - then.at_s) + then.requests - now.requests
    since = [*[crowd for crowd in crowds if then.at_s <= crowd.at_s < now.at_s], now]
    lasts = min([crowd.queued / (later.at_s - crowd.at_s) for crowd, later in pairwise(since)])
    return Backlog(max(left, 0.0) / (now.at_s - then.at_s) / now.ready, (lasts + rate) / now.ready)


def _at_start(crowds: tuple[Crowd, ...], now: Crowd, window_s: float) -> Crowd | None:
    """The count at about the start of the window; of two that are as near, the earlier one."""
    earlier = bisect_left(crowds, (now.at_s,))
    if not earlier:
        return None
    start_s = now.at_s - window_s
    place = bisect_left(crowds, (start_s,), 0, earlier)
    near = crowds[max(place - 1, 0) : min(place + 1, earlier)]
    return min(near, key=lambda crowd: abs(start_s - crowd.at_s))


def next_pools(tick: Tick) -> tuple[PoolStatus, ...]:
    """The pools that requests pass before their first token, after this one."""
    return tuple(tick.snapshot.with_role("decode").values()) if tick.pool.spec.role == "prefill" else ()


def is_overloaded(pool: PoolStatus) -> bool:
    """Whether latencies at a pool are those of an overload."""
    ready = pool.replicas.ready if pool.replicas else 0
    return (pool.kv_usage or 0.0) > MAX_KV_USAGE or (pool.queued or 0.0) > ready


def saturated(tick: Tick, crowds: tuple[Crowd, ...], now: Crowd | None, window_s: float) -> Saturated | None:
    """What a saturated pool needs; ``None`` where it is none, or where that does not show."""
    traffic, ready = tick.snapshot.traffic, tick.replicas.ready
    if now is None or not ready or traffic.requests_per_s is None:
        return None
    full = (tick.pool.kv_usage or 0.0) >= FULL_KV_USAGE and (now.queued > 0 or bool(traffic.preemptions_per_s))
    if not full and now.queued <= ready:
        return None
    then = _at_start(crowds, now, window_s)
    if then is None or then.ready != ready:
        return None
    rate = tick.share * traffic.requests_per_s
    span_s = now.at_s - then.at_s
    growth = max(now.requests - then.requests, 0.0) / span_s
    waits = min(now.queued, then.queued) > ready and growth * span_s > GROWTH_Z * math.sqrt(rate * span_s)
    if not full and not waits:
        return None
    running, leaves = now.requests - now.queued, max(rate - growth, 0.0) / ready
    keep_up = (rate + now.queued / CLEAR_S) / leaves if leaves else math.inf
    hold = math.inf
    if full and running:
        hold = ready * (now.requests + min(growth, rate) * tick.lead_s) / running
    replicas = min(hold, keep_up, MAX_RISE * ready)
    if not math.isfinite(min(hold, keep_up)) or replicas <= ready:
        return None
    what = f"KV usage is {tick.pool.kv_usage:.0%}" if full else "the queue grows"
    message = f"{what}, with {now.queued:.0f} of {now.requests:.0f} requests waiting, {growth:.2g} more each second"
    return Saturated(math.ceil(replicas), message)
