"""The state of :class:`~dynamo_planner.policies.sla.SlaPolicy`: observations and recommendations, as a value."""

from __future__ import annotations

from pydantic import Field

from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.forecasting import Forecaster, ForecastState
from dynamo_planner.forecasting.experts.base import decayed
from dynamo_planner.policies.sla.burstiness import ArrivalWindow, Slots, counted, recent_rate, surge
from dynamo_planner.policies.sla.capacity import Correction
from dynamo_planner.policies.sla.startup import Startup
from dynamo_planner.policies.sla.workload import ObservedLengths, learned

HIT_RATE_HALF_LIFE_S = 300.0
"""The prefix hit rate that is remembered goes half the way to the observed one in this time, in seconds."""


SlidingMaximum = tuple[tuple[float, float], ...]
"""A sliding-window maximum of the required replicas: pairs of time (Unix seconds) and count, oldest first, each count
less than the one before, since what is less than something newer never is the maximum."""


class PoolMemory(Frozen):
    """The memory of one pool.

    Args:
        startup: How long its starts took.
        needs: The replicas that it required lately.
        correction: How far its engine is from the profile.
        queue_seen: Whether its queue was ever reported.
    """

    startup: Startup = Startup()
    needs: SlidingMaximum = ()
    correction: Correction = Correction()
    queue_seen: bool = False


class ServiceMemory(Frozen):
    """The memory of the service.

    Args:
        seen_s: When the last window of traffic ended, in Unix seconds.
        window_rate: The arrival rate of that window, in requests per second.
        surge: The rate that has arrived for certain since the window before, in requests per second.
        rate: The state of the forecaster.
        slots: Past arrivals, for their burstiness.
        isl: The lengths of prompts.
        osl: The lengths of answers.
        hit_rate: The share of prompt tokens served from the prefix cache.
        queue_seen: Whether the queue at the frontend was ever reported.
        pools: The memory of each pool.
    """

    seen_s: float | None = None
    window_rate: float | None = None
    surge: float = 0.0
    rate: ForecastState | None = None
    slots: Slots | None = None
    isl: ObservedLengths | None = None
    osl: ObservedLengths | None = None
    hit_rate: float | None = None
    queue_seen: bool = False
    pools: ReadOnly[str, PoolMemory] = Field(default_factory=FrozenMap)


def remembered(
    memory: ServiceMemory, snapshot: Snapshot, arrivals: ArrivalWindow, forecaster: Forecaster
) -> ServiceMemory:
    """The memory of the service after a snapshot; a window that was counted before is not counted again."""
    traffic = snapshot.traffic
    queue_seen = memory.queue_seen or traffic.queued is not None
    if not arrivals.elapsed_s:
        return memory.replace(queue_seen=queue_seen)
    rate, requests = arrivals.requests_per_s, arrivals.new_requests
    before = memory.window_rate
    usual = recent_rate(memory.slots, arrivals.window_s)
    return ServiceMemory.unchecked(
        seen_s=arrivals.at_s,
        window_rate=rate,
        surge=0.0 if before is None else surge(rate, arrivals.window_s, before, arrivals.elapsed_s, usual),
        rate=forecaster.update(memory.rate, arrivals.at_s, rate, arrivals.window_s),
        slots=counted(memory.slots, arrivals.at_s, rate, arrivals.window_s),
        isl=learned(memory.isl, traffic.isl, requests, arrivals.elapsed_s),
        osl=learned(memory.osl, traffic.osl, requests, arrivals.elapsed_s),
        hit_rate=_followed(memory.hit_rate, traffic.prefix_hit_rate, arrivals.elapsed_s),
        queue_seen=queue_seen,
        pools=memory.pools,
    )


def _followed(before: float | None, observed: float | None, elapsed_s: float) -> float | None:
    if observed is None or before is None:
        return before if observed is None else observed
    return observed + decayed(elapsed_s, HIT_RATE_HALF_LIFE_S) * (before - observed)
