"""The verdict on one pool at the end of an interval of :class:`LoadPolicy`: up, down or stay, and why."""

from __future__ import annotations

import math
from typing import NamedTuple

from dynamo_planner.core.decision import Hold, Reason, Want
from dynamo_planner.core.snapshot import PoolStatus, Replicas
from dynamo_planner.policies.reactive_memory import refused, rose
from dynamo_planner.policies.reactive_samples import PoolSamples

RISE_WHEN_LATE = 0.5
"""This share of the ready replicas is added where all requests are late, and less in proportion where not all are."""

BUSY_REQUESTS = 1.0
"""With fewer requests in a replica than this, it is not for load that requests are late: more replicas do not help."""

FALLING, FALLING_WHEN_LATE = 0.9, 0.7
"""A load that is below this share of what it was when the samples began is on its way down: one over the threshold, and
one where requests are still late."""


class Thresholds(NamedTuple):
    """What the load of a pool is compared with.

    Args:
        up: The load above which it rises.
        down: The load below which it falls.
        missed: The share of requests that may miss a target; ``None`` without an SLA.
        trend_intervals: Intervals ahead at which a falling load is judged.
    """

    up: float
    down: float
    missed: float | None
    trend_intervals: int


def verdict(
    at_s: float, pool: PoolStatus, replicas: Replicas, own: PoolSamples, limits: Thresholds, unknown: str | None
) -> tuple[Want | Hold, Reason | None]:
    """The target by the means of the interval, and the reason."""
    prefill, up, down = pool.spec.role == "prefill", limits.up, limits.down
    load, busy = own.load / own.samples, own.busy / own.samples
    missed = own.missed / own.judged if own.judged and limits.missed is not None else None
    late = missed is not None and limits.missed is not None and missed > limits.missed and busy >= BUSY_REQUESTS
    required = own.ready * load / up
    if prefill:
        required = max(required, own.ready * min(busy, 1.0))  # a busy replica is, whether or not a queue builds up
    metric = "waiting requests per replica" if prefill else "KV usage"

    def because(change: int, code: str, message: str, **more: float) -> tuple[Want, Reason]:
        values: dict[str, float] = {"load": load, "up": up, "down": down, "ready": own.ready, "samples": own.samples}
        if missed is not None:
            values["missed"] = missed
        return Want(replicas.target + change, load=required), Reason(
            code=code, message=message, values={**values, **more}
        )

    if load > up or late:
        over = f"{metric} over the threshold" if load > up else "more requests are late than may be"
        trend = own.last + limits.trend_intervals * (own.last - own.first)
        falling = FALLING if load > up else FALLING_WHEN_LATE
        if own.last < falling * own.first and trend <= up:
            return because(0, "QueueFalling", f"{over}, but falling", trend=trend)
        lost = pool.stuck(at_s) + replicas.failed
        wanted = own.ready + max(_more(own, required, prefill, missed if late else None), 1) + min(lost, 1)
        if wanted <= replicas.target:
            message = f"{over}, and {replicas.target - own.ready} more were requested already"
            return because(0, "RiseOutstanding", message, lost=lost)
        code = "RequestsLate" if load <= up else "QueueHigh" if prefill else "KvUsageHigh"
        return because(wanted - replicas.target, code, over)
    if load >= down:
        return because(0, "WithinThresholds", f"{metric} between the thresholds")
    stays = _kept(at_s, pool, replicas, own, limits, unknown)
    low = f"{metric} under the threshold"
    if isinstance(stays, Hold):
        return stays, None
    if stays is not None:
        return because(0, stays.code, f"{low}, {stays.message}", **stays.values)
    return because(-1, "QueueLow" if prefill else "KvUsageLow", low)


class _Kept(NamedTuple):
    """Why a pool of little load is not lowered."""

    code: str
    message: str
    values: dict[str, float]


def _kept(
    at_s: float, pool: PoolStatus, replicas: Replicas, own: PoolSamples, limits: Thresholds, unknown: str | None
) -> _Kept | Hold | None:
    """What speaks against one replica less; ``None`` where nothing does."""
    load, busy, remain = own.load / own.samples, own.busy / own.samples, min(own.ready, replicas.target) - 1
    if replicas.target <= pool.spec.min_replicas:
        return _Kept("AtMinimum", "at min_replicas", {})
    if unknown is not None:
        return Hold(unknown, "MetricUnknown")
    if own.grace:
        return _Kept("GracePeriod", "but a replica is new", {"intervals": own.grace})
    if remain <= 0 and own.active:
        return _Kept("NotIdle", "but the last replica goes only after an idle interval", {})
    too_busy = pool.spec.role == "prefill" and busy * own.ready >= remain
    if remain > 0 and (load * own.ready / remain >= limits.up or too_busy):
        return _Kept("NoRoom", "but too much for the replicas that remain", {"remain": remain, "busy": busy})
    if limits.missed is not None and own.active:
        if own.judged < own.samples:
            return Hold("the share of requests that are late is unknown", "MetricUnknown")
        late = own.missed_with_less / own.judged
        if late > limits.missed:
            return _Kept("NoSlack", "but too many requests would be late with one less", {"missed_with_less": late})
    demand = own.present_demand
    if demand is None and not load and not busy:
        return None  # nothing ran or waited in the whole interval: that is less than what they did not do
    shortfall = refused(own.shortfalls, remain, demand, at_s)
    if shortfall is None:
        return None
    message = f"but {shortfall.replicas} replicas did not do at such a demand"
    hours = (shortfall.until_s - at_s) / 3600
    values = {"demand": own.demand or 0.0, "failed_at": shortfall.demand, "hours": hours}
    return _Kept("FallFailedBefore", message, values)


def _more(own: PoolSamples, required: float, prefill: bool, missed: float | None) -> int:
    """How many replicas more than the ready ones; at most as many again. A queue for prefill does not say how many."""
    by_load = 0 if prefill else math.ceil(required) - own.ready
    by_lateness = math.ceil(RISE_WHEN_LATE * (missed or 0.0) * own.ready)
    return min(max(by_load, by_lateness), own.ready)


def learned_from(
    own: PoolSamples, entry: Want | Hold, replicas: Replicas, at_s: float, interval_s: float
) -> PoolSamples:
    """The memory after a verdict: a rise says that the ready replicas did not do. Further rises in a row say nothing,
    since what waited meanwhile asks for more than the demand does."""
    rising = isinstance(entry, Want) and entry.replicas > replicas.target
    if not rising or own.rising:
        return own.replace(rising=rising)
    return own.replace(rising=True, shortfalls=rose(own.shortfalls, own.ready, own.demand or 0.0, at_s, interval_s))
