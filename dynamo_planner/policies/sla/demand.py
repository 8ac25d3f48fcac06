"""Demand: the arrival rate to plan for, now and by the time that a start would be ready, and the backlog until then."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from dynamo_planner.core.decision import Reason
from dynamo_planner.core.snapshot import PoolStatus, Role, Snapshot
from dynamo_planner.forecasting import RateForecast
from dynamo_planner.forecasting.calibration import normal_quantile
from dynamo_planner.forecasting.rate_forecaster import RateForecaster
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.tick import Queue, Tick, reason
from dynamo_planner.policies.sla.workload import Facts, Workload
from dynamo_planner.sizing import Load

MAX_PLANNED_RATIO = 1.3
"""The planned rate is at most this many times the expected one, before the drift of lengths: the quantiles of a
forecaster that has observed little, or that a step has surprised a moment ago, are wide beyond use."""

MEDIAN = 0.5
"""The quantile of a forecast that is as likely exceeded as not."""

MIN_HEADROOM_REQUESTS = 3.0
"""Requests per ``level_s`` that the planned rate may exceed that bound by: where a handful is all that is expected, a
few more may come."""


class Demand(NamedTuple):
    """Arrival rates of a service or a pool, in requests per second.

    Args:
        lead_s: Seconds from now until a start would be ready.
        expected: The mean rate by then.
        now: The rate that is planned for now, a quantile.
        then: The rate that is planned for by then, a quantile.
        certain: The rate that has come for certain, which is never planned below.
    """

    lead_s: float
    expected: float
    now: float
    then: float
    certain: float

    def times(self, share: float) -> Demand:
        """The demand of a pool that gets this share of the requests."""
        return self if share == 1 else Demand(self.lead_s, *[share * rate for rate in self[1:]])

    def with_drift(self, drift: float, quantile: float, expected_now: float) -> Demand:
        """The demand in requests like the recent ones, where the mean work of a request drifts by a factor whose
        logarithm has this standard deviation, whatever the rate is.

        ``q`` times the expected rate of ``m`` becomes ``m exp(sqrt(ln(q)**2 + (z drift)**2))``: 12 requests/s for 10
        expected ones at a quantile of 0.9 become ``10 exp(sqrt(0.182**2 + (1.28 * 0.15)**2)) = 13.0``.
        """
        off = drift * normal_quantile(quantile)
        if not off:
            return self
        now, then = _further(self.now, expected_now, off), _further(self.then, self.expected, off)
        return self._replace(now=max(now, self.certain), then=max(then, self.certain))


def demand(
    now: RateForecast | None, then: RateForecast | None, recent: float, lead_s: float, level_s: float, quantile: float
) -> Demand:
    """The demand by forecasts of now and of when a start would be ready, as means over ``level_s``.

    It is never less than the ``recent`` rate: forecasts learn of a rise only when it is over, and it may last.
    """
    if now is None or then is None:
        return Demand(lead_s, recent, recent, recent, recent)

    def planned(forecast: RateForecast) -> float:
        expected = max(forecast.mean, recent)
        limit = MAX_PLANNED_RATIO * expected + MIN_HEADROOM_REQUESTS / level_s
        return max(min(forecast.quantile(quantile), limit), recent)

    return Demand(lead_s, max(then.mean, recent), planned(now), planned(then), recent)


def _further(rate: float, expected: float, off: float) -> float:
    """A rate planned for, further from the expected one by an independent ``off`` in logarithms."""
    if rate <= 0 or expected <= 0:
        return rate
    apart = math.log(rate / expected)
    if off > 0:
        return expected * math.exp(math.hypot(max(apart, 0.0), off))
    return expected * math.exp(-math.hypot(min(apart, 0.0), off))


class Outlook:
    """The expected demand and the workload after a snapshot, which all pools share; each is worked out once.

    Args:
        arrivals: The window of traffic that the snapshot reports.
        forecast: The forecast of the rate some seconds ahead, as its mean over ``level_s``.
        load: Requests like the recent ones, at a rate; ``None`` where no lengths were observed.
        recent_per_s: The arrival rate that is certain already.
        level_s: Seconds over which rates are means.
        facts: What a reader of the numbers has to know of the workload.
        drift: The standard deviation of the logarithm of the mean work of a request, by role. Default none.
    """

    def __init__(
        self,
        arrivals: ArrivalWindow,
        forecast: Callable[[float], RateForecast | None],
        load: Callable[[float], Load | None],
        recent_per_s: float,
        level_s: float,
        facts: Facts,
        drift: Callable[[Role], float] = lambda role: 0.0,
    ) -> None:
        self.arrivals, self.level_s, self.drift, self._facts = arrivals, level_s, drift, facts
        self._forecast, self._load, self._recent = forecast, load, recent_per_s
        self._forecasts: dict[float, RateForecast | None] = {}
        self._demands: dict[tuple[float, float, Role], Demand] = {}
        self._loads: dict[tuple[float, float | None], Load | None] = {}

    def demand(self, lead_s: float, quantile: float, role: Role) -> Demand:
        """The demand on the pools of a role, now and by the time that a start would be ready."""
        key = lead_s, quantile, role
        if key not in self._demands:
            now, then = self._ahead(0.0), self._ahead(lead_s)
            rates = demand(now, then, self._recent, lead_s, self.level_s, quantile)
            expected_now = rates.expected if now is None else now.mean
            self._demands[key] = rates.with_drift(self.drift(role), quantile, expected_now)
        return self._demands[key]

    def load(self, requests_per_s: float, kv_transfer_ms: float | None = None) -> Load | None:
        """Requests like the recent ones at about this rate; ``None`` where no lengths were observed.

        ``kv_transfer_ms`` is what lies between prefill and first token; by default what the workload says.
        """
        key = requests_per_s, kv_transfer_ms
        if key not in self._loads:
            if kv_transfer_ms is None:
                found = self._load(requests_per_s)
            else:
                found = self.load(requests_per_s)
                if found is not None and found.kv_transfer_ms != kv_transfer_ms:
                    found = Load(found.arrivals, found.isl, found.osl, found.prefix_hit_rate, kv_transfer_ms)
            self._loads[key] = found
        return self._loads[key]

    def reasons(self, pool: str) -> list[Reason]:
        """What a reader of a pool's numbers has to know of the workload."""
        return [reason(code, pool, message, **values) for code, message, values in self._facts]

    def _ahead(self, ahead_s: float) -> RateForecast | None:
        if ahead_s not in self._forecasts:
            self._forecasts[ahead_s] = self._forecast(ahead_s)
        return self._forecasts[ahead_s]


