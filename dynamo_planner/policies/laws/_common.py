"""What the laws of other systems read of a pool: a number, or a :class:`Hold` that says what is unknown.

>>> from dynamo_planner import PoolSpec, PoolStatus
>>> pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=4, queued=2, running=10, coverage=0.5)
>>> snapshot = Snapshot(at_s=0, pools={"decode": pool})
>>> requests(snapshot, "decode", fresh_s=60)
24.0
>>> per_replica(snapshot, "decode", "kv_usage", fresh_s=60)
Hold(reason='kv_usage is unknown', code='MetricUnknown', firm=False)
"""

from __future__ import annotations

from typing import Literal

from dynamo_planner.core.decision import Hold, Want
from dynamo_planner.core.snapshot import Dist, PoolStatus, Snapshot

FRESH_S = 60.0
"""What was observed longer ago than this is unknown to a law that does not say otherwise."""

LARGEST = 1e12
"""Numbers are cut off here, so that no sum of them overflows."""

UNREADABLE = Hold("the number of its replicas could not be read", "ReplicasUnknown")
NO_TARGET = Hold("there is no target for its role", "NoOpinion")


def per_replica(
    snapshot: Snapshot, name: str, field: Literal["queued", "running", "kv_usage"], fresh_s: float = FRESH_S
) -> float | Hold:
    """The mean of a metric over the ready replicas that were seen."""
    pool = snapshot.pools[name]
    seen = workers_seen(pool)
    if snapshot.age_s(pool.observed_at_s) > fresh_s:
        return Hold("its metrics are too old, or of unknown age", "MetricUnknown")
    value: float | None = getattr(pool, field)
    if value is None:
        cause = snapshot.missing.get(f"pools.{name}.{field}") or snapshot.missing.get(f"pools.{name}")
        return Hold(f"{field} is unknown" + (f": {cause}" if cause else ""), "MetricUnknown")
    if not seen:
        return Hold("its metrics are unknown: no ready replica was seen", "MetricUnknown")
    return min(value if field == "kv_usage" else value / seen, LARGEST)


def requests(snapshot: Snapshot, name: str, fresh_s: float = FRESH_S) -> float | Hold:
    """The requests that wait and run in a pool; replicas that were not seen count as those that were."""
    waiting, running = (per_replica(snapshot, name, field, fresh_s) for field in ("queued", "running"))
    if isinstance(waiting, Hold):
        return waiting
    if isinstance(running, Hold):
        return running
    pool = snapshot.pools[name]
    return (waiting + running) * (pool.replicas.ready if pool.replicas else 0)


def workers_seen(pool: PoolStatus) -> float:
    """How many ready replicas the metrics of a pool are of."""
    ready = pool.replicas.ready if pool.replicas else 0
    return ready if pool.coverage is None else ready * pool.coverage


def traffic(snapshot: Snapshot, field: str, fresh_s: float = FRESH_S) -> float | Hold:
    """A number of the traffic, or the mean of one of its distributions."""
    seen = snapshot.traffic
    if snapshot.age_s(seen.observed_at_s) > fresh_s:
        return Hold("the traffic was seen too long ago, or at an unknown time", "MetricUnknown")
    value = getattr(seen, field)
    value = value.mean if isinstance(value, Dist) else value
    return Hold(f"traffic.{field} is unknown", "MetricUnknown") if value is None else min(float(value), LARGEST)


def is_idle(snapshot: Snapshot, fresh_s: float = FRESH_S) -> bool:
    """No request arrives or waits at the frontend, freshly observed."""
    return traffic(snapshot, "requests_per_s", fresh_s) == 0 and not snapshot.traffic.queued


def asleep(snapshot: Snapshot, fresh_s: float = FRESH_S) -> Want | Hold:
    """What becomes of a pool without replicas: woken up where requests come, as a queue in front of it would do."""
    if snapshot.age_s(snapshot.traffic.observed_at_s) > fresh_s:
        return Hold("asleep, and the traffic is unknown", "MetricUnknown")
    comes = snapshot.traffic.requests_per_s or snapshot.traffic.queued
    return Want(1) if comes else Hold("asleep: no requests come", "Asleep")
