"""Plan: the part that sets the target of a pool, for the demand to come, and lowers it no sooner than it pays."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import BeforeValidator, Field, SerializeAsAny

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.decision import Hold, Reason, Want
from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.policies.sla.arrivals import what_is_unknown
from dynamo_planner.policies.sla.demand import Demand, Outlook, backlog_left
from dynamo_planner.policies.sla.losses import Losses, LossRate, spares, together, watched
from dynamo_planner.policies.sla.part import Part
from dynamo_planner.policies.sla.planned_quantile import Attained, demand_within
from dynamo_planner.policies.sla.regret import Shortage, followed
from dynamo_planner.policies.sla.saturation import part_that_comes
from dynamo_planner.policies.sla.sliding_maximum import SlidingMaximum, largest, with_requirement
from dynamo_planner.policies.sla.startup import coming
from dynamo_planner.policies.sla.state import LastPlan
from dynamo_planner.policies.sla.tick import Queue, Tick, reason, why_unknown
from dynamo_planner.sizing import Requirement

RATE_PER_CAUTION = 0.15
"""The share by which the planned rate grows with each log-odd of caution: with the most, 4.5, by two thirds."""

COST_PER_CAUTION = 0.5
"""The share by which the price of a restart grows with each log-odd of caution."""

PLANNED_COST = 2.0
"""Start-up times after which a replica goes that was planned for, but that the expected demand did not use."""

MAX_UTILISATION = 0.9
"""With less caution than the promise asks for, enough replicas are required that the expected demand
keeps them busy for no more than this share of the time. A sizing alone would go up to 1, where queues have no end."""

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
        caution: By how much more careful to be than the promise says, in log-odds. Default 0.
        late_s: Seconds of traffic that were late since the tick before. Default 0.
        others: What the last decision for the other pools came to. Default no others.
        share: The share of requests that the pool is asked to keep in time. Default 1.
        attained: The share that a replica count keeps in time at an arrival rate. Default: unknown.
    """

    tick: Tick
    outlook: Outlook
    queue: Queue
    size: Callable[[float, int], Requirement] | None
    sla: Sla
    at_least: int = 0
    caution: float = 0.0
    late_s: float = 0.0
    others: tuple[LastPlan, ...] = ()
    share: float = 1.0
    attained: Attained = lambda rate, count: None


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


def _of_0_2(value: Any) -> Any:
    """Read a state of 0.2 and before, which had the requirements alone."""
    pairs = isinstance(value, list | tuple) and all(isinstance(each, list | tuple) and len(each) == 2 for each in value)
    return (value, ()) if pairs and value and not isinstance(value[0][0], list | tuple) else value


class PlanMemory(NamedTuple):
    """What the plan remembers of one pool.

    Args:
        used: The replicas that the expected demand required lately.
        planned: The replicas that were required lately, with the margin for what may come.
        losses: Replicas that were lost.
        shortage: What it cost that replicas were missing.
    """

    used: SlidingMaximum = ()
    planned: SlidingMaximum = ()
    losses: Losses | None = None
    shortage: Shortage | None = None


