"""From a snapshot to what is remembered of it."""

from __future__ import annotations

from typing import NamedTuple

from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.forecasting import Forecaster
from dynamo_planner.forecasting.experts.expert import decayed
from dynamo_planner.policies.sla.burstiness import counted, recent_rate, surge
from dynamo_planner.policies.sla.state import ServiceMemory
from dynamo_planner.policies.sla.workload import learned

USUAL_WINDOW_S = 60.0
"""Stands for a window that is not told, where nothing was seen before either."""

WINDOW_RANGE_S = (1e-3, 86_400.0)

HIT_RATE_HALF_LIFE_S = 300.0


class Seen(NamedTuple):
    """The arrivals of a snapshot, over how long, and how long after those before (0: they are those)."""

    at_s: float
    requests_per_s: float
    window_s: float
    elapsed_s: float

    @property
    def requests(self) -> float:
        """How many of the requests are new."""
        return self.requests_per_s * min(self.window_s, self.elapsed_s)

    def times(self, share: float) -> Seen:
        """The arrivals at a pool that gets this share of them."""
        return self._replace(requests_per_s=share * self.requests_per_s)


def seen_in(snapshot: Snapshot, before_s: float | None, max_age_s: float) -> Seen | None:
    """The arrivals of a snapshot, or ``None`` where they are unknown or too old; ``before_s`` is of those before."""
    traffic = snapshot.traffic
    at_s, rate = traffic.observed_at_s, traffic.requests_per_s
    if at_s is None or rate is None or snapshot.at_s - at_s > max_age_s:
        return None
    at_s = min(at_s, snapshot.at_s)
    since_s = None if before_s is None else max(at_s - before_s, 0.0)
    window_s = traffic.window_s or since_s or USUAL_WINDOW_S
    window_s = min(max(window_s, WINDOW_RANGE_S[0]), WINDOW_RANGE_S[1])
    elapsed_s = window_s if since_s is None else min(since_s, WINDOW_RANGE_S[1])
    return Seen(at_s, rate, window_s, elapsed_s)


def remembered(memory: ServiceMemory, snapshot: Snapshot, seen: Seen, forecaster: Forecaster) -> ServiceMemory:
    """What is remembered of the service after a snapshot; what was counted before is not counted again."""
    traffic = snapshot.traffic
    queue_seen = memory.queue_seen or traffic.queued is not None
    if not seen.elapsed_s:
        return memory.replace(queue_seen=queue_seen)
    rate, requests = seen.requests_per_s, seen.requests
    before = memory.window_rate
    usual = recent_rate(memory.slots, seen.window_s)
    return ServiceMemory.unchecked(
        seen_s=seen.at_s,
        window_rate=rate,
        surge=0.0 if before is None else surge(rate, seen.window_s, before, seen.elapsed_s, usual),
        rate=forecaster.update(memory.rate, seen.at_s, rate, seen.window_s),
        slots=counted(memory.slots, seen.at_s, rate, seen.window_s),
        isl=learned(memory.isl, traffic.isl, requests, seen.elapsed_s),
        osl=learned(memory.osl, traffic.osl, requests, seen.elapsed_s),
        hit_rate=_followed(memory.hit_rate, traffic.prefix_hit_rate, seen.elapsed_s),
        queue_seen=queue_seen,
        pools=memory.pools,
    )


def _followed(before: float | None, seen: float | None, elapsed_s: float) -> float | None:
    if seen is None or before is None:
        return before if seen is None else seen
    return seen + decayed(elapsed_s, HIT_RATE_HALF_LIFE_S) * (before - seen)
