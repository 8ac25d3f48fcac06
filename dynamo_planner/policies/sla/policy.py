"""SlaPolicy: forecast demand, size each pool for the SLA, and plan its replicas over the start-up time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Sla, Snapshot
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.forecasting import Forecaster
from dynamo_planner.forecasting.rate_forecaster import AnyForecaster
from dynamo_planner.policies.sla.arrivals import ArrivalWindow, arrivals_in, why_no_arrivals
from dynamo_planner.policies.sla.attainment import (
    AnyAttainment,
    AskedShares,
    Attainment,
    PoolActivity,
    PromiseEvidence,
)
from dynamo_planner.policies.sla.capacity import AnyCapacity, EngineEstimate, EngineEvidence
from dynamo_planner.policies.sla.demand import Outlook, expected_rate, outlook_after, shares
from dynamo_planner.policies.sla.learned_capacity import LearnedCapacity
from dynamo_planner.policies.sla.moved import with_parts
from dynamo_planner.policies.sla.part import Recalled
from dynamo_planner.policies.sla.plan import AnyPlan, PlanInputs, SkiRental
from dynamo_planner.policies.sla.promise import KeptPromise
from dynamo_planner.policies.sla.restraint import at_most
from dynamo_planner.policies.sla.sizing import AnySizing, CannotSizeError, Percentile, SizingRequest
from dynamo_planner.policies.sla.startup import AnyStartup, ObservedStartup, startup_reasons
from dynamo_planner.policies.sla.state import PoolMemory, ServiceMemory
from dynamo_planner.policies.sla.step_capacity import given, with_curves
from dynamo_planner.policies.sla.targets import TARGETS, schema_with_targets, with_sla
from dynamo_planner.policies.sla.tick import Engine, Tick, queue_of, serving
from dynamo_planner.policies.sla.workload import AnyWorkload, RecentWorkload
from dynamo_planner.profiles import NamedProfile, Profile
from dynamo_planner.sizing import Requirement
from dynamo_planner.sizing.memo import Latest
from dynamo_planner.sizing.percentile import CHUNK_TOKENS
from dynamo_planner.sizing.waiting import Routing


class SlaPolicy(Policy, kind="sla"):
    """SLA-driven scaling: sizes every pool for the share of requests to meet the SLA, by when capacity can arrive.

    The policy connects parts, each of which is data, keeps a state of its own and can be exchanged alone:

    ===============  =================================================================================================
    ``forecaster``   quantiles of the arrival rate, as its mean over ``level_s``, at any horizon
    ``workload``     lengths, prefix hits and burstiness: what a rate means as a load. Bursts shorter than ``level_s``
                     are not forecast but sized for
    ``startup``      how long a start takes, from observed ones; the spec's ``startup_s`` is the prior
    ``capacity``     how much slower the engines are than the profile, and what lies between prefill and first token
    ``sizing``       the smallest replica count at which a share of the requests meets TTFT and ITL. Prompts that can
                     never be in time are reported, not paid for
    ``attainment``   the share to ask of each role, for ``sla.attainment`` of the requests to meet both
    ``plan``         the target: for the demand when a start would be ready, with the backlog, kept for a while
    ===============  =================================================================================================

    **What is unknown.** Without arrivals, or without ever having observed lengths, a pool is held. A queue that was
    observed before and is not now, or lengths that are not, keep a pool from being lowered, not from being raised. With
    no requests freshly observed, none expected and none inside, it goes to zero (``min_replicas`` has the last word).

    Pools of one role share its requests by what arrives at each, or by their replicas. A pool whose knobs
    ``max_num_batched_tokens`` and ``max_num_seqs`` are in the snapshot is sized for those. With ``state=None`` it is as
    if the present replicas had just been required.

    Args:
        sla: The targets, and the share of requests that must meet them; or, in its place, ``ttft_ms``, ``itl_ms`` and
            a number as ``attainment`` (default 0.99).
        profile: Measured performance of one replica, or the name of a bundled profile. Default ``None``: its curves are
            learned from what the engines report (``capacity: {kind: step_model}``).
        forecaster: What forecasts the arrival rate. Default an ensemble of experts.
        workload: What requests are like. Default ``recent``.
        startup: How long starts take. Default ``observed``.
        capacity: How fast engines are. Default ``learned``, and ``step_model`` without a profile.
        sizing: ``percentile``, or ``classic``: the sizing of Dynamo 0.5.1 under the same forecasts. Default
            ``percentile``.
        attainment: The share to ask of each role. Default ``kept_promise``.
        plan: The target over the start-up time. Default ``ski_rental``.
        level_s: Seconds over which the rate is a mean; shorter bursts are sized for. Default 60.
        max_age_s: The age of traffic in seconds from which on it is unknown. Default 90.
        chunk_tokens: The engine's budget of tokens per step. Default that of the sizing.
        routing: How requests reach the replicas of a pool. Default ``least_loaded``.
        max_num_seqs: The engine's limit on requests per step. Default ``None``, the largest measured batch.

    >>> from dynamo_planner import PoolSpec, PoolStatus, Traffic
    >>> policy = SlaPolicy(ttft_ms=500, itl_ms=25, profile="llama31-8b_h100_vllm_tp1")
    >>> policy.sla
    Sla(ttft_ms=500.0, itl_ms=25.0, attainment=0.99)
    >>> specs = {role: PoolSpec(role=role, startup_s=60) for role in ("prefill", "decode")}
    >>> pools = {role: PoolStatus(spec=spec, replicas=2, queued=0) for role, spec in specs.items()}
    >>> traffic = Traffic(requests_per_s=40, window_s=30, isl=3000, osl=250)
    >>> decision = policy.decide(Snapshot(at_s=0, traffic=traffic, pools=pools))
    >>> dict(decision.targets)
    {'prefill': 4, 'decode': 3}
    """

    sla: Sla
    profile: NamedProfile | None = None
    forecaster: AnyForecaster = Forecaster()
    workload: AnyWorkload = RecentWorkload()
    startup: AnyStartup = ObservedStartup()
    capacity: AnyCapacity = LearnedCapacity()
    sizing: AnySizing = Percentile()
    attainment: AnyAttainment = KeptPromise()
    plan: AnyPlan = SkiRental()
    level_s: float = Field(default=60.0, gt=0)
    max_age_s: float = Field(default=90.0, gt=0)
    chunk_tokens: Annotated[int, Field(ge=1)] = CHUNK_TOKENS
    routing: Routing = "least_loaded"
    max_num_seqs: Annotated[int, Field(ge=1)] | None = None

    state_type: ClassVar[Any] = ServiceMemory

    shorthand: ClassVar[Mapping[str, str]] = dict.fromkeys((*TARGETS, "attainment"), "sla")

    _moved_fields = model_validator(mode="before")(with_parts)
    _targets_in_sla = model_validator(mode="before")(with_sla)
    _learned_curves = model_validator(mode="before")(with_curves)

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            profile: Profile | str | None = ...,
            sla: Sla | Mapping[str, float] = ...,
            ttft_ms: float = ...,
            itl_ms: float = ...,
            attainment: Attainment | Mapping[str, Any] | float = ...,
            **parts: Any,
        ) -> None: ...

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        reference = super().__get_pydantic_json_schema__(core_schema, handler)
        schema = handler.resolve_ref_schema(reference)
        schema.update(schema_with_targets(schema, handler.resolve_ref_schema(schema["properties"]["sla"])))
        return reference

    def propose(self, snapshot: Snapshot, state: ServiceMemory | None) -> tuple[Proposal, ServiceMemory]:
        memory, recall = state or ServiceMemory(), Recalled()
        ticks, kept = self._ticks(snapshot, memory, recall)
        entries: dict[str, Want | Hold] = {}
        reasons: list[Reason] = []
        arrivals = arrivals_in(snapshot, memory.seen_s, self.max_age_s)
        outlook: Outlook | None = None
        if arrivals is None:
            entries = dict.fromkeys(ticks, Hold(why_no_arrivals(snapshot, self.max_age_s), "MetricUnknown"))
        else:
            memory, outlook = self._outlook(snapshot, memory, arrivals, recall)
            pools = {name: self._activity(tick, kept[name], memory) for name, tick in ticks.items()}
            evidence = PromiseEvidence(snapshot, self.sla, arrivals, tuple(pools.values()))
            asked, promise = self.attainment.ask(recall(self.attainment, memory.attainment), evidence)
            memory = memory.replace(attainment=self.attainment.remember(promise))
            reasons.extend(asked.reasons)
            for name, pool in pools.items():
                entries[name], kept[name], why = self._planned(pool, kept[name], asked, outlook, recall)
                reasons += why
        memory = memory.replace(pools=FrozenMap(kept))
        self._observed.keep((ticks, outlook), snapshot, memory)
        return Proposal.unchecked(pools=FrozenMap(entries), reasons=(*recall.reasons, *reasons)), memory

    def predict(
        self, snapshot: Snapshot, state: ServiceMemory | None, counts: Mapping[str, Sequence[int]]
    ) -> dict[str, Sequence[float] | None] | None:
        """The share in time of the demand that is expected when a start would be ready, with the backlog."""
        memory, recall = state or ServiceMemory(), Recalled()
        ticks, outlook = self._observed.get(self._observe, snapshot, memory)
        if outlook is None:
            return None
        found: dict[str, Sequence[float] | None] = dict.fromkeys(counts)
        for name in counts.keys() & ticks.keys():
            own = memory.pools.get(name) or PoolMemory()
            tick, queue, *_ = self._activity(ticks[name], own, memory)
            engines = recall(self.capacity, own.capacity, name)
            estimate = self.capacity.estimate(engines, tick, queue.requests, given(self.profile))
            request = self._request(tick, estimate, self.sla, outlook, expected_rate(tick, queue, outlook))
            if request is not None and not estimate.present:
                with suppress(CannotSizeError):
                    found[name] = self.sizing.attainable(request, counts[name])
        return found

    @cached_property
    def _observed(self) -> Latest[tuple[dict[str, Tick], Outlook | None]]:
        return Latest()

    def _observe(self, snapshot: Snapshot, memory: ServiceMemory) -> tuple[dict[str, Tick], Outlook | None]:
        """The pools and what is to be expected, by the memory after a snapshot."""
        arrivals, recall = arrivals_in(snapshot, memory.seen_s, self.max_age_s), Recalled()
        outlook = None if arrivals is None else self._outlook(snapshot, memory, arrivals, recall)[1]
        return self._ticks(snapshot, memory, recall)[0], outlook

    def _ticks(
        self, snapshot: Snapshot, memory: ServiceMemory, recall: Recalled
    ) -> tuple[dict[str, Tick], dict[str, PoolMemory]]:
        """The pools whose replicas are known, and the memories of all, with the starts that were seen."""
        pools = snapshot.with_role("prefill", "decode", "aggregated")
        engine, most = Engine(self.chunk_tokens, self.max_num_seqs, self.routing), given(self.profile).max_batch
        ticks, kept = {}, {}
        for name, share in shares(pools).items():
            pool, own = pools[name], memory.pools.get(name)
            if pool.replicas is not None:
                own = own or PoolMemory()
                starts = recall(self.startup, own.startup, name)
                starts = self.startup.watch(starts, pool.replicas, snapshot.at_s, pool.spec.startup_s)
                lead_s = self.startup.planned_s(starts, pool.spec.startup_s)
                own = own.replace(startup=self.startup.remember(starts))
                able = serving(pool.replicas, pool.asleep)
                ticks[name] = Tick(name, pool, able, snapshot, share, engine.of(pool, most), lead_s)
            if own is not None:
                kept[name] = own
        return ticks, kept

    def _outlook(
        self, snapshot: Snapshot, memory: ServiceMemory, arrivals: ArrivalWindow, recall: Recalled
    ) -> tuple[ServiceMemory, Outlook]:
        """What is to be expected, and the memory with a window that was not counted before."""
        rate, work = recall(self.forecaster, memory.forecaster), recall(self.workload, memory.workload)
        parts = self.forecaster, self.workload
        rate, work, outlook = outlook_after(*parts, rate, work, snapshot, arrivals, self.level_s)
        memory = memory.replace(
            seen_s=arrivals.at_s,
            queue_seen=memory.queue_seen or snapshot.traffic.queued is not None,
            forecaster=self.forecaster.remember(rate),
            workload=self.workload.remember(work),
        )
        return memory, outlook

    def _activity(self, tick: Tick, own: PoolMemory, memory: ServiceMemory) -> PoolActivity:
        """What a pool is doing."""
        queue = queue_of(tick, own.queue_seen, memory.queue_seen, self.max_age_s)
        lasts = [pool.last for name, pool in memory.pools.items() if name != tick.name]
        return PoolActivity(tick, queue, own.last, tuple([last for last in lasts if last is not None]))

    def _planned(
        self, activity: PoolActivity, own: PoolMemory, asked: AskedShares, outlook: Outlook, recall: Recalled
    ) -> tuple[Want | Hold, PoolMemory, list[Reason]]:
        """The target of a pool, its memory, and the reasons."""
        tick, queue, _, others = activity
        engines = recall(self.capacity, own.capacity, tick.name)
        estimate = self.capacity.estimate(engines, tick, queue.requests, given(self.profile))
        load = outlook.load(outlook.arrivals.requests_per_s)
        role = tick.pool.spec.role
        sla = self.sla.replace(attainment=asked.by_role[role])
        size = None if load is None else partial(self._required, tick, estimate, sla, outlook)
        try:
            of_promise = asked.caution.get(role, 0.0), asked.late_s, others, asked.by_role[role]
            attained = partial(self._attained, tick, estimate, sla, outlook)
            inputs = PlanInputs(tick, outlook, queue, size, self.sla, estimate.at_least, *of_promise, attained)
            want, plan, reasons, last = self.plan.plan(recall(self.plan, own.plan, tick.name), inputs)
        except CannotSizeError as error:
            return Hold(str(error), "CannotSize"), own, []
        if last is not None:
            reasons += [*estimate.reasons, *startup_reasons(tick), *outlook.reasons(tick.name)]
        if load is not None:
            arrivals = outlook.arrivals.times(tick.share)
            work_s = partial(self._work_s, tick, estimate, sla, outlook) if last is not None else None
            evidence = EngineEvidence(tick, queue.requests, arrivals, load, given(self.profile), work_s)
            engines = self.capacity.learn(engines, evidence)
        memory = PoolMemory.unchecked(
            startup=own.startup,
            capacity=self.capacity.remember(engines),
            plan=self.plan.remember(plan),
            queue_seen=own.queue_seen or tick.pool.queued is not None,
            last=last,
        )
        return want, memory, reasons

    def _work_s(self, tick: Tick, estimate: EngineEstimate, sla: Sla, outlook: Outlook) -> tuple[float, float]:
        """Replica-seconds of work for each request where replicas are full, and the slowness that is in them."""
        rate = max(outlook.arrivals.requests_per_s * tick.share, 1.0)
        return self._required(tick, estimate, sla, outlook, rate, 1).load / rate, estimate.slowness

    def _required(
        self, tick: Tick, estimate: EngineEstimate, sla: Sla, outlook: Outlook, rate: float, near: int
    ) -> Requirement:
        """The requirement of a pool at an arrival rate, for the share that is asked of its role."""
        request = self._request(tick, estimate, sla, outlook, rate, near)
        if request is None:
            raise ValueError("no lengths were observed")
        if estimate.present:
            return Requirement(request.role, float(tick.replicas.target), tick.replicas.target)
        sized = self.sizing.required(request)
        return sized.within(at_most(tick, self.sla, rate, outlook.arrivals)) if estimate.unsure else sized

    def _attained(
        self, tick: Tick, estimate: EngineEstimate, sla: Sla, outlook: Outlook, rate: float, count: int
    ) -> float | None:
        """The share of the requests of a pool that a replica count keeps in time at an arrival rate."""
        request = None if estimate.present else self._request(tick, estimate, sla, outlook, rate)
        shares = None if request is None else self.sizing.attainable(request, (count,))
        return None if shares is None else shares[0]

    def _request(
        self, tick: Tick, estimate: EngineEstimate, sla: Sla, outlook: Outlook, rate: float, near: int = 1
    ) -> SizingRequest | None:
        """What a pool is sized for at an arrival rate; ``None`` where no lengths were observed."""
        load = outlook.load(rate, estimate.offset_ms)
        if load is None:
            return None
        curves = estimate.profile or given(self.profile)
        engine = tick.engine if estimate.profile is None else tick.engine.within(curves.max_batch)
        return SizingRequest(tick.pool.spec.role, load, sla, curves, engine, estimate.slowness, near)
