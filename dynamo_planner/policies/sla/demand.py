"""What is asked of one pool now and by the time that a start would be ready, and what has piled up until then."""

from __future__ import annotations

from typing import NamedTuple

from dynamo_planner.core.snapshot import PoolStatus, Role
from dynamo_planner.forecasting import Forecast


class Demand(NamedTuple):
    """Arrivals per second: expected by the time that a start would be ready (``lead_s``), and planned for now and then
    (a quantile of what they may be)."""

    lead_s: float
    expected: float
    now: float
    then: float

    def times(self, share: float) -> Demand:
        """The demand of a pool that gets this share of the requests."""
        return Demand(self.lead_s, share * self.expected, share * self.now, share * self.then)


MOST_RISE = 2.0
"""What is planned for is at most this many times what is expected: of a forecaster that has seen little, or that was
surprised a moment ago, the quantiles are wide beyond use."""

FEW = 3.0
"""Where a handful of requests is all that is expected, so many more may come."""


def demand(
    now: Forecast | None, then: Forecast | None, recent: float, lead_s: float, level_s: float, quantile: float
) -> Demand:
    """The demand by forecasts of now and of when a start would be ready, as means over ``level_s``, and never less than
    the ``recent`` rate: forecasts learn of a rise only when it is over, and it may last."""
    if now is None or then is None:
        return Demand(lead_s, recent, recent, recent)

    def planned(forecast: Forecast) -> float:
        expected = max(forecast.mean, recent)
        return max(min(forecast.quantile(quantile), MOST_RISE * expected + FEW / level_s), recent)

    return Demand(lead_s, max(then.mean, recent), planned(now), planned(then))


def backlog_left(
    queued: float, work_s: float, demand: Demand, ready: int, etas_s: list[float], waits_s: float
) -> float:
    """Replica-seconds of work that are still waiting when a start would be ready, beyond what may wait.

    Each of the queued requests is ``work_s`` of it, and so is each that arrives; ready replicas take it away, and those
    that are coming do from when they are there. What is done within ``waits_s`` is in time.
    """
    if not queued:
        return 0.0
    comes = (queued + demand.expected * demand.lead_s) * work_s
    goes = ready * demand.lead_s + sum([max(demand.lead_s - eta_s, 0.0) for eta_s in etas_s])
    return max(comes - goes - (ready + len(etas_s)) * waits_s, 0.0)


def shares(pools: dict[str, PoolStatus]) -> dict[str, float]:
    """The share of each pool in the requests of its role: by what arrives at each where that is known of all, else by
    how many replicas each has."""
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
