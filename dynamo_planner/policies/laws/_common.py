"""Readings of a pool for the laws of other systems: a number, or a :class:`Hold` that names what is unknown.

>>> from dynamo_planner import PoolSpec, PoolStatus
>>> pool = PoolStatus(spec=PoolSpec(role="decode"), replicas=4, queued=2, running=10, coverage=0.5)
>>> snapshot = Snapshot(at_s=0, pools={"decode": pool})
>>> requests(snapshot, "decode", fresh_s=60)
24.0
>>> per_replica(snapshot, "decode", "kv_usage", fresh_s=60)
Hold(reason='kv_usage is unknown', code='MetricUnknown', firm=False)
"""

from __future__ import annotations

import math
from typing import Literal

from dynamo_planner.core.decision import Hold, Want
from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot

FRESH_S = 60.0
"""The default age, in seconds, from which on an observation is unknown."""

HPA_TOLERANCE = 0.1
"""The share by which the HPA lets a metric differ from its target without a change."""

LARGEST_METRIC = 1e12
"""Metrics are cut off here, so that no sum of them overflows."""

LARGEST_LOAD_REPLICAS = 1e9
"""``Want.load`` is cut off here, in replicas."""

LARGEST_COUNT = 10**9
"""Targets are cut off here, in replicas."""

UNREADABLE = Hold("the number of its replicas could not be read", "ReplicasUnknown")
FRONT_UNKNOWN = Hold("traffic.queued is unknown, and may speak against fewer", "MetricUnknown")
NO_TARGET = Hold("there is no target for its role", "NoOpinion")


def per_replica(
    snapshot: Snapshot, name: str, field: Literal["queued", "running", "kv_usage"], fresh_s: float = FRESH_S
) -> float | Hold:
    """The mean of a metric over the ready replicas that were observed."""
    pool = snapshot.pools[name]
    observed = workers_observed(pool)
    if snapshot.age_s(pool.observed_at_s) > fresh_s:
        return Hold("its metrics are too old, or of unknown age", "MetricUnknown")
    value: float | None = getattr(pool, field)
    if value is None:
        cause = snapshot.missing.get(f"pools.{name}.{field}") or snapshot.missing.get(f"pools.{name}")
        return Hold(f"{field} is unknown" + (f": {cause}" if cause else ""), "MetricUnknown")
    if not observed:
        return Hold("its metrics are unknown: no ready replica was observed", "MetricUnknown")
    return min(value if field == "kv_usage" else value / observed, LARGEST_METRIC)


def requests(snapshot: Snapshot, name: str, fresh_s: float = FRESH_S) -> float | Hold:
    """The requests waiting and running in a pool; replicas that were not observed count as those that were."""
    waiting, running = (per_replica(snapshot, name, field, fresh_s) for field in ("queued", "running"))
    if isinstance(waiting, Hold):
        return waiting
    if isinstance(running, Hold):
        return running
    pool = snapshot.pools[name]
    return (waiting + running) * (pool.replicas.ready if pool.replicas else 0)


def pool_total(
    snapshot: Snapshot, name: str, field: Literal["queued", "running", "kv_usage"], fresh_s: float = FRESH_S
) -> float | Hold:
    """The sum of a metric over the ready replicas of a pool; those that were not observed count as those that were."""
    each, pool = per_replica(snapshot, name, field, fresh_s), snapshot.pools[name]
    return each if isinstance(each, Hold) else each * (pool.replicas.ready if pool.replicas else 0)


def in_front(snapshot: Snapshot, fresh_s: float = FRESH_S) -> float | None:
    """The requests that wait in front of the pools; None where that is unknown or old."""
    queued = snapshot.traffic.queued
    if queued is None or snapshot.age_s(snapshot.traffic.observed_at_s) > fresh_s:
        return None
    return min(queued, LARGEST_METRIC)


def may_move(want: Want, replicas: Replicas, waiting_in_front: float | None) -> bool:
    """Whether a wish stands: a fall does not while no one knows what waits in front of the pool."""
    return waiting_in_front is not None or want.replicas >= replicas.target


def average_value(total: float, target: float, replicas: Replicas, tolerance: float) -> int:
    """The HPA's wish for an external metric with an ``AverageValue``: ``ceil(total / target)``, or no change.

    There is none while the total is within the tolerance of the target times the replicas that there are: 42 for
    4 replicas at 10 each is 1.05 times as much.
    """
    ratio = total / (target * max(replicas.ready + replicas.starting, 1))
    return replicas.target if abs(1 - ratio) <= tolerance else math.ceil(min(total / target, LARGEST_COUNT))


def workers_observed(pool: PoolStatus) -> float:
    """The ready replicas that the metrics of a pool cover."""
    ready = pool.replicas.ready if pool.replicas else 0
    return ready if pool.coverage is None else ready * pool.coverage


def traffic(snapshot: Snapshot, field: str, fresh_s: float = FRESH_S) -> float | Hold:
    """A number of the traffic, or the mean of one of its distributions."""
    observed = snapshot.traffic
    if snapshot.age_s(observed.observed_at_s) > fresh_s:
        return Hold("the traffic was observed too long ago, or at an unknown time", "MetricUnknown")
    value = getattr(observed, field)
    value = value.mean if isinstance(value, Dist) else value
    return Hold(f"traffic.{field} is unknown", "MetricUnknown") if value is None else min(float(value), LARGEST_METRIC)


def is_idle(snapshot: Snapshot, fresh_s: float = FRESH_S) -> bool:
    """Whether no request arrives or waits at the frontend, freshly observed."""
    return traffic(snapshot, "requests_per_s", fresh_s) == 0 and not snapshot.traffic.queued


def asleep(snapshot: Snapshot, fresh_s: float = FRESH_S) -> Want | Hold:
    """The verdict on a pool at zero replicas: woken up where requests come, as a queue in front of it would do."""
    if snapshot.age_s(snapshot.traffic.observed_at_s) > fresh_s:
        return Hold("asleep, and the traffic is unknown", "MetricUnknown")
    comes = snapshot.traffic.requests_per_s or snapshot.traffic.queued
    return Want(1) if comes else Hold("asleep: no requests come", "Asleep")
