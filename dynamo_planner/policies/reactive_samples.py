"""Load samples of a pool, and the state of :class:`LoadPolicy`: their sums over an interval."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from dynamo_planner.core.metrics import Dist, Traffic
from dynamo_planner.core.snapshot import PoolStatus, Role, Sla, Snapshot
from dynamo_planner.core.values import Count, Frozen, ReadOnly
from dynamo_planner.policies.reactive_memory import DEMAND_HALF_LIFE, Shortfall

LARGEST_LOAD = 1e9
"""Loads per replica (requests, or KV usage) are cut off here, so that no sum of them overflows."""

CLEARLY_LOWER = 2.0
"""A demand of less than half of the usual one in an interval is not chance."""

LATENCY_GROWTH = 0.5
"""Latencies grow by this share of what the load per replica grows by, where a replica goes; the rest of a step is there
whatever the batch."""


ITL_CV = 0.2
"""The coefficient of variation that ITL is taken to have where a source reports its mean alone."""


class LoadSample(NamedTuple):
    """The load of one pool at one tick.

    Args:
        load: The metric per ready replica; ``None`` where it is unknown or too old.
        busy: Requests waiting and running per ready replica.
        idle: Nothing arrives, waits or runs.
        seen_s: When it was observed, in Unix seconds.
        demand: Requests per second; ``None`` where they are unknown.
        missed: The share of requests that missed the target of the pool's role; ``None`` where it is unknown.
        missed_with_less: The share that would have missed it with one replica less.
    """

    load: float | None
    busy: float
    idle: bool
    seen_s: float | None = None
    demand: float | None = None
    missed: float | None = None
    missed_with_less: float = 0.0


IDLE = LoadSample(load=0.0, busy=0.0, idle=True, demand=0.0)


def read(
    snapshot: Snapshot, pool: PoolStatus, *, kv_per_waiting: float, fresh_s: float, sla: Sla | None = None
) -> LoadSample:
    """The load of a pool now: ``queued`` for prefill, otherwise ``kv_usage + kv_per_waiting * queued``.

    Where ``queued`` is unknown, KV usage is read without it. Metrics older than ``fresh_s`` are unknown. Queues are
    sums over the workers that were observed, which are ``ready * coverage``.
    """
    waiting, running = _per_worker(pool, pool.queued), _per_worker(pool, pool.running)
    if not _workers_observed(pool) or snapshot.age_s(pool.observed_at_s) > fresh_s:
        load = None
    elif pool.spec.role == "prefill":
        load = None if pool.queued is None else waiting
    else:
        load = None if pool.kv_usage is None else min(pool.kv_usage + kv_per_waiting * waiting, LARGEST_LOAD)
    if _is_idle(snapshot, pool, fresh_s, measured=load is not None):
        return IDLE
    traffic = snapshot.traffic
    known = snapshot.age_s(traffic.observed_at_s) <= fresh_s
    is_whole = known and snapshot.at_least("traffic.requests_per_s") is None
    demand = traffic.requests_per_s if is_whole else None
    missed, less = None, None
    if known and sla is not None:
        remain = max((pool.replicas.ready if pool.replicas else 0) - 1, 1)
        missed = _missed(traffic, pool.spec.role, sla, 1.0)
        less = _missed(traffic, pool.spec.role, sla, 1 + LATENCY_GROWTH / remain)
    return LoadSample(
        load,
        waiting + running,
        idle=False,
        seen_s=pool.observed_at_s,
        demand=demand,
        missed=missed,
        missed_with_less=less or 0.0,
    )


def _missed(traffic: Traffic, role: Role, sla: Sla, growth: float) -> float | None:
    """The share of requests that would miss the target of a role with latencies ``growth`` times as long: TTFT for
    prefill, ITL for decode, the worse of both for aggregated pools."""
    first = _late(traffic.ttft_ms, sla.ttft_ms / growth, _exponential)
    later = _late(traffic.itl_ms, sla.itl_ms / growth, _normal)
    shares = {"prefill": (first,), "decode": (later,)}.get(role, (first, later))
    known = [share for share in shares if share is not None]
    return max(known, default=0.0 if traffic.requests_per_s == 0 else None)


def _late(dist: Dist | None, target: float, by_mean: Callable[[float], float]) -> float | None:
    """The share of values over a target; ``by_mean`` gives it for the target over the mean, where that is all."""
    if dist is None:
        return None
    share = dist.share_within(target)
    if share is not None:
        return 1 - share.estimate
    return by_mean(target / dist.mean) if dist.mean > 0 else 0.0


def _exponential(times: float) -> float:
    """The share over ``times`` the mean of a latency with a long tail: 1 % over 4.6 times."""
    return math.exp(-times)


def _normal(times: float) -> float:
    """The share over ``times`` the mean where values differ by :data:`ITL_CV` of it: 1 % over 1.47 times."""
    return 0.5 * math.erfc((times - 1) / (ITL_CV * math.sqrt(2)))


def _per_worker(pool: PoolStatus, total: float | None) -> float:
    """A sum over the observed workers as a mean, 0 where it is unknown."""
    observed = _workers_observed(pool)
    return min((total or 0.0) / observed, LARGEST_LOAD) if observed else 0.0


def _workers_observed(pool: PoolStatus) -> float:
    ready = pool.replicas.ready if pool.replicas else 0
    return ready if pool.coverage is None else ready * pool.coverage


def _is_idle(snapshot: Snapshot, pool: PoolStatus, fresh_s: float, *, measured: bool) -> bool:
    """No requests per second, freshly observed, and none known to be queued or running.

    Where ``running`` is unknown the pool's own metric counts, if there is one: long answers may still be going on.
    """
    traffic = snapshot.traffic
    if traffic.requests_per_s != 0 or snapshot.age_s(traffic.observed_at_s) > fresh_s:
        return False
    if traffic.queued or pool.queued or pool.running:
        return False
    return pool.running == 0 or not measured


def unknown_metric(snapshot: Snapshot, name: str, pool: PoolStatus, fresh_s: float) -> str | None:
    """The first unknown metric of those that scaling this pool down takes, and why; ``None`` where all are known."""
    age_s = snapshot.age_s(pool.observed_at_s)
    if pool.observed_at_s is None:
        return "the age of its metrics is unknown"
    if age_s > fresh_s:
        return f"its metrics are unknown: they were last observed {age_s:.0f} s ago"
    if not _workers_observed(pool):
        return "its metrics are unknown: no ready replica was observed"
    needed = ("queued", "running") if pool.spec.role == "prefill" else ("kv_usage", "queued")
    field = next((field for field in needed if getattr(pool, field) is None), None)
    cause = snapshot.missing.get(f"pools.{name}.{field}") or snapshot.missing.get(f"pools.{name}")
    return field and f"{field} is unknown" + (f": {cause}" if cause else "")


class PoolSamples(Frozen):
    """The memory of one pool: its samples in the running interval.

    Args:
        ready: The ready replicas at the last tick.
        grace: Full intervals for which it is not scaled down.
        seen_s: When the last sample was observed, in Unix seconds.
        samples: How many samples there are.
        began_s: When the first of them was taken, in Unix seconds.
        load: The sum of their loads.
        busy: The sum of their requests waiting and running per replica.
        first: The load of the first.
        last: The load of the last.
        active: Whether the pool was not idle in one of them.
        missed: The sum of their shares of requests that missed a target.
        missed_with_less: The sum of the shares that would have missed one with a replica less.
        judged: How many of them tell of such a share.
        rated: How many of them tell of the demand.
        arrived: The sum of their demands, in requests per second.
        demand: The usual demand, in requests per second; ``None`` where it was never known.
        demand_s: When that was brought up to date, in Unix seconds.
        shortfalls: Replica counts that did not do.
        rising: Whether the last verdict was a rise.
    """

    ready: Count
    grace: Count = 0
    seen_s: float | None = None
    samples: Count = 0
    began_s: float = 0.0
    load: float = 0.0
    busy: float = 0.0
    first: float = 0.0
    last: float = 0.0
    active: bool = False
    missed: float = 0.0
    missed_with_less: float = 0.0
    judged: Count = 0
    rated: Count = 0
    arrived: float = 0.0
    demand: float | None = None
    demand_s: float = 0.0
    shortfalls: tuple[Shortfall, ...] = ()
    rising: bool = False

    def cleared(self, *, grace: int) -> PoolSamples:
        """The memory without samples, for an interval that starts."""
        none = dict.fromkeys(("load", "busy", "first", "last", "missed", "missed_with_less", "arrived"), 0.0)
        return self.replace(grace=grace, samples=0, active=False, judged=0, rated=0, **none)

    def plus(self, reading: LoadSample, at_s: float, interval_s: float) -> PoolSamples:
        """The memory with one sample more, unless its load is unknown or it was counted before."""
        if reading.load is None or self._counted(reading):
            return self
        return self.replace(
            seen_s=self.seen_s if reading.seen_s is None else min(reading.seen_s, at_s),
            samples=self.samples + 1,
            began_s=self.began_s if self.samples else at_s,
            load=self.load + reading.load,
            busy=self.busy + reading.busy,
            first=self.first if self.samples else reading.load,
            last=reading.load,
            active=self.active or not reading.idle,
            missed=self.missed + (reading.missed or 0.0),
            missed_with_less=self.missed_with_less + reading.missed_with_less,
            judged=self.judged + (reading.missed is not None),
            rated=self.rated + (reading.demand is not None),
            arrived=self.arrived + (reading.demand or 0.0),
            demand=self._usual(reading.demand, at_s, DEMAND_HALF_LIFE * interval_s),
            demand_s=self.demand_s if reading.demand is None else at_s,
        )

    @property
    def present_demand(self) -> float | None:
        """The usual demand, or where that has clearly fallen in this interval, twice its mean there; ``None`` where it
        is unknown."""
        if not self.samples or self.rated < self.samples or self.demand is None:
            return None
        return min(self.demand, CLEARLY_LOWER * self.arrived / self.rated)

    def _usual(self, demand: float | None, at_s: float, half_life_s: float) -> float | None:
        """The usual demand with one observation more, an exponential mean over time."""
        if self.demand is None or demand is None:
            return self.demand if demand is None else demand
        return demand + math.exp2(-max(at_s - self.demand_s, 0.0) / half_life_s) * (self.demand - demand)

    def _counted(self, reading: LoadSample) -> bool:
        return reading.seen_s is not None and self.seen_s is not None and reading.seen_s <= self.seen_s


class Interval(Frozen):
    """The state: the running interval.

    Args:
        started_s: When it started, in Unix seconds.
        completed_s: When the one before was completed, in Unix seconds.
        tick_s: The last tick, in Unix seconds.
        pools: The memory of each pool.
    """

    started_s: float
    completed_s: float
    tick_s: float
    pools: ReadOnly[str, PoolSamples]
