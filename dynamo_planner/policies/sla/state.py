"""What :class:`~dynamo_planner.policies.sla.SlaPolicy` remembers: observations and recommendations, a value."""

from __future__ import annotations

from pydantic import Field

from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.forecasting import ForecastState
from dynamo_planner.policies.sla.burstiness import Slots
from dynamo_planner.policies.sla.capacity import Correction
from dynamo_planner.policies.sla.holding import Needs
from dynamo_planner.policies.sla.startup import Startup
from dynamo_planner.policies.sla.workload import LengthsSeen


class PoolMemory(Frozen):
    """Of one pool: its starts, what it needed, and how far its engine is from the profile. ``queue_seen`` says that its
    queue has ever been seen."""

    startup: Startup = Startup()
    needs: Needs = ()
    correction: Correction = Correction()
    queue_seen: bool = False


class ServiceMemory(Frozen):
    """Of the service: when traffic was last seen, and what was seen of it. ``window_rate`` is the rate of that window,
    and ``surge`` what has arrived for certain since the one before."""

    seen_s: float | None = None
    window_rate: float | None = None
    surge: float = 0.0
    rate: ForecastState | None = None
    slots: Slots | None = None
    isl: LengthsSeen | None = None
    osl: LengthsSeen | None = None
    hit_rate: float | None = None
    queue_seen: bool = False
    pools: ReadOnly[str, PoolMemory] = Field(default_factory=FrozenMap)
