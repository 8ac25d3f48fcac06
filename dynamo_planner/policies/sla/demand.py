"""Demand: the arrival rate to plan for, now and by the time that a start would be ready, and the backlog until then."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from dynamo_planner.core.snapshot import PoolStatus, Role, Snapshot
from dynamo_planner.forecasting import Forecast, Forecaster
from dynamo_planner.policies.sla.burstiness import Pattern, pattern, recent_rate
from dynamo_planner.policies.sla.state import ServiceMemory
from dynamo_planner.policies.sla.workload import rounded
from dynamo_planner.sizing import Lengths, Load
from dynamo_planner.sizing.decode import context_in_flight

MAX_PLANNED_RATIO = 2.0
"""The planned rate is at most this many times the expected one: the quantiles of a forecaster that has observed little,
or that was surprised a moment ago, are wide beyond use."""

MIN_HEADROOM_REQUESTS = 3.0
"""Requests per ``level_s`` that the planned rate may exceed that bound by: where a handful is all that is expected, a
few more may come."""

HIT_RATE_DECIMALS = 2
"""Decimals of the prefix hit rate, so that one sizing serves for many ticks."""

RATE_STEP = 0.02
"""Sizes are worked out for rates in steps of this share, so that one serves for many ticks."""


class Demand(NamedTuple):
    """Arrival rates of a service or a pool, in requests per second.

    Args:
        lead_s: Seconds from now until a start would be ready.
        expected: The mean rate by then.
        now: The rate that is planned for now, a quantile.
        then: The rate that is planned for by then, a quantile.
    """

    lead_s: float
    expected: float
    now: float
    then: float

    def times(self, share: float) -> Demand:
        """The demand of a pool that gets this share of the requests."""
        return Demand(self.lead_s, share * self.expected, share * self.now, share * self.then)


def demand(
    now: Forecast | None, then: Forecast | None, recent: float, lead_s: float, level_s: float, quantile: float
) -> Demand:
    """The demand by forecasts of now and of when a start would be ready, as means over ``level_s``.

    It is never less than the ``recent`` rate: forecasts learn of a rise only when it is over, and it may last.
    """
    if now is None or then is None:
        return Demand(lead_s, recent, recent, recent)

    def planned(forecast: Forecast) -> float:
        expected = max(forecast.mean, recent)
        limit = MAX_PLANNED_RATIO * expected + MIN_HEADROOM_REQUESTS / level_s
        return max(min(forecast.quantile(quantile), limit), recent)

    return Demand(lead_s, max(then.mean, recent), planned(now), planned(then))


class Outlook:
    """The expected demand and the workload after a snapshot, which all pools share; each is worked out once."""

    def __init__(
        self, memory: ServiceMemory, snapshot: Snapshot, forecaster: Forecaster, level_s: float, quantile: float
    ) -> None:
        self._memory, self._snapshot = memory, snapshot
        self._forecaster, self._level_s, self._quantile = forecaster, level_s, quantile
        self.hit_rate = round(memory.hit_rate or 0.0, HIT_RATE_DECIMALS)
        self._demands: dict[float, Demand] = {}

    def demand(self, lead_s: float) -> Demand:
        """The demand on the service now, and by the time that a start would be ready."""
        if lead_s not in self._demands:
            then = self._forecast(lead_s)
            self._demands[lead_s] = demand(self._now, then, self._recent, lead_s, self._level_s, self._quantile)
        return self._demands[lead_s]

    def load(self, requests_per_s: float, kv_transfer_ms: float) -> Load:
        """Requests like the recent ones at about this rate. Raises ``ValueError`` where no lengths were observed."""
        if self.isl is None or self.osl is None:
            raise ValueError("no lengths were observed")
        return Load(
            self._pattern.at(rounded(requests_per_s, RATE_STEP)), self.isl, self.osl, self.hit_rate, kv_transfer_ms
        )

    @cached_property
    def isl(self) -> Lengths | None:
        """The lengths of prompts to size for."""
        return None if self._memory.isl is None else self._memory.isl.lengths()

    @cached_property
    def osl(self) -> Lengths | None:
        """The lengths of answers to size for."""
        return None if self._memory.osl is None else self._memory.osl.lengths()

    @cached_property
    def context(self) -> float:
        """Tokens that a request in flight attends to on average; 0 where no lengths were observed."""
        return 0.0 if self.isl is None or self.osl is None else context_in_flight(self.isl, self.osl)[0]

    @cached_property
    def _pattern(self) -> Pattern:
        return pattern(self._memory.slots, self._level_s, self._snapshot.traffic.arrival_dispersion)

    @cached_property
    def _now(self) -> Forecast | None:
        return self._forecast(0.0)

    @cached_property
    def _recent(self) -> float:
        return max(recent_rate(self._memory.slots, self._level_s), self._memory.surge)

    def _forecast(self, horizon_s: float) -> Forecast | None:
        return self._forecaster.forecast(self._memory.rate, self._snapshot.at_s, horizon_s, self._level_s)


def backlog_left(
    queued: float, work_s: float, demand: Demand, ready: int, etas_s: list[float], waits_s: float
) -> float:
    """The backlog when a start would be ready, in replica-seconds of work, beyond what may wait ``waits_s``.

    Each of the queued requests is ``work_s`` of it, and so is each that arrives; ready replicas take it away, and those
    that are starting do from when they are ready, in ``etas_s`` seconds each.
    """
    if not queued:
        return 0.0
    comes = (queued + demand.expected * demand.lead_s) * work_s
    goes = ready * demand.lead_s + sum([max(demand.lead_s - eta_s, 0.0) for eta_s in etas_s])
    return max(comes - goes - (ready + len(etas_s)) * waits_s, 0.0)


def shares(pools: dict[str, PoolStatus]) -> dict[str, float]:
    """The share of each pool in the requests of its role: by its arrivals where all pools report them, else by its
    replicas."""
    shared: dict[str, float] = {}
    roles: tuple[Role, ...] = ("prefill", "decode", "aggregated")
    for role in roles:
        own = {name: pool for name, pool in pools.items() if pool.spec.role == role}
        if len(own) == 1:
            shared.update(dict.fromkeys(own, 1.0))
            continue
        arriving = {name: pool.traffic.requests_per_s for name, pool in own.items() if pool.traffic}
        known = {name: rate for name, rate in arriving.items() if rate is not None}
        weights = (
            known
            if len(known) == len(own) and any(known.values())
            else {name: float(pool.replicas.target if pool.replicas else 0) for name, pool in own.items()}
        )
        total = sum(weights.values())
        shared.update({name: weights[name] / total if total else 1 / len(own) for name in own})
    return shared
