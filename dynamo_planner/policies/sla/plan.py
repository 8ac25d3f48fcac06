"""Plan: the part that sets the target of a pool, for the demand to come, and lowers it no sooner than it pays."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field, SerializeAsAny

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.decision import Hold, Reason, Want
from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.policies.sla.demand import Demand, Outlook, backlog_left
from dynamo_planner.policies.sla.part import Part
from dynamo_planner.policies.sla.sliding_maximum import SlidingMaximum, largest, with_requirement
from dynamo_planner.policies.sla.startup import coming
from dynamo_planner.policies.sla.state import LastPlan
from dynamo_planner.policies.sla.tick import Queue, Tick, reason, why_unknown
from dynamo_planner.sizing import Requirement

MIN_EXPECTED_REQUESTS = 0.5
"""With fewer requests than this expected within ``level_s``, and none present, a pool may go to zero."""

MAX_REPLACED_SHARE = 0.25
"""At most this share of the required replicas is added for replicas that failed or do not start, so that what cannot
start does not make for more and more of its kind."""

WAIT_SHARES: dict[Role, float] = {"prefill": 0.5, "decode": 0.0, "aggregated": 0.5}
"""The share of the TTFT target that a request of a backlog may wait and still be in time."""


class PlanInputs(NamedTuple):
    """The inputs of the plan for one pool.

    Args:
        tick: The pool.
        outlook: The demand on the service.
        queue: The requests waiting for the pool.
        size: The requirement at an arrival rate; ``None`` where no lengths were ever observed. The second argument is
            the count around which to search.
        sla: The targets.
        at_least: Replicas that measured saturation asks for. Default 0.
    """

    tick: Tick
    outlook: Outlook
    queue: Queue
    size: Callable[[float, int], Requirement] | None
    sla: Sla
    at_least: int = 0


class Planned(NamedTuple):
    """The plan for one pool: the target or a hold, the new state, the reasons, and what it came to."""

    want: Want | Hold
    state: Any
    reasons: list[Reason]
    last: LastPlan | None = None


class Plan(Part):
    """The target of a pool, over the start-up time."""

    @abstractmethod
    def plan(self, state: Any, inputs: PlanInputs) -> Planned:
        """The target of a pool for a tick. With ``state=None`` it is as if the present replicas had just been required.

        What ``inputs.size`` raises is passed on.
        """


class SkiRental(Plan, kind="ski_rental"):
    """Replicas for a quantile of the demand when a start would be ready, kept until keeping costs more than starting.

    1. The requirement is that of the ``quantile`` of the forecast for when a start would be ready.
    2. What waits now and will still wait then, with what is ready and starting at work, is drained in ``drain_s``.
    3. A replica goes once nothing required it for ``restart_cost`` start-up times: the deterministic rule of ski
       rental (Karlin et al. 1988; Lin, Wierman and Andrew 2011), which never costs more than twice what foresight
       would. 1 is the GPU time of a start alone; the rest is the price of the requests that are late until a replica
       is back.

    Args:
        quantile: The quantile of the forecast to plan for. Default 0.9.
        drain_s: Seconds within which a backlog is drained. Default 60.
        restart_cost: Start-up times without a use after which a replica goes. Default 4.
    """

    quantile: float = Field(default=0.9, gt=0, lt=1)
    drain_s: float = Field(default=60.0, gt=0)
    restart_cost: float = Field(default=4.0, ge=0)

    state_type: ClassVar[Any] = tuple[tuple[float, float], ...]

    def plan(self, state: SlidingMaximum | None, inputs: PlanInputs) -> Planned:
        tick, outlook, queue, size, *_ = inputs
        at_s, arrivals = tick.snapshot.at_s, outlook.arrivals
        requirements = state or ((at_s, float(tick.replicas.target)),)
        ahead = outlook.demand(tick.lead_s, self.quantile).times(tick.share)
        if not arrivals.requests_per_s and not queue.requests and ahead.then * outlook.level_s < MIN_EXPECTED_REQUESTS:
            want, requirements, reasons = self._patient(tick, requirements, 0, 0, outlook.level_s)
            idle = reason("Idle", tick.name, "no requests come, and none are expected")
            return Planned(want, requirements, [idle, *reasons])
        if size is None:
            return Planned(_without_lengths(tick, arrivals.requests_per_s), requirements, [])
        return self._sized(requirements, inputs, size, ahead)

    def _sized(
        self,
        requirements: SlidingMaximum,
        inputs: PlanInputs,
        size: Callable[[float, int], Requirement],
        demand: Demand,
    ) -> Planned:
        """The target of a pool that has requests."""
        tick, outlook, queue, _, sla, at_least = inputs
        name, near = tick.name, int(requirements[-1][1])
        sized = size(demand.then, near)
        reasons = [
            reason(
                "DemandForecast",
                name,
                f"arrivals per second, planned for {demand.lead_s:.0f} s ahead, when a start would be ready",
                expected=demand.expected,
                planned=demand.then,
                now=demand.now,
                certain=demand.certain,
                lead_s=demand.lead_s,
            )
        ]
        reasons.extend([reason(code, name, message, **values) for code, message, values in sized.facts])
        wanted = max(sized.replicas, at_least, 1)
        if queue.requests:
            waits_s = WAIT_SHARES[tick.pool.spec.role] * sla.ttft_ms / 1000
            etas_s, _ = coming(tick.replicas, tick.snapshot.at_s, demand.lead_s)
            work_s = sized.load / demand.then if demand.then else 0.0
            left_s = backlog_left(queue.requests, work_s, demand, tick.replicas.ready, etas_s, waits_s)
            draining = math.ceil(demand.expected * work_s + left_s / self.drain_s)
            if left_s and draining > wanted:
                wanted = draining
                message = f"what waits is to be done within {self.drain_s:.0f} s of when a start would be ready"
                reasons.append(reason("BacklogDrained", name, message, queued=queue.requests, replicas=wanted))
        now = size(demand.now, near).replicas if demand.now > demand.then else 0
        want, requirements, more = self._patient(tick, requirements, wanted, max(wanted, now), outlook.level_s)
        unknown = _what_is_unknown(inputs)
        if want.replicas < tick.replicas.target and unknown is not None:
            more.append(reason("MetricUnknown", name, f"not lowered: {unknown}", wanted=want.replicas))
            want = Want(tick.replicas.target, load=want.load)
        last = LastPlan.unchecked(
            target=want.replicas,
            required=wanted,
            load=sized.load,
            attained=sized.attained,
            unattainable=sized.unattainable,
        )
        return Planned(want, requirements, reasons + more, last)

    def _patient(
        self, tick: Tick, requirements: SlidingMaximum, wanted: int, required: int, level_s: float
    ) -> tuple[Want, SlidingMaximum, list[Reason]]:
        """``wanted`` replicas, and of the present ones as many as were ``required`` within the hold."""
        name, replicas, reasons = tick.name, tick.replicas, list[Reason]()
        hold_s = max(self.restart_cost * tick.lead_s, level_s)
        requirements = with_requirement(requirements, tick.snapshot.at_s, float(required), hold_s)
        kept = math.ceil(largest(requirements))
        _, stuck = coming(replicas, tick.snapshot.at_s, tick.lead_s)
        lost = min(stuck + replicas.failed, math.ceil(MAX_REPLACED_SHARE * wanted))
        if stuck or replicas.failed:
            message = f"{stuck} starts take too long and {replicas.failed} replicas failed; {lost} more are requested"
            reasons.append(reason("ReplicasLost", name, message))
        target = max(wanted + lost, min(replicas.target, kept + lost))
        if target > wanted + lost:
            message = f"{kept} were required within the last {hold_s:.0f} s, and to start them again would cost more"
            reasons.append(reason("ScaleDownWaits", name, message, needed=kept, now=wanted))
        return Want(target, load=float(wanted)), requirements, reasons


def _what_is_unknown(inputs: PlanInputs) -> str | None:
    """Which metric is missing to lower a pool that has requests; ``None`` where none is."""
    if not inputs.outlook.arrivals.requests_per_s:
        return None
    if inputs.queue.unknown is not None:
        return inputs.queue.unknown
    traffic = inputs.tick.snapshot.traffic
    if traffic.isl is not None and traffic.osl is not None:
        return None
    return why_unknown(inputs.tick.snapshot, "traffic.isl" if traffic.isl is None else "traffic.osl")


def _without_lengths(tick: Tick, requests_per_s: float) -> Want | Hold:
    """The verdict before any lengths were observed: a pool without capacity wakes up."""
    traffic = tick.snapshot.traffic
    if not tick.replicas.target and (requests_per_s or traffic.queued):
        return Want(1)
    return Hold(why_unknown(tick.snapshot, "traffic.isl" if traffic.isl is None else "traffic.osl"), "MetricUnknown")


PLANS = Kinds(
    "plan",
    Plan,
    "dynamo_planner.sla.plan",
    {"ski_rental": "dynamo_planner.policies.sla.plan:SkiRental"},
    default="ski_rental",
)

AnyPlan = Annotated[SerializeAsAny[Plan], PLANS.validator()]
"""A field that holds a plan of any kind: one that is built, or its data."""
