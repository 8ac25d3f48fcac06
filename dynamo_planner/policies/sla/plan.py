"""The target of one pool: sized for the demand to come, and lowered no sooner than a restart would pay off."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from dynamo_planner.core.decision import Reason, Want
from dynamo_planner.core.snapshot import PoolStatus, Replicas, Snapshot
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.policies.sla.demand import Demand, backlog_left
from dynamo_planner.policies.sla.startup import Startup, coming
from dynamo_planner.policies.sla.state import PoolMemory, ServiceMemory, SlidingMaximum
from dynamo_planner.sizing import Requirement

REPORTED_CHANGE = 0.03
"""What was learned is reported where it differs from the profile or the spec by more than this share."""

MAX_REPLACED_SHARE = 0.25
"""At most this share of the required replicas is added for replicas that failed or do not start, so that what cannot
start does not make for more and more of its kind."""

WINDOW_BUCKETS = 24
MIN_BUCKET_S = 1e-3
"""The sliding-window maximum is kept in this many buckets of time, none shorter than this (seconds)."""


def with_requirement(requirements: SlidingMaximum, at_s: float, count: float, window_s: float) -> SlidingMaximum:
    """The sliding-window maximum with what is required now, and without what is older than ``window_s``.

    Entries of one twenty-fourth of the window are merged, so that at most some two dozen are kept.
    """
    bucket_s = max(window_s / WINDOW_BUCKETS, MIN_BUCKET_S)
    kept = tuple(entry for entry in requirements if entry[0] > at_s - window_s and entry[1] > count)
    if kept and kept[-1][0] // bucket_s == at_s // bucket_s:
        return (*kept[:-1], (at_s, kept[-1][1]))
    return (*kept, (at_s, count))


def largest(requirements: SlidingMaximum) -> float:
    """The most replicas that were required within the window."""
    return max((count for _, count in requirements), default=0.0)


class Tick(NamedTuple):
    """One pool at one tick, with its known replicas and its share of the requests."""

    name: str
    pool: PoolStatus
    replicas: Replicas
    snapshot: Snapshot
    share: float


class PlanInputs(NamedTuple):
    """The inputs of the plan for one pool.

    Args:
        demand: The arrival rates.
        queued: Requests waiting for the pool; ``None`` where that is unknown.
        size: The requirement at an arrival rate.
        unknown: Which metric is missing to lower the pool; ``None`` where none is.
        waits_s: Seconds that a request may wait and still be in time.
        drain_s: Seconds within which a backlog is to be drained.
        hold_s: Seconds for which a requirement keeps its replicas.
    """

    demand: Demand
    queued: float | None
    size: Callable[[float], Requirement]
    unknown: str | None
    waits_s: float
    drain_s: float
    hold_s: float


def reason(code: str, pool: str, message: str, **values: KnobValue | None) -> Reason:
    """A reason from values that are valid by construction, which saves most of its time."""
    return Reason.unchecked(code=code, pool=pool, message=message, values=FrozenMap(values))


def planned(tick: Tick, requirements: SlidingMaximum, inputs: PlanInputs) -> tuple[Want, SlidingMaximum, list[Reason]]:
    """The target of a pool, its requirements with this tick, and the reasons."""
    name, demand = tick.name, inputs.demand
    sized = inputs.size(demand.then)
    reasons = [
        reason(
            "DemandForecast",
            name,
            f"arrivals per second, planned for {demand.lead_s:.0f} s ahead, when a start would be ready",
            expected=demand.expected,
            planned=demand.then,
            now=demand.now,
            lead_s=demand.lead_s,
        )
    ]
    reasons.extend([reason(code, name, message, **values) for code, message, values in sized.facts])
    wanted = max(sized.replicas, 1)
    if inputs.queued:
        etas_s, _ = coming(tick.replicas, tick.snapshot.at_s, demand.lead_s)
        work_s = sized.load / demand.then if demand.then else 0.0
        left_s = backlog_left(inputs.queued, work_s, demand, tick.replicas.ready, etas_s, inputs.waits_s)
        draining = math.ceil(demand.expected * work_s + left_s / inputs.drain_s)
        if left_s and draining > wanted:
            wanted = draining
            message = f"what waits is to be done within {inputs.drain_s:.0f} s of when a start would be ready"
            reasons.append(reason("BacklogDrained", name, message, queued=inputs.queued, replicas=wanted))
    now = inputs.size(demand.now).replicas if demand.now > demand.then else 0
    want, requirements, more = _patient(tick, requirements, wanted, max(wanted, now), inputs.hold_s, demand.lead_s)
    if want.replicas < tick.replicas.target and inputs.unknown is not None:
        more.append(reason("MetricUnknown", name, f"not lowered: {inputs.unknown}", wanted=want.replicas))
        want = Want(tick.replicas.target, load=want.load)
    return want, requirements, reasons + more


def planned_idle(
    tick: Tick, requirements: SlidingMaximum, hold_s: float, lead_s: float
) -> tuple[Want, SlidingMaximum, list[Reason]]:
    """The same for an idle pool that expects no requests."""
    want, requirements, reasons = _patient(tick, requirements, 0, 0, hold_s, lead_s)
    return want, requirements, [reason("Idle", tick.name, "no requests come, and none are expected"), *reasons]


def _patient(
    tick: Tick, requirements: SlidingMaximum, wanted: int, required: int, hold_s: float, lead_s: float
) -> tuple[Want, SlidingMaximum, list[Reason]]:
    """``wanted`` replicas, and of the present ones as many as were ``required`` at any time within ``hold_s``."""
    name, replicas, reasons = tick.name, tick.replicas, list[Reason]()
    requirements = with_requirement(requirements, tick.snapshot.at_s, float(required), hold_s)
    kept = math.ceil(largest(requirements))
    _, stuck = coming(replicas, tick.snapshot.at_s, lead_s)
    lost = min(stuck + replicas.failed, math.ceil(MAX_REPLACED_SHARE * wanted))
    if stuck or replicas.failed:
        message = f"{stuck} starts take too long and {replicas.failed} replicas failed; {lost} more are requested"
        reasons.append(reason("ReplicasLost", name, message))
    target = max(wanted + lost, min(replicas.target, kept + lost))
    if target > wanted + lost:
        message = f"{kept} were required within the last {hold_s:.0f} s, and to start them again would cost more"
        reasons.append(reason("ScaleDownWaits", name, message, needed=kept, now=wanted))
    return Want(target, load=float(wanted)), requirements, reasons


def learning_reasons(
    tick: Tick, own: PoolMemory, memory: ServiceMemory, factor: float, startup: Startup, lead_s: float
) -> list[Reason]:
    """Reasons for what was learned, where it differs from the profile and the spec."""
    reasons, prior_s = [], tick.pool.spec.startup_s
    if abs(factor - 1) > REPORTED_CHANGE:
        message = f"steps take {factor:.2f} times as long as profiled"
        reasons.append(reason("ProfileCorrected", tick.name, message, requests=own.correction.requests))
    if startup.starts and abs(lead_s - prior_s) > REPORTED_CHANGE * prior_s:
        message = f"starts are planned to take {lead_s:.0f} s, not {prior_s:.0f} s"
        reasons.append(reason("StartupLearned", tick.name, message, starts=startup.starts))
    for field, lengths in (("isl", memory.isl), ("osl", memory.osl)):
        cv2 = lengths.estimated_cv2() if lengths is not None and lengths.estimated else None
        if cv2 is not None:
            message = f"the spread of {field} is estimated from the means of intervals"
            reasons.append(reason("SpreadEstimated", tick.name, message, cv2=cv2))
    return reasons