class SkiRental(Plan, kind="ski_rental"):
    """Replicas for a quantile of the demand when a start would be ready, kept until keeping costs more than starting.

    1. The requirement is that of the ``quantile`` of the forecast for when a start would be ready. With more caution
       than the promise says, the rate grows by :data:`RATE_PER_CAUTION`. With less, it is that of the lowest quantile
       with which expected misses are within what is asked (:mod:`~dynamo_planner.policies.sla.planned_quantile`).
    2. What waits now and will still wait then, with what is ready and starting at work, is drained in ``drain_s``, and
       decode is sized for what prefill drains. While starts take too long, what waits meanwhile raises no target.
    3. A replica that the expected demand used goes once nothing did for ``restart_cost`` start-up times: the
       deterministic rule of ski rental (Karlin et al. 1988; Lin, Wierman and Andrew 2011), which never costs more than
       twice what foresight would. 1 is the GPU time of a start alone; the rest is the price of the requests that are
       late until a replica is back. Where some were late again and again since replicas were missing, that price is
       known, and longer (:mod:`~dynamo_planner.policies.sla.regret`). One that was only planned for goes after
       :data:`PLANNED_COST` start-up times.
    4. A pool without requests goes to zero by the same rule. While requests run and none come, nothing goes.
    5. Where replicas were lost, there are spares for those that will be (:mod:`~dynamo_planner.policies.sla.losses`).

    Args:
        quantile: The quantile of the forecast to plan for. Default 0.9.
        drain_s: Seconds within which a backlog is drained. Default 60.
        restart_cost: Start-up times without a use after which a replica goes. Default 2.
    """

    quantile: float = Field(default=0.9, gt=0, lt=1)
    drain_s: float = Field(default=60.0, gt=0)
    restart_cost: float = Field(default=2.0, ge=0)

    state_type: ClassVar[Any] = Annotated[PlanMemory, BeforeValidator(_of_0_2)]

    def plan(self, state: PlanMemory | None, inputs: PlanInputs) -> Planned:
        tick, outlook, queue, size = inputs.tick, inputs.outlook, inputs.queue, inputs.size
        arrivals, memory = outlook.arrivals, state or PlanMemory()
        if not memory.used:
            memory = memory._replace(used=((tick.snapshot.at_s, float(tick.replicas.target)),))
        if not arrivals.requests_per_s and not queue.requests:
            running = any(pool.running for pool in tick.snapshot.pools.values())
            return self._running(memory, inputs) if running else self._idle(memory, inputs)
        if size is None:
            return Planned(_without_lengths(tick, arrivals.requests_per_s), memory, [])
        return self._sized(memory, inputs, size)

    def _running(self, memory: PlanMemory, inputs: PlanInputs) -> Planned:
        """The present target, since requests run although none come."""
        tick, message = inputs.tick, "no requests come, but some run: nothing goes"
        want, memory, reasons = self._patient(inputs, memory, *[tick.replicas.target] * 3)
        runs = reason("RequestsRun", tick.name, message, running=tick.pool.running)
        return Planned(want, memory, [runs, *reasons])

    def _idle(self, memory: PlanMemory, inputs: PlanInputs) -> Planned:
        """The target of a pool without requests: it goes to zero, with caution later."""
        want, memory, reasons = self._patient(inputs, memory, 0, 0, 0)
        return Planned(want, memory, [reason("Idle", inputs.tick.name, "none come, and none run"), *reasons])

    def _hold_s(self, inputs: PlanInputs, shortage: Shortage) -> float:
        """Seconds for which replicas that were used are kept, for a start-up time and what a shortage was worth at
        least. With 2 of 60 s, 120 s; with a caution of 2, 240 s; of -2, 60 s."""
        lead_s, caution = inputs.tick.lead_s, inputs.caution
        factor = 1 + COST_PER_CAUTION * caution if caution > 0 else math.exp(caution)
        starts = max(self.restart_cost * factor, min(self.restart_cost, 1.0))
        return max(starts * lead_s, inputs.outlook.level_s, shortage.kept_s())

    def _demand(self, inputs: PlanInputs, count: Callable[[float], int]) -> Demand:
        """The demand that is planned for: with less caution at a lower quantile, with more at a higher rate."""
        tick, outlook, caution = inputs.tick, inputs.outlook, inputs.caution
        if caution < 0:
            return demand_within(inputs.share, self.quantile, outlook, tick, count, inputs.attained)
        demand = outlook.demand(tick.lead_s, self.quantile, tick.pool.spec.role).times(tick.share)
        if not caution:
            return demand
        more = 1 + RATE_PER_CAUTION * caution
        return demand._replace(now=more * demand.now, then=more * demand.then)

    def _sized(self, memory: PlanMemory, inputs: PlanInputs, size: Callable[[float, int], Requirement]) -> Planned:
        """The target of a pool that has requests."""
        tick, queue, sla = inputs.tick, inputs.queue, inputs.sla
        name, near = tick.name, int((memory.planned or memory.used)[-1][1])
        demand = self._demand(inputs, lambda rate: size(rate, near).replicas)
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
                drift=inputs.outlook.drift(tick.pool.spec.role),
                lead_s=demand.lead_s,
            )
        ]
        reasons.extend([reason(code, name, message, **values) for code, message, values in sized.facts])
        work_s = sized.load / demand.then if demand.then else 0.0
        wanted = max(sized.replicas, inputs.at_least, 1)
        if inputs.caution < 0:
            wanted = max(wanted, math.ceil(demand.expected * work_s / MAX_UTILISATION))
        drained_per_s = 0.0
        if queue.requests:
            waits_s = WAIT_SHARES[tick.pool.spec.role] * sla.ttft_ms / 1000
            etas_s, stuck = coming(tick.replicas, tick.snapshot.at_s, demand.lead_s)
            left_s = backlog_left(queue.requests, work_s, demand, tick.replicas.ready, etas_s, waits_s)
            draining = math.ceil(demand.expected * work_s + left_s / self.drain_s)
            if stuck:
                draining = min(draining, max(near, wanted))
            if left_s and tick.pool.spec.role == "prefill":
                able = min(draining, tick.pool.spec.max_replicas or draining) - demand.expected * work_s
                drained_per_s = max(min(left_s / self.drain_s, able), 0.0) / work_s
            if left_s and draining > wanted:
                wanted = draining
                message = f"what waits is to be done within {self.drain_s:.0f} s of when a start would be ready"
                reasons.append(reason("BacklogDrained", name, message, queued=queue.requests, replicas=wanted))
        if tick.pool.spec.role == "decode":
            drained = tick.share * sum([last.drained_per_s for last in inputs.others])
            poured = demand.expected + drained
            if drained and poured > demand.then and (after := size(poured, near).replicas) > wanted:
                wanted = after
                message = "what waits for prefill comes here as it is drained"
                reasons.append(reason("BacklogDrained", name, message, requests_per_s=poured, replicas=wanted))
        now = size(demand.now, near).replicas if demand.now > demand.then else 0
        used = min(_at_rate(sized, demand.expected / demand.then), wanted) if demand.then else 0
        used = max(used, math.ceil(inputs.at_least * part_that_comes(demand.expected, queue.requests or 0.0)))
        want, memory, more = self._patient(inputs, memory, wanted, max(wanted, now), used)
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
            losses=LossRate() if memory.losses is None else memory.losses.rate,
            drained_per_s=drained_per_s,
        )
        return Planned(want, memory, reasons + more, last)

    def _patient(
        self, inputs: PlanInputs, memory: PlanMemory, wanted: int, planned: int, used: int
    ) -> tuple[Want, PlanMemory, list[Reason]]:
        """``wanted`` replicas, and of the present ones as many as were ``used`` or ``planned`` within their holds."""
        tick, reasons = inputs.tick, list[Reason]()
        name, replicas, at_s = tick.name, tick.replicas, tick.snapshot.at_s
        missing = max(1 - replicas.ready / wanted, 0.0) if wanted else 0.0
        shortage = followed(memory.shortage, at_s, missing, inputs.late_s, inputs.outlook.arrivals.window_s)
        hold_s = self._hold_s(inputs, shortage)
        margin_s = max(PLANNED_COST * tick.lead_s, inputs.outlook.level_s)
        losses = watched(memory.losses, tick.pool.replicas or replicas, at_s)
        memory = PlanMemory(
            with_requirement(memory.used, at_s, float(used), hold_s),
            with_requirement(memory.planned, at_s, float(planned), margin_s),
            losses,
            shortage,
        )
        kept = math.ceil(max(largest(memory.used), largest(memory.planned)))
        _, stuck = coming(replicas, at_s, tick.lead_s)
        most = math.ceil(MAX_REPLACED_SHARE * wanted)
        lost = min(stuck + replicas.failed, most)
        if stuck or replicas.failed:
            away = f"{stuck} starts take too long and {replicas.failed} replicas failed or sleep"
            message = f"{away}; {lost} more are requested"
            reasons.append(reason("ReplicasLost", name, message))
        felt_s = tick.lead_s + self.drain_s
        others = together(last.losses for last in inputs.others)
        spare = min(spares(losses, others, wanted, felt_s, (1 - inputs.sla.attainment) / 2), most)
        if spare:
            message = "replicas were lost lately, and are away for a start"
            reasons.append(reason("SpareForLosses", name, message, spare=spare))
        target = max(wanted + lost + spare, min(replicas.target, kept + lost))
        if target > wanted + lost + spare:
            late = hold_s <= shortage.kept_s()
            why = "requests were late without them" if late else "to start them again would cost more"
            message = f"{kept} were required within the last {hold_s:.0f} s, and {why}"
            reasons.append(reason("ScaleDownWaits", name, message, needed=kept, now=wanted))
        if target < replicas.target:
            memory = memory._replace(shortage=shortage.let_go(at_s))
        return Want.unchecked(target, float(wanted)), memory, reasons


def _at_rate(sized: Requirement, part: float) -> int:
    """The replicas for a part of the rate that was sized for: the load goes with it, and what is kept free with its
    root (square-root staffing). 10 for a load of 6 are ``ceil(6 / 4 + 4 / 2) = 4`` for a quarter of it."""
    return math.ceil(sized.load * part + max(sized.replicas - sized.load, 0.0) * math.sqrt(part))


def _what_is_unknown(inputs: PlanInputs) -> str | None:
    """Which metric is missing to lower a pool that has requests; ``None`` where none is."""
    if not inputs.outlook.arrivals.requests_per_s:
        return None
    return inputs.queue.unknown or what_is_unknown(inputs.tick.snapshot)


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
