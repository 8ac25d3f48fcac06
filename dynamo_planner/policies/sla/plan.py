"""What one pool should have: sized for the demand to come, and not given up sooner than a start would cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from dynamo_planner.core.decision import Reason, Want
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.policies.sla.demand import Demand, backlog_left
from dynamo_planner.policies.sla.holding import Needs, most, noted
from dynamo_planner.policies.sla.startup import coming
from dynamo_planner.sizing import Requirement

LOST_SHARE = 0.25
"""At most this share of the need is asked for once more for replicas that do not come, so that what cannot start does
not make for more and more of its kind."""


class Tick(NamedTuple):
    """A pool whose replicas are known, in the snapshot that is looked at, and its share of the requests."""

    name: str
    pool: PoolStatus
    replicas: Replicas
    snapshot: Snapshot
    share: float


class Given(NamedTuple):
    """What a pool is planned from: its demand; the requests that wait for it (``None``: unknown), which may wait
    ``waits_s`` and are to be done within ``drain_s``; what it needs for a rate, and for how long that counts.
    ``unknown`` says what is missing to lower it."""

    demand: Demand
    queued: float | None
    need: Callable[[float], Requirement]
    unknown: str | None
    waits_s: float
    drain_s: float
    hold_s: float


def told(code: str, pool: str, message: str, **values: KnobValue | None) -> Reason:
    """A reason of values that are valid by construction (which saves most of its time)."""
    return Reason.unchecked(code=code, pool=pool, message=message, values=FrozenMap(values))


def planned(tick: Tick, needs: Needs, given: Given) -> tuple[Want, Needs, list[Reason]]:
    """The replicas that a pool should have, what is remembered of its needs, and why."""
    name, demand = tick.name, given.demand
    need = given.need(demand.then)
    reasons = [
        told(
            "DemandForecast",
            name,
            f"arrivals per second, planned for {demand.lead_s:.0f} s ahead, when a start would be ready",
            expected=demand.expected,
            planned=demand.then,
            now=demand.now,
            lead_s=demand.lead_s,
        )
    ]
    reasons.extend([told(code, name, message, **values) for code, message, values in need.facts])
    wanted = max(need.replicas, 1)
    if given.queued:
        etas_s, _ = coming(tick.replicas, tick.snapshot.at_s, demand.lead_s)
        work_s = need.load / demand.then if demand.then else 0.0
        left_s = backlog_left(given.queued, work_s, demand, tick.replicas.ready, etas_s, given.waits_s)
        draining = math.ceil(demand.expected * work_s + left_s / given.drain_s)
        if left_s and draining > wanted:
            wanted = draining
            message = f"what waits is to be done within {given.drain_s:.0f} s of when a start would be ready"
            reasons.append(told("BacklogDrained", name, message, queued=given.queued, replicas=wanted))
    now = given.need(demand.now).replicas if demand.now > demand.then else 0
    want, needs, more = _patient(tick, needs, wanted, max(wanted, now), given.hold_s, demand.lead_s)
    if want.replicas < tick.replicas.target and given.unknown is not None:
        more.append(told("MetricUnknown", name, f"not lowered: {given.unknown}", wanted=want.replicas))
        want = Want(tick.replicas.target, load=want.load)
    return want, needs, reasons + more


def planned_idle(tick: Tick, needs: Needs, hold_s: float, lead_s: float) -> tuple[Want, Needs, list[Reason]]:
    """The same where there is nothing to do, and nothing expected."""
    want, needs, reasons = _patient(tick, needs, 0, 0, hold_s, lead_s)
    return want, needs, [told("Idle", tick.name, "no requests come, and none are expected"), *reasons]


def _patient(
    tick: Tick, needs: Needs, wanted: int, needed: int, hold_s: float, lead_s: float
) -> tuple[Want, Needs, list[Reason]]:
    """``wanted`` replicas, and of those that there are as many as were ``needed`` at any time within ``hold_s``."""
    name, replicas, reasons = tick.name, tick.replicas, list[Reason]()
    needs = noted(needs, tick.snapshot.at_s, float(needed), hold_s)
    kept = math.ceil(most(needs))
    _, stuck = coming(replicas, tick.snapshot.at_s, lead_s)
    lost = min(stuck + replicas.failed, math.ceil(LOST_SHARE * wanted))
    if stuck or replicas.failed:
        message = f"{stuck} starts take too long and {replicas.failed} replicas failed; {lost} more are asked for"
        reasons.append(told("ReplicasLost", name, message))
    target = max(wanted + lost, min(replicas.target, kept + lost))
    if target > wanted + lost:
        message = f"{kept} were needed within the last {hold_s:.0f} s, and to start them again would cost more"
        reasons.append(told("ScaleDownWaits", name, message, needed=kept, now=wanted))
    return Want(target, load=float(wanted)), needs, reasons
