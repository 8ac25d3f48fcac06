"""DeferrablePolicy: interactive and deferrable requests on one pool.

A gateway holds deferrable requests (a batch, an evaluation, embeddings of a corpus) back. The wrapped policy sizes for
the interactive ones as if there were no others; beside them the deferrable ones fill what is idle, and replicas are
added only where they would miss their deadlines. With

====================  =================================================================================================
``rate``              interactive requests per second: the larger of the last window's and of the recent mean
``I(n), D(k, n)``     requests per second that ``n`` replicas serve with the interactive requests' targets kept, were
                      they all interactive, or all of class ``k`` (:func:`~dynamo_planner.fleet.rates_in_time`)
``free(n)``           ``max(1 - reserve - rate / I(n), 0)``: the part of ``n`` replicas that is free for others
``due(n)``            ``max over deadlines d of (sum of requests(k) due by d / D(k, n)) / left(d)``: the part they take
``left(d)``           ``max(d - now - startup, HURRY_S)``: the time that new replicas have for what is due by ``d``
====================  =================================================================================================

the target is the smallest ``n`` of at least what the wrapped policy wants with ``free(n) >= due(n)``, and the ready
replicas get the classes in the order of their deadlines, each at most ``free(n) * D(k, n)``. So when GPUs are short,
the deferrable requests go first. With ``I(4) = 40`` and 26 requests/s, a reserve of 0.1 leaves 0.25 of four replicas:
5 requests/s of a class with ``D(4) = 20``. For 24,000 of those within 20 minutes, which is all of four replicas, more
are needed.

With prefill and decode both keep this, and the lesser rate counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import Field

from dynamo_planner.core.decision import Proposal, Reason, State, Want
from dynamo_planner.core.metrics import Deferred, StageTimes
from dynamo_planner.core.policy import AnyPolicy, Policy, advance, predicted
from dynamo_planner.core.snapshot import PoolStatus, Role, Sla, Snapshot
from dynamo_planner.core.values import Frozen, FrozenMap
from dynamo_planner.fleet.mix import rates_in_time
from dynamo_planner.fleet.spare import SIZED_COUNTS, Capacity, rate_of
from dynamo_planner.policies.sla.arrivals import ArrivalWindow, arrivals_in, what_is_unknown
from dynamo_planner.policies.sla.demand import workload_after
from dynamo_planner.policies.sla.part import Recalled
from dynamo_planner.policies.sla.tick import why_unknown
from dynamo_planner.policies.sla.workload import AnyWorkload, RecentWorkload
from dynamo_planner.profiles import NamedProfile
from dynamo_planner.sizing import Load, PercentileSizing
from dynamo_planner.sizing.memo import Memo

MOST_REPLICAS = 256
"""Replicas that a pool without ``max_replicas`` may be raised to for a deadline."""

HURRY_S = 600.0
"""The time in seconds in which requests that are overdue, or nearly so, are to be done: for less, ever more replicas
would be started for a few minutes."""

LEVEL_S = 60.0
"""Seconds over which the recent rate of the interactive requests is a mean, and in which a class may be done at most:
what it does not need is left to the next."""

RATES_KEPT = 64
"""Rates that are kept for the ticks to come."""


class DeferrableMemory(Frozen):
    """The memory of the policy.

    Args:
        policy: The state of the wrapped policy.
        seen_s: When the last window of traffic ended, in Unix seconds.
        workload: The state of the workload.
    """

    policy: State | None = None
    seen_s: float | None = None
    workload: State | None = None


class DeferrablePolicy(Policy, kind="deferrable"):
    """Interactive and deferrable requests on one pool of each role.

    Args:
        policy: Decides for the interactive requests. It is to size by arrivals, as ``SlaPolicy`` does: while deferrable
            requests run it is not shown the latencies, stage times and requests in flight, which are of both.
        classes: The deferrable classes. One that is not in a snapshot is unknown: nothing of it is released, and no
            pool is lowered.
        sla: The targets of the interactive requests, which stay kept while others run beside them.
        profile: Measured performance of one replica.
        reserve: The share of what a pool serves in time that stays free for more interactive requests, 0 to 1.
            Default 0.1.
        max_age_s: Seconds after which traffic and what waits are unknown. Default 90.
        workload: Knows what interactive requests are like.
    """

    policy: AnyPolicy
    classes: Annotated[tuple[str, ...], Field(min_length=1)]
    sla: Sla
    profile: NamedProfile
    reserve: float = Field(default=0.1, ge=0, lt=1)
    max_age_s: float = Field(default=90.0, gt=0)
    workload: AnyWorkload = Field(default_factory=RecentWorkload)

    monotone: ClassVar[bool] = False
    monotone_reason: ClassVar[str] = "as the wrapped policy, and by what is deferred"

    state_type: ClassVar[Any] = DeferrableMemory

    def propose(self, snapshot: Snapshot, state: DeferrableMemory | None) -> tuple[Proposal, DeferrableMemory]:
        memory, recall = state or DeferrableMemory(), Recalled()
        proposal, own = advance(self.policy, self._interactive(snapshot), memory.policy)
        memory = memory.replace(policy=own)
        waiting, unknown = self._waiting(snapshot)
        arrivals = arrivals_in(snapshot, memory.seen_s, self.max_age_s)
        load: Load | None = None
        if arrivals is not None:
            work = workload_after(self.workload, recall(self.workload, memory.workload), snapshot, arrivals)
            memory = memory.replace(seen_s=arrivals.at_s, workload=self.workload.remember(work))
            rate = max(arrivals.requests_per_s, self.workload.recent_per_s(work, LEVEL_S))
            load = self.workload.load(work, rate, traffic=snapshot.traffic, level_s=LEVEL_S)
        proposal = proposal.because(*recall.reasons)
        if arrivals is None or (load is None and arrivals.requests_per_s):
            unknown = unknown or "how many interactive requests come, and how long they are, is unknown"
        else:
            unknown = unknown or what_is_unknown(snapshot)
        if arrivals is not None and waiting:
            proposal = self._filled(snapshot, proposal, waiting, arrivals, load)
        return (proposal if unknown is None else _not_lowered(snapshot, proposal, unknown)), memory

    def predict(
        self, snapshot: Snapshot, state: DeferrableMemory | None, counts: Mapping[str, Sequence[int]]
    ) -> Mapping[str, Sequence[float] | None] | None:
        """The share of the interactive requests in time, as the wrapped policy says it."""
        return predicted(self.policy, self._interactive(snapshot), None if state is None else state.policy, counts)

    def _interactive(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot as the wrapped policy sees it: what is measured of both is unknown."""
        running = [snapshot.deferred[name].running for name in self.classes if name in snapshot.deferred]
        if not any(count is None or count > 0 for count in running):
            return snapshot
        traffic = snapshot.traffic.replace(ttft_ms=None, itl_ms=None, token_gap_ms=None, request_duration_s=None)
        pools = {
            name: pool.replace(running=None, stages=StageTimes(), workers=()) for name, pool in snapshot.pools.items()
        }
        return snapshot.replace(traffic=traffic, pools=FrozenMap(pools))

    def _waiting(self, snapshot: Snapshot) -> tuple[dict[str, Deferred], str | None]:
        """What waits of each class, and what is unknown of it."""
        known = {
            name: own
            for name in self.classes
            if (own := snapshot.deferred.get(name)) is not None and snapshot.age_s(own.observed_at_s) <= self.max_age_s
        }
        unknown = [f"deferred.{name}" for name in self.classes if name not in known]
        unknown += [f"deferred.{name}.isl" for name, own in known.items() if own.isl is None]
        unknown += [f"deferred.{name}.osl" for name, own in known.items() if own.osl is None]
        sized = {name: own for name, own in known.items() if own.isl is not None and own.osl is not None}
        return sized, why_unknown(snapshot, unknown[0]) if unknown else None

    def _filled(
        self,
        snapshot: Snapshot,
        proposal: Proposal,
        waiting: Mapping[str, Deferred],
        arrivals: ArrivalWindow,
        load: Load | None,
    ) -> Proposal:
        """The proposal with the replicas that deadlines need, and the rates at which classes are released."""
        pools = {pool.spec.role: (name, pool) for name, pool in snapshot.pools.items()}
        if len(pools) < len(snapshot.pools) or any(pool.replicas is None for _, pool in pools.values()):
            message = "nothing is released: it takes one pool of each role, whose replicas are known"
            return proposal.because(Reason(code="ReleaseRate", message=message))
        rate = arrivals.requests_per_s if load is None else load.arrivals.requests_per_s
        capacity = {role: self._capacity(role, len(pools), waiting, load) for role in pools}
        changes, reasons, room = {}, list[Reason](), {}
        for role, (name, pool) in pools.items():
            wanted = proposal.wanted(snapshot, name) or 0
            needed = self._needed(snapshot, pool, capacity[role], waiting, rate, wanted)
            if needed > wanted:
                entry = proposal.pools.get(name)
                changes[name] = Want(needed, entry.load if isinstance(entry, Want) else None)
                message = f"{needed - wanted} replicas more than the interactive requests need, for deadlines"
                reasons.append(Reason(code="DeadlineNeeds", pool=name, message=message, values={"replicas": needed}))
            ready = min(pool.replicas.ready if pool.replicas else 0, needed)
            room[role] = ready, self._free(capacity[role], rate, ready)
        rates = self._released(waiting, capacity, room)
        for name, released in rates.items():
            message = f"{released:.3g} requests/s of {name}, of which {waiting[name].waiting:g} wait"
            values = {"class": name, "requests_per_s": released, "waiting": waiting[name].waiting}
            reasons.append(Reason(code="ReleaseRate", message=message, values=values))
        return proposal.with_pools(changes, reasons).replace(release_rates=FrozenMap(rates))

    def _needed(
        self,
        snapshot: Snapshot,
        pool: PoolStatus,
        capacity: Capacity,
        waiting: Mapping[str, Deferred],
        rate: float,
        wanted: int,
    ) -> int:
        """The smallest count from ``wanted`` on that serves what is deferred by its deadlines beside the others."""
        limit = MOST_REPLICAS if pool.spec.max_replicas is None else pool.spec.max_replicas
        deadlines = sorted({due_s for own in waiting.values() for due_s in own.due})
        left_s = {due_s: max(due_s - snapshot.at_s - pool.spec.startup_s, HURRY_S) for due_s in deadlines}
        for count in range(wanted, limit + 1):
            due = capacity.due(waiting, count, left_s)
            if due <= self._free(capacity, rate, count) and (count or not left_s):
                return count
        return max(wanted, limit)

    def _free(self, capacity: Capacity, rate: float, count: int) -> float:
        return capacity.free(rate, count, self.reserve) if rate else 1 - self.reserve

    def _released(
        self,
        waiting: Mapping[str, Deferred],
        capacity: Mapping[Role, Capacity],
        room: dict[Role, tuple[int, float]],
    ) -> dict[str, float]:
        """The rate of each class, those with the soonest deadlines first."""
        rates = {}
        for name in sorted(waiting, key=lambda name: (min(waiting[name].due, default=0.0), name)):
            most = {role: rate_of(capacity[role].classes[name], ready) for role, (ready, _) in room.items()}
            rate = min([waiting[name].waiting / LEVEL_S, *[free * most[role] for role, (_, free) in room.items()]])
            for role, (ready, free) in room.items():
                room[role] = ready, max(free - rate / most[role], 0.0) if most[role] else free
            rates[name] = rate
        return rates

    def _capacity(self, role: Role, roles: int, waiting: Mapping[str, Deferred], load: Load | None) -> Capacity:
        """What the replicas of a role serve of the interactive requests, and of each class."""
        sla = self.sla.replace(attainment=1 - (1 - self.sla.attainment) / roles)
        classes = {
            name: Load.of(1.0, own.isl, own.osl)
            for name, own in waiting.items()
            if own.isl is not None and own.osl is not None
        }
        own = (0.0,) if load is None else self._rates(role, sla, load)
        return Capacity(own, {name: self._rates(role, sla, each) for name, each in classes.items()})

    def _rates(self, role: Role, sla: Sla, load: Load) -> tuple[float, ...]:
        key = role, sla.attainment, load.isl, load.osl, load.prefix_hit_rate
        return self._kept.get(key, lambda: rates_in_time(self._sizing, load, sla, role, SIZED_COUNTS))

    @cached_property
    def _sizing(self) -> PercentileSizing:
        return PercentileSizing(self.profile)

    @cached_property
    def _kept(self) -> Memo[tuple[float, ...]]:
        return Memo(RATES_KEPT)


def _not_lowered(snapshot: Snapshot, proposal: Proposal, why: str) -> Proposal:
    """The proposal without falls."""
    changes, reasons = {}, []
    for name, entry in proposal.pools.items():
        replicas = snapshot.pools[name].replicas if name in snapshot.pools else None
        if isinstance(entry, Want) and replicas is not None and entry.replicas < replicas.target:
            changes[name] = Want(replicas.target, entry.load)
            reasons.append(Reason(code="MetricUnknown", pool=name, message=f"not lowered: {why}"))
    return proposal.with_pools(changes, reasons)
