"""Cost windows of a service under its present knobs, their mean and standard error, and what else a trial observes.

The cost of a window is the larger of TTFT and ITL over their targets, so what counts is the target that binds. A
percentile is taken where the source reports one, otherwise the mean. Windows are batches (Law & Kelton's batch means):
the variance between them contains how requests within one depend on each other, which that of the requests does not.

>>> windows = [Window(at_s=30.0 * n, cost=cost, load=4.0, requests=120) for n, cost in enumerate((0.5, 0.6, 0.7))]
>>> mean = measured(windows)
>>> mean.cost, round(mean.error, 3), mean.load, mean.requests
(0.6, 0.058, 4.0, 360.0)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import PoolStatus, Sla, Snapshot
from dynamo_planner.core.values import Frozen, KnobValue

MAX_COST = 5.0
"""Costs are cut off here: by how much a target is missed by far says little."""

DEFAULT_WINDOW_S = 30.0
"""The length in seconds of a window that is not reported."""

INTERVAL_RANGE_S = (1.0, 600.0)
"""The shortest and the longest interval between windows, in seconds."""


class Window(Frozen):
    """One window of latencies.

    Args:
        at_s: When it ended, in Unix seconds.
        cost: The larger of TTFT and ITL over their targets.
        load: The load of a replica: requests per second or, without latencies, requests inside.
        requests: Its requests.
    """

    at_s: float
    cost: float
    load: float
    requests: float


class Measured(NamedTuple):
    """The mean of some windows.

    Args:
        cost: The mean cost.
        error: Its standard error.
        spread: The standard deviation of the costs.
        load: The mean load of a replica.
        requests: The requests of all windows.
    """

    cost: float
    error: float
    spread: float
    load: float
    requests: float


def window_of(snapshot: Snapshot, sla: Sla, ready: int, max_age_s: float) -> Window | None:
    """The window of a snapshot, or ``None`` where it is too old or reports too little."""
    traffic = snapshot.traffic
    costs = _by_latencies(snapshot, sla) or _by_queues(snapshot, sla)
    times = [pool.observed_at_s for pool in snapshot.pools.values()]
    at_s = traffic.observed_at_s if traffic.ttft_ms else min((time for time in times if time is not None), default=None)
    if costs is None or at_s is None or snapshot.at_s - at_s > max_age_s or not ready:
        return None
    return Window(
        at_s=min(at_s, snapshot.at_s),
        cost=min(max(costs.ratios), MAX_COST),
        load=costs.load / ready,
        requests=costs.requests,
    )


class _Costs(NamedTuple):
    """The costs of TTFT and ITL, the load of all replicas, and the requests behind them."""

    ratios: tuple[float, float]
    load: float
    requests: float


def _by_latencies(snapshot: Snapshot, sla: Sla) -> _Costs | None:
    traffic = snapshot.traffic
    if traffic.ttft_ms is None or traffic.itl_ms is None or not traffic.requests_per_s:
        return None
    count = traffic.ttft_ms.count
    requests = traffic.requests_per_s * (traffic.window_s or DEFAULT_WINDOW_S) if count is None else count
    costs = tail(traffic.ttft_ms) / sla.ttft_ms, tail(traffic.itl_ms) / sla.itl_ms
    return _Costs(costs, traffic.requests_per_s, requests)


def _by_queues(snapshot: Snapshot, sla: Sla) -> _Costs | None:
    """The costs of engines that report no TTFT and no arrivals, such as llama.cpp.

    A queue as long as what is being served stands for a TTFT at its target, since it takes as long as a request does
    (Little 1961).
    """
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
    return _Costs(costs, queued + running, queued + running)


def tail(dist: Dist) -> float:
    """The highest percentile that is reported, or else the mean."""
    return max(dist.quantiles.items())[1] if dist.quantiles else dist.mean


def ttft_binds(snapshot: Snapshot, sla: Sla) -> bool:
    """Whether TTFT is nearer to its target than ITL, or further over it."""
    costs = _by_latencies(snapshot, sla) or _by_queues(snapshot, sla)
    return costs is not None and costs.ratios[0] >= costs.ratios[1]


def measured(windows: Sequence[Window]) -> Measured:
    """The mean of at least two windows."""
    count = len(windows)
    cost = sum(window.cost for window in windows) / count
    spread = math.sqrt(sum((window.cost - cost) ** 2 for window in windows) / (count - 1))
    load = sum(window.load for window in windows) / count
    requests = sum(window.requests for window in windows)
    return Measured(round(cost, 12), spread / math.sqrt(count), spread, load, requests)


def better(before: Measured, after: Measured, sure: float, least: float) -> bool:
    """Whether the lower confidence bound of the gain, ``sure`` standard errors below its mean, is over ``least``."""
    return before.cost - after.cost - sure * math.hypot(before.error, after.error) > least * before.cost


def close_to(one: float, other: float, tolerance: float) -> bool:
    """Whether two loads or values are within this share of each other."""
    return abs(one - other) <= tolerance * max(one, other)


Shape = tuple[tuple[str, int], ...]
"""The ready replicas of each pool, by name."""


def pools_of(snapshot: Snapshot, pool: str | None) -> list[PoolStatus]:
    """The pool of a knob, or all pools for a knob of the service."""
    return [each for name, each in snapshot.pools.items() if pool is None or name == pool]


def ready_of(pool: PoolStatus) -> int:
    """The ready replicas of a pool, 0 where they are unknown."""
    return pool.replicas.ready if pool.replicas else 0


def ready(snapshot: Snapshot) -> int:
    """The ready replicas of all pools, which share the load."""
    return sum(ready_of(pool) for pool in snapshot.pools.values())


def shape_of(snapshot: Snapshot) -> Shape | None:
    """The replicas of each pool, or ``None`` while they are changing or unknown."""
    shape = []
    for name, pool in snapshot.pools.items():
        replicas = pool.replicas
        if replicas is None or replicas.starting or replicas.draining or replicas.ready != replicas.target:
            return None
        shape.append((name, replicas.ready))
    return tuple(shape)


def interval_s(snapshot: Snapshot) -> float:
    """The interval between windows, in seconds."""
    shortest, longest = INTERVAL_RANGE_S
    return min(max(snapshot.traffic.window_s or DEFAULT_WINDOW_S, shortest), longest)


def knob_number(snapshot: Snapshot, pool: str | None, knob: str) -> float | None:
    """The present value of a knob, where it is a number."""
    if pool is None:
        return plain_number(snapshot.knobs.get(knob))
    values: Mapping[str, KnobValue] = snapshot.pools[pool].knobs if pool in snapshot.pools else {}
    return plain_number(values.get(knob))


def plain_number(value: KnobValue | None) -> float | None:
    """A knob's value, where it is a number."""
    return None if isinstance(value, bool | str) or value is None else value
