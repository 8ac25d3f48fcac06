"""How well a service does with its knobs as they are: windows that do not overlap, and how sure their mean is.

The cost of a window is the larger of TTFT and ITL over their targets, so what counts is the target that binds. A
percentile is taken where the source tells one, otherwise the mean. Windows are batches (Law & Kelton's batch means):
the variance between them contains how requests within one depend on each other, which that of the requests does not.

>>> windows = [Window(at_s=30.0 * n, cost=cost, load=4.0, requests=120) for n, cost in enumerate((0.5, 0.6, 0.7))]
>>> seen = measured(windows)
>>> seen.cost, round(seen.error, 3), seen.load, seen.requests
(0.6, 0.058, 4.0, 360.0)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from dynamo_planner.core.snapshot import Dist, Sla, Snapshot
from dynamo_planner.core.values import Frozen

WORST_COST = 5.0
"""Costs are cut off here: how late what is far too late is says little."""

USUAL_WINDOW_S = 30.0


class Window(Frozen):
    """One window: when it ended, its cost, the load of a replica (requests per second, or inside), and its requests."""

    at_s: float
    cost: float
    load: float
    requests: float


class Measured(NamedTuple):
    """The mean cost of some windows, its standard error and their standard deviation, their mean load and all their
    requests."""

    cost: float
    error: float
    spread: float
    load: float
    requests: float


def window_of(snapshot: Snapshot, sla: Sla, ready: int, max_age_s: float) -> Window | None:
    """What a snapshot says of the service, or ``None`` where it is old, or says too little."""
    traffic = snapshot.traffic
    seen = _by_latencies(snapshot, sla) or _by_queues(snapshot, sla)
    times = [pool.observed_at_s for pool in snapshot.pools.values()]
    at_s = traffic.observed_at_s if traffic.ttft_ms else min((time for time in times if time is not None), default=None)
    if seen is None or at_s is None or snapshot.at_s - at_s > max_age_s or not ready:
        return None
    return Window(
        at_s=min(at_s, snapshot.at_s),
        cost=min(max(seen.costs), WORST_COST),
        load=seen.load / ready,
        requests=seen.requests,
    )


class _Seen(NamedTuple):
    """The costs of TTFT and ITL, the load of all replicas, and how many requests that is from."""

    costs: tuple[float, float]
    load: float
    requests: float


def _by_latencies(snapshot: Snapshot, sla: Sla) -> _Seen | None:
    traffic = snapshot.traffic
    if traffic.ttft_ms is None or traffic.itl_ms is None or not traffic.requests_per_s:
        return None
    told = traffic.ttft_ms.count
    requests = traffic.requests_per_s * (traffic.window_s or USUAL_WINDOW_S) if told is None else told
    costs = tail(traffic.ttft_ms) / sla.ttft_ms, tail(traffic.itl_ms) / sla.itl_ms
    return _Seen(costs, traffic.requests_per_s, requests)


def _by_queues(snapshot: Snapshot, sla: Sla) -> _Seen | None:
    """Of engines that tell no TTFT and no arrivals, as llama.cpp does not: a queue as long as what is being served
    stands for a TTFT at its target, since it takes as long as a request does (Little 1961)."""
    if snapshot.traffic.ttft_ms is not None or not snapshot.pools:
        return None
    queued = running = 0.0
    for pool in snapshot.pools.values():
        if pool.queued is None or pool.running is None:
            return None
        queued, running = queued + pool.queued, running + pool.running
    itl = snapshot.traffic.itl_ms
    if not running:
        return None
    costs = queued / running, tail(itl) / sla.itl_ms if itl else 0.0
    return _Seen(costs, queued + running, queued + running)


def tail(dist: Dist) -> float:
    """The highest percentile that is told, or else the mean."""
    return max(dist.quantiles.items())[1] if dist.quantiles else dist.mean


def ttft_binds(snapshot: Snapshot, sla: Sla) -> bool:
    """Whether TTFT is nearer to its target than ITL, or further over it."""
    seen = _by_latencies(snapshot, sla) or _by_queues(snapshot, sla)
    return seen is not None and seen.costs[0] >= seen.costs[1]


def measured(windows: Sequence[Window]) -> Measured:
    """The mean of some windows, two at least."""
    count = len(windows)
    cost = sum(window.cost for window in windows) / count
    spread = math.sqrt(sum((window.cost - cost) ** 2 for window in windows) / (count - 1))
    load = sum(window.load for window in windows) / count
    requests = sum(window.requests for window in windows)
    return Measured(round(cost, 12), spread / math.sqrt(count), spread, load, requests)


def better(before: Measured, after: Measured, sure: float, least: float) -> bool:
    """Whether the lower bound of what was gained, ``sure`` standard errors below its mean, is over ``least``."""
    return before.cost - after.cost - sure * math.hypot(before.error, after.error) > least * before.cost


def close_to(one: float, other: float, tolerance: float) -> bool:
    """Whether two loads or values are within this share of each other."""
    return abs(one - other) <= tolerance * max(one, other)
