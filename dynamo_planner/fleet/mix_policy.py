"""MixPolicy: the cheapest replicas of several pools of one role, on different GPUs, that keep the promise.

In each tick, and for each role:

1. The demand is forecast for when the slowest start would be ready. The cheapest mix that serves it is the target
   (:func:`~dynamo_planner.fleet.cheapest_mix`), or what there is, where that does as well and costs at most ``margin``
   more.
2. What is slower to start is not there at once. For each shorter start-up time, the pools that start within it get what
   is missing then beside the slower ones, as far as these will be ready by that time.
3. What goes waits for what comes: no pool falls as long as the ready replicas that are to stay do not serve the
   demand of now.

The weights for a router (``Decision.routing_weights``, and reasons ``RoutingWeight``) are the shares of the rates that
the ready replicas of each pool serve in time. More than its weight to a pool would be late there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from dynamo_planner.core.decision import Hold, Proposal, Reason, State, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.pool_names import PoolName
from dynamo_planner.core.snapshot import PoolSpec, Replicas, Role, Sla, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.fleet.mix import Hardware, Mix, cheapest_mix, rates_in_time
from dynamo_planner.forecasting import Forecaster
from dynamo_planner.forecasting.rate_forecaster import AnyForecaster
from dynamo_planner.policies.sla.arrivals import arrivals_in, what_is_unknown, why_no_arrivals
from dynamo_planner.policies.sla.demand import Outlook, outlook_after
from dynamo_planner.policies.sla.part import Recalled
from dynamo_planner.policies.sla.startup import coming
from dynamo_planner.policies.sla.workload import AnyWorkload, RecentWorkload
from dynamo_planner.profiles import NamedProfile
from dynamo_planner.sizing import Load, PercentileSizing
from dynamo_planner.sizing.memo import Memo

SIZED_COUNTS = 8
"""Replicas up to which the rate that a pool serves in time is worked out; more serve in proportion, which is less than
they could."""

DEFAULT_INVENTORY = 256
"""Replicas that a pool without ``max_replicas`` may have."""

RATES_KEPT = 64
"""Rates of pools that are kept for the ticks to come."""


class PoolHardware(Frozen):
    """The hardware of one pool.

    Args:
        profile: Measured performance of one replica.
        cost: The price of a replica-hour, in any unit. Default ``None``: ``PoolSpec.cost``, or the GPUs of a replica.
        spot: Whether its replicas can be taken away. Default false.
        lost_per_h: The share of its replicas that is lost in an hour. Default 0.
    """

    profile: NamedProfile
    cost: Annotated[float, Field(ge=0)] | None = None
    spot: bool = False
    lost_per_h: Annotated[float, Field(ge=0)] = 0.0

    def price(self, spec: PoolSpec) -> float:
        """The price of a replica-hour."""
        if self.cost is not None:
            return self.cost
        return float(max(spec.gpus, 1)) if spec.cost is None else spec.cost


class MixMemory(Frozen):
    """The memory of a mix.

    Args:
        seen_s: When the last window of traffic ended, in Unix seconds.
        forecaster: The state of the forecaster.
        workload: The state of the workload.
    """

    seen_s: float | None = None
    forecaster: State | None = None
    workload: State | None = None


class MixedPool(NamedTuple):
    """One pool of a role: its hardware, with the rates of its counts, and its replicas."""

    hardware: Hardware
    replicas: Replicas

    def serves(self, count: int) -> float:
        """Requests per second that so many replicas serve in time."""
        rates = self.hardware.rates
        return rates[min(count, len(rates) - 1)]

    def there_within(self, seconds: float, at_s: float) -> int:
        """Replicas that are ready by then."""
        etas_s, _ = coming(self.replicas, at_s, self.hardware.startup_s)
        return self.replicas.ready + sum(eta_s <= seconds for eta_s in etas_s)


class MixPolicy(Policy, kind="mix"):
    """The cheapest mix of pools of one role on different GPUs, by the forecast of the demand.

    Args:
        pools: The hardware of each pool; a pool that is not named is left alone.
        sla: The targets.
        on_demand: The share of the demand, 0 to 1, that hardware which cannot be taken away serves. Default 0.
        margin: What there is stays while it costs at most this share more than the cheapest mix. Default 0.05.
        quantile: The quantile of the forecast to plan for. Default 0.9.
        level_s: Seconds over which arrival rates are means. Default 60.
        max_age_s: Seconds after which traffic is unknown. Default 60.
        forecaster: Forecasts the arrival rate.
        workload: Knows what requests are like.
    """

    pools: Annotated[ReadOnly[PoolName, PoolHardware], Field(min_length=1)]
    sla: Sla
    on_demand: float = Field(default=0.0, ge=0, le=1)
    margin: float = Field(default=0.05, ge=0)
    quantile: float = Field(default=0.9, gt=0, lt=1)
    level_s: float = Field(default=60.0, gt=0)
    max_age_s: float = Field(default=60.0, gt=0)
    forecaster: AnyForecaster = Field(default_factory=Forecaster)
    workload: AnyWorkload = Field(default_factory=RecentWorkload)

    monotone: ClassVar[bool] = False
    monotone_reason: ClassVar[str] = "a higher load may be served by fewer replicas of another kind"

    state_type: ClassVar[Any] = MixMemory

    def propose(self, snapshot: Snapshot, state: MixMemory | None) -> tuple[Proposal, MixMemory]:
        memory, recall = state or MixMemory(), Recalled()
        arrivals = arrivals_in(snapshot, memory.seen_s, self.max_age_s)
        known = {name: each for name in self.pools if (each := _replicas(snapshot, name)) is not None}
        if arrivals is None:
            message = why_no_arrivals(snapshot, self.max_age_s)
            return Proposal.hold(known, message, "MetricUnknown").because(*recall.reasons), memory
        rate, work = recall(self.forecaster, memory.forecaster), recall(self.workload, memory.workload)
        parts = self.forecaster, self.workload
        rate, work, outlook = outlook_after(*parts, rate, work, snapshot, arrivals, self.level_s)
        memory = MixMemory.unchecked(
            seen_s=arrivals.at_s, forecaster=self.forecaster.remember(rate), workload=self.workload.remember(work)
        )
        load = outlook.load(1.0)
        if load is None:
            return Proposal.hold(known, "no lengths were observed yet", "MetricUnknown").because(
                *recall.reasons
            ), memory
        entries: dict[str, Want | Hold] = {}
        weights: dict[str, float] = {}
        reasons = list(recall.reasons)
        roles = dict.fromkeys(snapshot.pools[name].spec.role for name in known)
        for role in roles:
            own = {name: replicas for name, replicas in known.items() if snapshot.pools[name].spec.role == role}
            share = 1 - (1 - self.sla.attainment) / len(roles)
            found, shares, why = self._mixed(snapshot, role, own, share, load, outlook)
            entries.update(found)
            weights.update(shares)
            reasons += why
        return Proposal.unchecked(
            pools=FrozenMap(entries), reasons=tuple(reasons), routing_weights=FrozenMap(weights)
        ), memory

    def _mixed(
        self, snapshot: Snapshot, role: Role, known: Mapping[str, Replicas], share: float, load: Load, outlook: Outlook
    ) -> tuple[Mapping[str, Want | Hold], Mapping[str, float], list[Reason]]:
        """The targets and the weights of the pools of one role, of whose requests a share is to be in time."""
        specs = {name: snapshot.pools[name].spec for name in known}
        slowest_s = max(spec.startup_s for spec in specs.values())
        demand = outlook.demand(slowest_s, self.quantile, role)
        most = max(demand.then, demand.now)
        parts = {name: self._part(name, specs[name], own, share, load, most) for name, own in known.items()}
        if most and not any(own.serves(DEFAULT_INVENTORY) for own in parts.values()):
            message = f"{1 - share:.1%} or more of the requests are late on every pool, however many replicas it has"
            return dict.fromkeys(parts, Hold(message, "Unattainable")), {}, []
        mix = self._cheapest(parts, demand.then)
        counts = dict(mix.replicas)
        for within_s in sorted({own.hardware.startup_s for own in parts.values()} - {slowest_s}):
            self._bridge(counts, parts, within_s, outlook.demand(within_s, self.quantile, role).then, snapshot.at_s)
        staying = sum(own.serves(min(own.replicas.ready, counts[name])) for name, own in parts.items())
        waits = staying < demand.now
        unknown = what_is_unknown(snapshot)
        stays = waits or unknown is not None
        targets = {
            name: max(counts[name], own.replicas.target) if stays else counts[name] for name, own in parts.items()
        }
        reasons = [
            Reason(
                code="MixChosen",
                message=f"{mix.served_per_s:.3g} requests/s in time for {mix.cost:.3g} an hour",
                values={"demand": demand.then, "cost": mix.cost, "served": mix.served_per_s},
            )
        ]
        for name, target in targets.items():
            if target > counts[name]:
                code, message = "MixWaits", "what goes waits for what comes"
                if unknown is not None:
                    code, message = "MetricUnknown", f"not lowered: {unknown}"
                reasons.append(Reason(code=code, pool=name, message=message, values={"wanted": counts[name]}))
        weights = _weights(parts)
        reasons += [
            Reason(code="RoutingWeight", pool=name, message=f"{share:.0%} of the requests", values={"weight": share})
            for name, share in weights.items()
        ]
        return {name: Want(target, load=float(counts[name])) for name, target in targets.items()}, weights, reasons

    def _cheapest(self, parts: Mapping[str, MixedPool], requests_per_s: float) -> Mix:
        """The cheapest mix, or what there is where it does as well for about as much."""
        mix = cheapest_mix([own.hardware for own in parts.values()], requests_per_s, self.on_demand)
        present = {name: own.replicas.target for name, own in parts.items()}
        rates = {name: own.hardware.present() * own.serves(present[name]) for name, own in parts.items()}
        steady = sum(rate for name, rate in rates.items() if not parts[name].hardware.spot)
        cost = sum(own.hardware.cost * present[name] for name, own in parts.items())
        served = sum(rates.values())
        if served < requests_per_s or steady < self.on_demand * requests_per_s or cost > (1 + self.margin) * mix.cost:
            return mix
        return Mix(present, {name: rate / served if served else 0.0 for name, rate in rates.items()}, cost, served)

    def _bridge(
        self,
        counts: dict[str, int],
        parts: Mapping[str, MixedPool],
        within_s: float,
        requests_per_s: float,
        at_s: float,
    ) -> None:
        """Raise the pools that start within a time to what is missing by then beside the slower ones."""
        slower = {name: own for name, own in parts.items() if own.hardware.startup_s > within_s}
        there = sum(own.serves(min(own.there_within(within_s, at_s), counts[name])) for name, own in slower.items())
        quick = {name: own for name, own in parts.items() if name not in slower}
        if there + sum(own.serves(counts[name]) for name, own in quick.items()) >= requests_per_s:
            return
        missing = cheapest_mix([own.hardware for own in quick.values()], requests_per_s - there)
        for name, count in missing.replicas.items():
            counts[name] = max(counts[name], count)

    def _part(
        self, name: str, spec: PoolSpec, replicas: Replicas, share: float, load: Load, requests_per_s: float
    ) -> MixedPool:
        """A pool with the rates that it serves in time, up to the demand or all that it may have."""
        own, sla = self.pools[name], self.sla.replace(attainment=share)
        key = name, spec.role, share, load.isl, load.osl, load.prefix_hit_rate
        sized = self._rates.get(key, lambda: rates_in_time(self._sizings[name], load, sla, spec.role, SIZED_COUNTS))
        limit = DEFAULT_INVENTORY if spec.max_replicas is None else spec.max_replicas
        rates, per_replica = list(sized[: limit + 1]), sized[-1] / SIZED_COUNTS
        while per_replica and rates[-1] < requests_per_s and len(rates) <= limit:
            rates.append(per_replica * len(rates))
        hardware = Hardware(name, own.price(spec), rates, own.spot, own.lost_per_h, spec.startup_s)
        return MixedPool(hardware, replicas)

    @cached_property
    def _sizings(self) -> dict[str, PercentileSizing]:
        return {name: PercentileSizing(own.profile) for name, own in self.pools.items()}

    @cached_property
    def _rates(self) -> Memo[tuple[float, ...]]:
        return Memo(RATES_KEPT)


def _replicas(snapshot: Snapshot, name: str) -> Replicas | None:
    pool = snapshot.pools.get(name)
    return None if pool is None else pool.replicas


def _weights(parts: Mapping[str, MixedPool]) -> dict[str, float]:
    """The share of the requests for each pool: by what its ready replicas serve in time."""
    rates = {name: own.serves(own.replicas.ready) for name, own in parts.items()}
    total = sum(rates.values())
    return {name: rate / total for name, rate in rates.items()} if total else {}
