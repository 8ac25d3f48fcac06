"""Capacity: the part that learns how fast the engines really are, and what lies between prefill and first token."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic import SerializeAsAny

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.decision import Reason
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.part import Part
from dynamo_planner.policies.sla.tick import Tick
from dynamo_planner.profiles import Profile
from dynamo_planner.sizing import Load


class EngineEstimate(NamedTuple):
    """How fast the engines of a pool really are.

    Args:
        slowness: How much longer the work takes than profiled. Default 1.
        offset_ms: Milliseconds between the end of a prompt and its first token. Default 0.
        at_least: Replicas that measured saturation asks for, whatever the model says. Default 0.
        reasons: What differs from the profile. Default none.
        profile: The curves to size with. Default ``None``, those of the given profile.
        present: Whether nothing is known of the engines, so that the present replicas stay. Default no.
        unsure: Whether so little is known that what is ready counts for more. Default no.
    """

    slowness: float = 1.0
    offset_ms: float = 0.0
    at_least: int = 0
    reasons: tuple[Reason, ...] = ()
    profile: Profile | None = None
    present: bool = False
    unsure: bool = False


class EngineEvidence(NamedTuple):
    """What one tick says of the engines of a pool.

    Args:
        tick: The pool and the whole snapshot, whose traffic has the latencies.
        queued: Requests waiting for the pool; ``None`` where that is unknown.
        arrivals: The arrivals at the pool.
        load: Requests like the recent ones, at the arrival rate.
        profile: Measured performance of one replica.
        work_s: Replica-seconds that a request takes where replicas are full, by the sizing with the learned speed, and
            that speed; ``None`` where it is not sized.
    """

    tick: Tick
    queued: float | None
    arrivals: ArrivalWindow
    load: Load
    profile: Profile
    work_s: Callable[[], tuple[float, float]] | None = None


class Capacity(Part):
    """How fast the engines of a pool really are. What is learned belongs to one profile."""

    @abstractmethod
    def estimate(self, state: Any, tick: Tick, queued: float | None, profile: Profile) -> EngineEstimate:
        """What was learned by the tick before, so that the latencies of this one cannot lower its own target, and what
        saturation asks for now; ``queued`` requests wait for the pool, ``None`` where that is unknown."""

    @abstractmethod
    def learn(self, state: Any, evidence: EngineEvidence) -> Any:
        """The state after a tick."""


CAPACITIES = Kinds(
    "capacity",
    Capacity,
    "dynamo_planner.sla.capacity",
    {
        "learned": "dynamo_planner.policies.sla.learned_capacity:LearnedCapacity",
        "step_model": "dynamo_planner.policies.sla.step_capacity:StepModelCapacity",
    },
    default="learned",
)

AnyCapacity = Annotated[SerializeAsAny[Capacity], CAPACITIES.validator()]
"""A field that holds a capacity of any kind: one that is built, or its data."""
