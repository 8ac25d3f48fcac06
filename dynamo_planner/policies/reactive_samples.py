"""How the load of a pool is read off a snapshot, and what :class:`LoadPolicy` remembers of an interval."""

from __future__ import annotations

from typing import NamedTuple

from dynamo_planner.core.snapshot import PoolStatus, Snapshot
from dynamo_planner.core.values import Count, Frozen, ReadOnly

LARGEST_LOAD = 1e9
"""Loads are cut off here, so that no sum of them overflows."""


class Reading(NamedTuple):
    """One pool at one tick: ``load`` and ``busy`` (requests waiting and running) per ready replica.

    ``load`` is ``None`` where the metric is unknown or too old. ``idle``: nothing arrives, waits or runs.
    """

    load: float | None
    busy: float
    idle: bool
    seen_s: float | None = None


IDLE = Reading(load=0.0, busy=0.0, idle=True)


def read(snapshot: Snapshot, pool: PoolStatus, *, kv_per_waiting: float, fresh_s: float) -> Reading:
    """The load of a pool now: ``queued`` for prefill, otherwise ``kv_usage + kv_per_waiting * queued``.

    Where ``queued`` is unknown, KV usage is read without it. Metrics older than ``fresh_s`` are unknown. Queues are
    sums over the workers that were seen, which are ``ready * coverage``.
    """
    waiting, running = _per_worker(pool, pool.queued), _per_worker(pool, pool.running)
    if not _workers_seen(pool) or snapshot.age_s(pool.observed_at_s) > fresh_s:
        load = None
    elif pool.spec.role == "prefill":
        load = None if pool.queued is None else waiting
    else:
        load = None if pool.kv_usage is None else min(pool.kv_usage + kv_per_waiting * waiting, LARGEST_LOAD)
    if _is_idle(snapshot, pool, fresh_s, measured=load is not None):
        return IDLE
    return Reading(load, waiting + running, idle=False, seen_s=pool.observed_at_s)


def _per_worker(pool: PoolStatus, total: float | None) -> float:
    """A sum over the workers seen as a mean, 0 where it is unknown."""
    seen = _workers_seen(pool)
    return min((total or 0.0) / seen, LARGEST_LOAD) if seen else 0.0


def _workers_seen(pool: PoolStatus) -> float:
    ready = pool.replicas.ready if pool.replicas else 0
    return ready if pool.coverage is None else ready * pool.coverage


def _is_idle(snapshot: Snapshot, pool: PoolStatus, fresh_s: float, *, measured: bool) -> bool:
    """No requests per second, freshly observed, and none known to be queued or running.

    Where ``running`` is unknown the pool's own metric speaks, if there is one: long answers may still be going on.
    """
    traffic = snapshot.traffic
    if traffic.requests_per_s != 0 or snapshot.age_s(traffic.observed_at_s) > fresh_s:
        return False
    if traffic.queued or pool.queued or pool.running:
        return False
    return pool.running == 0 or not measured


def unknown_metric(snapshot: Snapshot, name: str, pool: PoolStatus, fresh_s: float) -> str | None:
    """Which metric is unknown of those that scaling this pool down needs, and why; ``None`` where all are known."""
    age_s = snapshot.age_s(pool.observed_at_s)
    if pool.observed_at_s is None:
        return "the age of its metrics is unknown"
    if age_s > fresh_s:
        return f"its metrics are unknown: they were last seen {age_s:.0f} s ago"
    if not _workers_seen(pool):
        return "its metrics are unknown: no ready replica was seen"
    needed = ("queued", "running") if pool.spec.role == "prefill" else ("kv_usage", "queued")
    field = next((field for field in needed if getattr(pool, field) is None), None)
    cause = snapshot.missing.get(f"pools.{name}.{field}") or snapshot.missing.get(f"pools.{name}")
    return field and f"{field} is unknown" + (f": {cause}" if cause else "")


class PoolSamples(Frozen):
    """What is remembered of one pool: sums over the samples of the running interval, and its first and last load.

    ``ready`` are the ready replicas at the last tick and ``seen_s`` when the last sample was observed. ``active``: the
    pool was not idle in one of the samples. ``grace``: the full intervals for which it is not scaled down.
    """

    ready: Count
    grace: Count = 0
    seen_s: float | None = None
    samples: Count = 0
    load: float = 0.0
    busy: float = 0.0
    first: float = 0.0
    last: float = 0.0
    active: bool = False

    def cleared(self, *, grace: int) -> PoolSamples:
        """Without samples, for an interval that starts."""
        return PoolSamples(ready=self.ready, grace=grace, seen_s=self.seen_s)

    def plus(self, reading: Reading, at_s: float) -> PoolSamples:
        """With one sample more, unless its load is unknown or it was counted before."""
        if reading.load is None or self._counted(reading):
            return self
        return PoolSamples(
            ready=self.ready,
            grace=self.grace,
            seen_s=self.seen_s if reading.seen_s is None else min(reading.seen_s, at_s),
            samples=self.samples + 1,
            load=self.load + reading.load,
            busy=self.busy + reading.busy,
            first=self.first if self.samples else reading.load,
            last=reading.load,
            active=self.active or not reading.idle,
        )

    def _counted(self, reading: Reading) -> bool:
        return reading.seen_s is not None and self.seen_s is not None and reading.seen_s <= self.seen_s


class Interval(Frozen):
    """What is remembered: when the running interval started, when the one before was completed, and the last tick."""

    started_s: float
    completed_s: float
    tick_s: float
    pools: ReadOnly[str, PoolSamples]
