"""SlaPolicy: forecast demand, size each pool for the SLA, and plan its replicas over the start-up time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dynamo_planner.core.decision import Hold, Proposal, Reason, Want
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import PoolStatus, Sla, Snapshot
from dynamo_planner.core.values import FrozenMap, KnobValue
from dynamo_planner.engines.standard_knobs import CHUNK, SEQUENCES
from dynamo_planner.forecasting import Forecaster
from dynamo_planner.policies.sla.burstiness import ArrivalWindow, arrivals_in
from dynamo_planner.policies.sla.capacity import PromptQueue, Work, by_itl, by_ttft
from dynamo_planner.policies.sla.demand import Outlook, shares
from dynamo_planner.policies.sla.plan import PlanInputs, Tick, learning_reasons, planned, planned_idle
from dynamo_planner.policies.sla.startup import watched
from dynamo_planner.policies.sla.state import PoolMemory, ServiceMemory, remembered
from dynamo_planner.policies.sla.workload import rounded
from dynamo_planner.profiles import NamedProfile
from dynamo_planner.sizing import ClassicSizing, PercentileSizing, Requirement
from dynamo_planner.sizing.memo import Memo
from dynamo_planner.sizing.percentile import CHUNK_TOKENS
from dynamo_planner.sizing.prefill import Routing
from dynamo_planner.sizing.result import DISAGGREGATED

MIN_EXPECTED_REQUESTS = 0.5
"""With fewer requests than this expected within ``level_s``, and none present, a pool may go to zero."""

CORRECTION_STEP = 0.02
"""Corrections are rounded in steps of this share, so that one sizing serves for many ticks."""

MIN_COVERAGE = 0.1
"""Queues are scaled up for workers that were not observed by at most the inverse of this share."""

WAIT_SHARE = 0.5
"""The share of the TTFT target that a request of a backlog may wait and still be in time."""

LARGEST_KNOB = 1e9
"""Knob values from here on are taken for "no limit"."""

CACHED_SIZINGS = 8
"""Settings of knobs that a sizing is cached for."""


class SlaPolicy(Policy, kind="sla"):
    """SLA-driven scaling: sizes every pool for the share of requests to meet the SLA, by when capacity can arrive.

    Each decision:

    1. **Demand.** The arrival rate is forecast, as its mean over ``level_s``, for now and for when a start would be
       ready; of both the ``quantile`` is planned for, and never less than what came within the last ``level_s``, nor
       than what has arrived for certain since the last tick, where a window shows a step only in part. How
       long a start takes is learned from observed ones, and the spec's ``startup_s`` is the prior. Bursts
       shorter than ``level_s`` are not forecast but sized for: by their dispersion, and the path they took lately.
    2. **Sizing.** The smallest replica count at which ``sla.attainment`` of the requests meet TTFT and ITL
       (:class:`~dynamo_planner.sizing.PercentileSizing`), for the recent lengths and the profile times the
       learned correction. Prompts that can never be in time are reported, not paid for.
    3. **Backlog.** What is waiting now and will still be waiting when a start would be ready, with what is ready and
       what is starting at work until then, is drained within ``drain_s`` from then on.
    4. **Waiting to scale down.** A replica goes once nothing required it for ``restart_cost`` start-up times: the
       deterministic rule of ski rental (Karlin et al. 1988; Lin, Wierman and Andrew 2011), which never costs more than
       twice what foresight would. 1 is the GPU time of a start alone; the rest is the price of the requests that
       are late until a replica is back.

    **Correction.** Per pool, how much longer the work takes than profiled: for prefill the service time at which the
    mean TTFT, with the waiting that there is at this rate with these replicas, is the observed one; for the others
    the ITL at the observed batch, which contains no waiting. It is smoothed over ten minutes, reported, and takes
    effect at the next decision.

    **What is unknown.** Without arrivals, or without ever having observed lengths, a pool is held. A queue that was
    observed before and is not now, or lengths that are not, keep a pool from being lowered, not from being raised. With
    no requests freshly observed, none expected and none inside, it goes to zero (``min_replicas`` has the last word).

    Pools of one role share its requests by what arrives at each, or by their replicas. A pool whose knobs
    ``max_num_batched_tokens`` and ``max_num_seqs`` are in the snapshot is sized for those. With ``state=None`` it is as
    if the present replicas had just been required. ``sizing`` answers what-if questions.

    Args:
        sla: The targets, and the share of requests that must meet them.
        profile: Measured performance of one replica.
        method: ``percentile``, or ``classic``: the sizing of Dynamo 0.5.1
            (:class:`~dynamo_planner.sizing.ClassicSizing`) under the same forecasts.
        forecaster: What forecasts the arrival rate.
        quantile: The quantile of the forecast to plan for. Default 0.9.
        level_s: Seconds over which the rate is a mean; shorter bursts are sized for. Default 60.
        drain_s: Seconds within which a backlog is drained. Default 60.
        restart_cost: Start-up times without a use after which a replica goes. Default 4.
        max_correction: The correction stays between ``1 / max_correction`` and this; 1 turns it off. Default 2.
        max_age_s: The age of traffic in seconds from which on it is unknown. Default 90.
        kv_transfer_ms: Milliseconds between prefill and the first token, with a first step of decode. Default 0.
        chunk_tokens: The engine's budget of tokens per step. Default that of the sizing.
        routing: How requests reach the replicas of a pool. Default ``least_loaded``.
        max_num_seqs: The engine's limit on requests per step. Default ``None``, the largest measured batch.

    >>> from dynamo_planner import PoolSpec, PoolStatus, Traffic
    >>> policy = SlaPolicy(sla=Sla(ttft_ms=500, itl_ms=25), profile="llama31-8b_h100_vllm_tp1")
    >>> specs = {role: PoolSpec(role=role, startup_s=60) for role in ("prefill", "decode")}
    >>> pools = {role: PoolStatus(spec=spec, replicas=2, queued=0) for role, spec in specs.items()}
    >>> traffic = Traffic(requests_per_s=40, window_s=30, isl=3000, osl=250)
    >>> decision = policy.decide(Snapshot(at_s=0, traffic=traffic, pools=pools))
    >>> dict(decision.targets)
    {'prefill': 4, 'decode': 3}
    """

    sla: Sla
    profile: NamedProfile
    method: Literal["percentile", "classic"] = "percentile"
    forecaster: Forecaster = Field(default_factory=Forecaster)
    quantile: float = Field(default=0.9, gt=0, lt=1)
    level_s: float = Field(default=60.0, gt=0)
    drain_s: float = Field(default=60.0, gt=0)
    restart_cost: float = Field(default=4.0, ge=0)
    max_correction: float = Field(default=2.0, ge=1)
    max_age_s: float = Field(default=90.0, gt=0)
    kv_transfer_ms: float = Field(default=0.0, ge=0)
    chunk_tokens: Annotated[int, Field(ge=1)] = CHUNK_TOKENS
    routing: Routing = "least_loaded"
    max_num_seqs: Annotated[int, Field(ge=1)] | None = None

    state_type: ClassVar[Any] = ServiceMemory

    @cached_property
    def sizing(self) -> PercentileSizing | ClassicSizing:
        """The sizing alone, for what-if questions."""
        if self.method == "classic":
            return ClassicSizing(self.profile)
        return PercentileSizing(self.profile, self.chunk_tokens, self.routing, self.max_num_seqs)

    @cached_property
    def _sizings(self) -> Memo[PercentileSizing | ClassicSizing]:
        return Memo(CACHED_SIZINGS)

    def _sizing_of(self, pool: PoolStatus) -> PercentileSizing | ClassicSizing:
        """The sizing for the present knobs of a pool."""
        chunk = _whole(pool.knobs.get(CHUNK)) or self.chunk_tokens
        measured = int(self.profile.max_batch)
        seqs = _whole(pool.knobs.get(SEQUENCES))
        seqs = self.max_num_seqs if seqs is None else min(seqs, self.max_num_seqs or measured)
        if self.method == "classic" or (chunk, seqs) == (self.chunk_tokens, self.max_num_seqs):
            return self.sizing
        return self._sizings.get((chunk, seqs), lambda: PercentileSizing(self.profile, chunk, self.routing, seqs))

    @cached_property
    def _of_two(self) -> Sla:
        """The SLA with the share for each of two roles, which may miss half of what both together may."""
        return self.sla.replace(attainment=(1 + self.sla.attainment) / 2)

    def propose(self, snapshot: Snapshot, state: ServiceMemory | None) -> tuple[Proposal, ServiceMemory]:
        before = state or ServiceMemory()
        arrivals = arrivals_in(snapshot, before.seen_s, self.max_age_s)
        memory = before if arrivals is None else remembered(before, snapshot, arrivals, self.forecaster)
        outlook = Outlook(memory, snapshot, self.forecaster, self.level_s, self.quantile)
        pools = snapshot.with_role("prefill", "decode", "aggregated")
        entries: dict[str, Want | Hold] = {}
        reasons: list[Reason] = []
        kept: dict[str, PoolMemory] = {}
        for name, share in shares(pools).items():
            pool, own = pools[name], before.pools.get(name)
            if pool.replicas is None:
                if own is not None:
                    kept[name] = own
                continue
            if own is None:
                own = PoolMemory(needs=((snapshot.at_s, float(pool.replicas.target)),))
            tick = Tick(name, pool, pool.replicas, snapshot, share)
            if arrivals is None:
                entries[name] = Hold(_why_no_arrivals(snapshot, self.max_age_s), "MetricUnknown")
                kept[name] = own.replace(startup=watched(own.startup, pool.replicas, snapshot.at_s))
            else:
                entries[name], kept[name], why = self._planned(tick, own, memory, outlook, arrivals)
                reasons += why
        proposal = Proposal.unchecked(pools=FrozenMap(entries), reasons=tuple(reasons))
        return proposal, memory.replace(pools=FrozenMap(kept))

    def _planned(
        self, tick: Tick, own: PoolMemory, memory: ServiceMemory, outlook: Outlook, arrivals: ArrivalWindow
    ) -> tuple[Want | Hold, PoolMemory, list[Reason]]:
        """The target of a pool, its memory, and the reasons.

        Its correction is that of the ticks before, so that the latencies of this one cannot lower it.
        """
        at_s, pool, role = tick.snapshot.at_s, tick.pool, tick.pool.spec.role
        startup = watched(own.startup, tick.replicas, at_s)
        lead_s = startup.planned_s(pool.spec.startup_s)
        ahead = outlook.demand(lead_s).times(tick.share)
        queued, unknown = self._queued(tick, own, memory)
        factor = own.correction.factor(self.max_correction)
        hold_s = max(self.restart_cost * lead_s, self.level_s)
        requirements, correction = own.needs, own.correction
        idle = not arrivals.requests_per_s and not queued and ahead.then * self.level_s < MIN_EXPECTED_REQUESTS
        want: Want | Hold
        if idle:
            want, requirements, reasons = planned_idle(tick, requirements, hold_s, lead_s)
        elif memory.isl is None or memory.osl is None:
            want, reasons = _without_lengths(tick, arrivals), []
        elif role == "aggregated" and (self.method == "classic" or self.profile.mixed is None):
            want, reasons = Hold(_CANNOT_SIZE, "CannotSize"), []
        else:
            if tick.snapshot.traffic.isl is None or tick.snapshot.traffic.osl is None:
                missing = "isl" if tick.snapshot.traffic.isl is None else "osl"
                unknown = unknown or _why(tick.snapshot, f"traffic.{missing}")
            size = self._sized(tick.pool, outlook, rounded(factor, CORRECTION_STEP), int(requirements[-1][1]))
            waits_s = 0.0 if role == "decode" else WAIT_SHARE * self.sla.ttft_ms / 1000
            unknown = unknown if arrivals.requests_per_s else None
            inputs = PlanInputs(ahead, queued, size, unknown, waits_s, self.drain_s, hold_s)
            want, requirements, reasons = planned(tick, requirements, inputs)
            reasons += learning_reasons(tick, own, memory, factor, startup, lead_s)
        if memory.isl is not None and memory.osl is not None:
            work = Work(memory.isl.mean * (1 - outlook.hit_rate), outlook.context)
            own_arrivals, traffic = arrivals.times(tick.share), tick.snapshot.traffic
            if role == "prefill":
                own_arrivals = own_arrivals.times(1 / self.profile.prefill_points.ranks)
                correction = by_ttft(
                    correction, tick.replicas, queued, traffic, own_arrivals, self._prompts(outlook, work)
                )
            else:
                correction = by_itl(correction, pool, tick.replicas.ready, traffic, own_arrivals, work, self.profile)
        queue_seen = own.queue_seen or pool.queued is not None
        kept = PoolMemory.unchecked(startup=startup, needs=requirements, correction=correction, queue_seen=queue_seen)
        return want, kept, reasons

    def _prompts(self, outlook: Outlook, work: Work) -> PromptQueue:
        """The queue for prefill, for the correction by TTFT."""
        cv2 = 1.0 if outlook.isl is None else outlook.isl.cv2
        service_s = self.profile.prefill.ttft_ms(work.computed) / 1000
        own_queues = self.routing != "least_loaded"
        return PromptQueue(service_s, cv2 + (not own_queues), self.kv_transfer_ms, own_queues)

    def _sized(self, pool: PoolStatus, outlook: Outlook, factor: float, near: int) -> Callable[[float], Requirement]:
        """The sizing of a pool as a function of the arrival rate."""
        role, sizing = pool.spec.role, self._sizing_of(pool)
        sla = self._of_two if role in DISAGGREGATED else self.sla

        def size(rate: float) -> Requirement:
            load = outlook.load(rate, self.kv_transfer_ms)
            return sizing.replicas_for(load, sla, (role,), {role: factor}, {role: near})[role]

        return size

    def _queued(self, tick: Tick, own: PoolMemory, memory: ServiceMemory) -> tuple[float | None, str | None]:
        """The requests waiting for a pool, and why that is unknown although it was known before."""
        pool, snapshot, traffic = tick.pool, tick.snapshot, tick.snapshot.traffic
        queued = pool.queued if snapshot.age_s(pool.observed_at_s) <= self.max_age_s else None
        unknown = None
        if queued is None and own.queue_seen:
            unknown = _why(snapshot, f"pools.{tick.name}.queued")
        if queued is not None and pool.coverage:
            queued /= max(pool.coverage, MIN_COVERAGE)
        if pool.spec.role == "decode":
            return queued, unknown
        if traffic.queued is None:
            return queued, unknown or (_why(snapshot, "traffic.queued") if memory.queue_seen else None)
        return (queued or 0.0) + tick.share * traffic.queued, unknown


_CANNOT_SIZE = (
    "aggregated pools are sized from mixed steps, by the percentile method: give the profile mixed_points, and leave "
    "method at 'percentile'"
)


def _whole(value: KnobValue | None) -> int | None:
    """A knob as a whole number, where it is a number of at least 1."""
    return int(value) if isinstance(value, int | float) and 1 <= value < LARGEST_KNOB else None


def _without_lengths(tick: Tick, arrivals: ArrivalWindow) -> Want | Hold:
    """The verdict before any lengths were observed: a pool without capacity wakes up."""
    traffic = tick.snapshot.traffic
    if not tick.replicas.target and (arrivals.requests_per_s or traffic.queued):
        return Want(1)
    return Hold(_why(tick.snapshot, "traffic.isl" if traffic.isl is None else "traffic.osl"), "MetricUnknown")


def _why(snapshot: Snapshot, field: str) -> str:
    """That a field is unknown, and why if the source says so."""
    reason = snapshot.missing.get(field)
    return f"{field} is unknown" + (f": {reason}" if reason else "")


def _why_no_arrivals(snapshot: Snapshot, max_age_s: float) -> str:
    if snapshot.traffic.requests_per_s is None:
        return _why(snapshot, "traffic.requests_per_s")
    return f"traffic is {snapshot.age_s(snapshot.traffic.observed_at_s):.0f} s old, and {max_age_s:.0f} s are allowed"