def outlook_after(
    forecaster: RateForecaster,
    workload: Workload,
    rate: Any,
    work: Any,
    snapshot: Snapshot,
    arrivals: ArrivalWindow,
    level_s: float,
) -> tuple[Any, Any, Outlook]:
    """The states of a forecaster and a workload after a snapshot, a window of which counts once, and what is to be
    expected by them."""
    if arrivals.elapsed_s:
        rate = forecaster.update(rate, arrivals.at_s, arrivals.requests_per_s, arrivals.window_s)
    work = workload_after(workload, work, snapshot, arrivals)
    outlook = Outlook(
        arrivals,
        partial(forecaster.forecast, rate, snapshot.at_s, window_s=level_s),
        partial(workload.load, work, traffic=snapshot.traffic, level_s=level_s),
        workload.recent_per_s(work, level_s),
        level_s,
        workload.facts(work, level_s),
        partial(workload.drift, work),
    )
    return rate, work, outlook


def workload_after(workload: Workload, work: Any, snapshot: Snapshot, arrivals: ArrivalWindow) -> Any:
    """The state of a workload after a snapshot, a window of which counts once."""
    return workload.observe(work, snapshot.traffic, arrivals) if arrivals.elapsed_s else work


def expected_rate(tick: Tick, queue: Queue, outlook: Outlook) -> float:
    """The rate that a pool is expected to serve when a start would be ready, with what waits spread over the level."""
    demand = outlook.demand(tick.lead_s, MEDIAN, tick.pool.spec.role)
    return demand.expected * tick.share + (queue.requests or 0.0) / outlook.level_s


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
    if len({pool.spec.role for pool in pools.values()}) == len(pools):
        return dict.fromkeys(pools, 1.0)
    shared: dict[str, float] = {}
    roles: tuple[Role, ...] = ("prefill", "decode", "aggregated")
    for role in roles:
        own = {name: pool for name, pool in pools.items() if pool.spec.role == role}
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
