"""Capacity: the part that learns how fast the engines really are, and what lies between prefill and first token."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field, SerializeAsAny

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.decision import Reason
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.correction import Correction, PromptQueue, Work, by_itl, by_ttft
from dynamo_planner.policies.sla.lengths import rounded
from dynamo_planner.policies.sla.part import Part
from dynamo_planner.policies.sla.tick import REPORTED_CHANGE, Tick, reason
from dynamo_planner.profiles import Profile
from dynamo_planner.sizing import Load
from dynamo_planner.sizing.decode import context_in_flight

CORRECTION_STEP = 0.02
"""Corrections are rounded in steps of this share, so that one sizing serves for many ticks."""


class EngineEstimate(NamedTuple):
    """How fast the engines of a pool really are.

    Args:
        slowness: How much longer the work takes than profiled. Default 1.
        offset_ms: Milliseconds between the end of a prompt and its first token. Default 0.
        reasons: What differs from the profile. Default none.
    """

    slowness: float = 1.0
    offset_ms: float = 0.0
    reasons: tuple[Reason, ...] = ()


class EngineEvidence(NamedTuple):
    """What one tick says of the engines of a pool.

    Args:
        tick: The pool and the whole snapshot, whose traffic has the latencies.
        queued: Requests waiting for the pool; ``None`` where that is unknown.
        arrivals: The arrivals at the pool.
        load: Requests like the recent ones, at the arrival rate.
        profile: Measured performance of one replica.
    """

    tick: Tick
    queued: float | None
    arrivals: ArrivalWindow
    load: Load
    profile: Profile


class Capacity(Part):
    """How fast the engines of a pool really are. What is learned belongs to one profile."""

    @abstractmethod
    def estimate(self, state: Any, tick: Tick, profile: Profile) -> EngineEstimate:
        """What was learned by the tick before, so that the latencies of this one cannot lower its own target."""

    @abstractmethod
    def learn(self, state: Any, evidence: EngineEvidence) -> Any:
        """The state after a tick."""


class LearnedCapacity(Capacity, kind="learned"):
    """Per pool, how much longer the work takes than profiled: for prefill the service time at which the mean TTFT,
    with the waiting that there is at this rate with these replicas, is the observed one; for the others the ITL at the
    observed batch, which contains no waiting. It is smoothed over ten minutes, and takes effect at the next decision.

    Args:
        max_correction: The correction stays between ``1 / max_correction`` and this; 1 turns it off. Default 2.
        offset_ms: Milliseconds between prefill and the first token, with a first step of decode. Default 0.
    """

    max_correction: float = Field(default=2.0, ge=1)
    offset_ms: float = Field(default=0.0, ge=0)

    state_type: ClassVar[Any] = Correction

    def estimate(self, state: Correction | None, tick: Tick, profile: Profile) -> EngineEstimate:
        own = state or Correction()
        factor = own.factor(self.max_correction)
        reasons: tuple[Reason, ...] = ()
        if abs(factor - 1) > REPORTED_CHANGE:
            message = f"steps take {factor:.2f} times as long as profiled"
            reasons = (reason("ProfileCorrected", tick.name, message, requests=own.requests),)
        return EngineEstimate(rounded(factor, CORRECTION_STEP), self.offset_ms, reasons)

    def learn(self, state: Correction | None, evidence: EngineEvidence) -> Correction:
        own, (tick, queued, arrivals, load, profile) = state or Correction(), evidence
        work = Work(load.computed.mean, context_in_flight(load.isl, load.osl)[0])
        traffic = tick.snapshot.traffic
        if tick.pool.spec.role != "prefill":
            return by_itl(own, tick.pool, tick.replicas.ready, traffic, arrivals, work, profile)
        own_queues = tick.engine.routing != "least_loaded"
        service_s = profile.prefill.ttft_ms(work.computed) / 1000
        prompts = PromptQueue(service_s, load.isl.cv2 + (not own_queues), self.offset_ms, own_queues)
        arrivals = arrivals.times(1 / profile.prefill_points.ranks)
        return by_ttft(own, tick.replicas, queued, traffic, arrivals, prompts)


CAPACITIES = Kinds(
    "capacity",
    Capacity,
    "dynamo_planner.sla.capacity",
    {"learned": "dynamo_planner.policies.sla.capacity:LearnedCapacity"},
    default="learned",
)

AnyCapacity = Annotated[SerializeAsAny[Capacity], CAPACITIES.validator()]
"""A field that holds a capacity of any kind: one that is built, or its data."""
