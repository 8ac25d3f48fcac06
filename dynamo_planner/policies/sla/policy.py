"""SlaPolicy: as many replicas as it takes for a share of the requests to meet the SLA, when they are there.

See :class:`SlaPolicy`.
"""

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
from dynamo_planner.policies.sla.correcting import Prompts, Work, by_itl, by_ttft
from dynamo_planner.policies.sla.demand import shares
from dynamo_planner.policies.sla.observing import Seen, remembered, seen_in
from dynamo_planner.policies.sla.outlook import Outlook
from dynamo_planner.policies.sla.plan import Given, Tick, planned, planned_idle, told
from dynamo_planner.policies.sla.startup import Startup, watched
from dynamo_planner.policies.sla.state import PoolMemory, ServiceMemory
from dynamo_planner.policies.sla.workload import rounded
from dynamo_planner.profiles import NamedProfile
from dynamo_planner.sizing import ClassicSizing, PercentileSizing, Requirement
from dynamo_planner.sizing.memo import Memo
from dynamo_planner.sizing.percentile import CHUNK_TOKENS
from dynamo_planner.sizing.prefill import Routing
from dynamo_planner.sizing.result import DISAGGREGATED

FEWEST_EXPECTED = 0.5
"""With fewer requests than this expected within ``level_s``, and none there, a pool may go to zero."""

FACTOR_STEP = 0.02
"""Corrections are told in steps of this share, so that what is worked out for one serves for many ticks."""

WORTH_TELLING = 0.03

LEAST_COVERAGE = 0.1

LARGEST_KNOB = 1e9

_SETTINGS = 8
"""The settings of knobs that sizings are kept for."""


class SlaPolicy(Policy, kind="sla"):
    """Sizes every pool for the share of requests that is to meet the SLA, by when capacity can arrive.

    Each decision:

    1. **Demand.** The arrival rate is forecast, as its mean over ``level_s``, for now and for when a start would be
       ready; of both the ``quantile`` is planned for, and never less than what came within the last ``level_s``, nor
       than what has arrived for certain since the last look, where a window shows a step only in part. How
       long a start takes is learned from those that are seen, and the spec's ``startup_s`` is the prior. Bursts
       shorter than ``level_s`` are not forecast but sized for: by their dispersion, and the path they took lately.
    2. **Need.** The fewest replicas with which ``sla.attainment`` of the requests meet TTFT and ITL
       (:class:`~dynamo_planner.sizing.PercentileSizing`), for the lengths seen lately and the profile times the
       learned correction. Prompts that can never be in time are told, not paid for.
    3. **Backlog.** What is waiting now and will still be waiting when a start would be ready, with what is ready and
       what is starting at work until then, is drained within ``drain_s`` from then on.
    4. **Waiting to scale down.** A replica goes once nothing needed it for ``restart_cost`` start-up times: the
       deterministic rule of ski rental (Karlin et al. 1988; Lin, Wierman and Andrew 2011), which never costs more than
       twice what foresight would. 1 is the GPU time of a start alone; the rest is the price of the requests that
       are late until a replica is back.

    **Correction.** Per pool, how much longer the work takes than profiled: for prefill the service time at which the
    mean TTFT, with the waiting that there is at this rate with so many replicas, is the one that was seen; for the
    others from ITL at the batch that was seen, which contains no waiting. It is smoothed over ten minutes, kept from
    ``1 / max_correction`` to ``max_correction``, told, and takes effect at the next decision; ``max_correction=1``
    turns it off.

    **What is unknown.** Without arrivals, or without ever having seen lengths, a pool is held. A queue that was seen
    before and is not now, or lengths that are not, keep a pool from being lowered, not from being raised. With no
    requests freshly seen, none expected and none inside, the need is zero (``min_replicas`` has the last word).

    Pools of one role share its requests by what arrives at each, or by their replicas. ``kv_transfer_ms`` (and what
    else is between prefill and the first token, as a first step of decode), ``chunk_tokens``, ``routing`` and
    ``max_num_seqs`` describe the service, and are those of the sizing; a pool whose
    knobs ``max_num_batched_tokens`` and ``max_num_seqs`` are in the snapshot is sized for those instead. With
    ``state=None`` it is as if the present replicas had just been needed.

    ``sizing`` answers what-if questions; ``method="classic"`` is the sizing of Dynamo 0.5.1
    (:class:`~dynamo_planner.sizing.ClassicSizing`) under the same forecasts.

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
        """The sizing by itself, for what-if questions."""
        if self.method == "classic":
            return ClassicSizing(self.profile)
        return PercentileSizing(self.profile, self.chunk_tokens, self.routing, self.max_num_seqs)

    @cached_property
    def _sizings(self) -> Memo[PercentileSizing | ClassicSizing]:
        return Memo(_SETTINGS)

    def _sizing_of(self, pool: PoolStatus) -> PercentileSizing | ClassicSizing:
        """The sizing for the knobs as they are set in a pool."""
        chunk = _whole(pool.knobs.get(CHUNK)) or self.chunk_tokens
        measured = int(max(self.profile.decode_points.batch))
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
        seen = seen_in(snapshot, before.seen_s, self.max_age_s)
        memory = before if seen is None else remembered(before, snapshot, seen, self.forecaster)
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
            if seen is None:
                entries[name] = Hold(_why_no_arrivals(snapshot, self.max_age_s), "MetricUnknown")
                kept[name] = own.replace(startup=watched(own.startup, pool.replicas, snapshot.at_s))
            else:
                entries[name], kept[name], why = self._planned(tick, own, memory, outlook, seen)
                reasons += why
        proposal = Proposal.unchecked(pools=FrozenMap(entries), reasons=tuple(reasons))
        return proposal, memory.replace(pools=FrozenMap(kept))

    def _planned(
        self, tick: Tick, own: PoolMemory, memory: ServiceMemory, outlook: Outlook, seen: Seen
    ) -> tuple[Want | Hold, PoolMemory, list[Reason]]:
        """What a pool should have, what is remembered of it, and why.

        Its correction is that of the ticks before, so that how fast it is said to be in this one cannot lower it.
        """
        at_s, pool, role = tick.snapshot.at_s, tick.pool, tick.pool.spec.role
        startup = watched(own.startup, tick.replicas, at_s)
        lead_s = startup.planned_s(pool.spec.startup_s)
        ahead = outlook.demand(lead_s).times(tick.share)
        queued, unknown = self._queued(tick, own, memory)
        factor = own.correction.factor(self.max_correction)
        hold_s = max(self.restart_cost * lead_s, self.level_s)
        needs, correction = own.needs, own.correction
        idle = not seen.requests_per_s and not queued and ahead.then * self.level_s < FEWEST_EXPECTED
        want: Want | Hold
        if idle:
            want, needs, reasons = planned_idle(tick, needs, hold_s, lead_s)
        elif memory.isl is None or memory.osl is None:
            want, reasons = _without_lengths(tick, seen), []
        elif role == "aggregated" and (self.method == "classic" or self.profile.mixed is None):
            want, reasons = Hold(_CANNOT_SIZE, "CannotSize"), []
        else:
            if tick.snapshot.traffic.isl is None or tick.snapshot.traffic.osl is None:
                missing = "isl" if tick.snapshot.traffic.isl is None else "osl"
                unknown = unknown or _why(tick.snapshot, f"traffic.{missing}")
            need = self._sized(tick.pool, outlook, rounded(factor, FACTOR_STEP), int(needs[-1][1]))
            waits_s = 0.0 if role == "decode" else self.sla.ttft_ms / 2000
            unknown = unknown if seen.requests_per_s else None
            given = Given(ahead, queued, need, unknown, waits_s, self.drain_s, hold_s)
            want, needs, reasons = planned(tick, needs, given)
            reasons += self._told_of(tick, own, memory, factor, startup, lead_s)
        if memory.isl is not None and memory.osl is not None:
            work = Work(memory.isl.mean * (1 - outlook.hit_rate), outlook.context)
            own_seen, traffic = seen.times(tick.share), tick.snapshot.traffic
            if role == "prefill":
                correction = by_ttft(correction, tick.replicas, queued, traffic, own_seen, self._prompts(outlook, work))
            else:
                correction = by_itl(correction, pool, tick.replicas.ready, traffic, own_seen, work, self.profile)
        queue_seen = own.queue_seen or pool.queued is not None
        kept = PoolMemory.unchecked(startup=startup, needs=needs, correction=correction, queue_seen=queue_seen)
        return want, kept, reasons

    def _prompts(self, outlook: Outlook, work: Work) -> Prompts:
        """What the correction of prefill needs to know of the prompts."""
        cv2 = 1.0 if outlook.isl is None else outlook.isl.cv2
        service_s = self.profile.prefill.ttft_ms(work.computed) / 1000
        own_queues = self.routing != "least_loaded"
        return Prompts(service_s, cv2 + (not own_queues), self.kv_transfer_ms, own_queues)

    def _sized(self, pool: PoolStatus, outlook: Outlook, factor: float, near: int) -> Callable[[float], Requirement]:
        """What a pool needs for a rate, as things are."""
        role, sizing = pool.spec.role, self._sizing_of(pool)
        sla = self._of_two if role in DISAGGREGATED else self.sla

        def need(rate: float) -> Requirement:
            load = outlook.load(rate, self.kv_transfer_ms)
            return sizing.replicas_for(load, sla, (role,), {role: factor}, {role: near})[role]

        return need

    def _queued(self, tick: Tick, own: PoolMemory, memory: ServiceMemory) -> tuple[float | None, str | None]:
        """The requests that wait for a pool, and why that is unknown although it was known before."""
        pool, snapshot, traffic = tick.pool, tick.snapshot, tick.snapshot.traffic
        queued = pool.queued if snapshot.age_s(pool.observed_at_s) <= self.max_age_s else None
        unknown = None
        if queued is None and own.queue_seen:
            unknown = _why(snapshot, f"pools.{tick.name}.queued")
        if queued is not None and pool.coverage:
            queued /= max(pool.coverage, LEAST_COVERAGE)
        if pool.spec.role == "decode":
            return queued, unknown
        if traffic.queued is None:
            return queued, unknown or (_why(snapshot, "traffic.queued") if memory.queue_seen else None)
        return (queued or 0.0) + tick.share * traffic.queued, unknown

    def _told_of(
        self, tick: Tick, own: PoolMemory, memory: ServiceMemory, factor: float, startup: Startup, lead_s: float
    ) -> list[Reason]:
        """What was learned, where it is not what the profile and the spec say."""
        reasons, prior_s = [], tick.pool.spec.startup_s
        if abs(factor - 1) > WORTH_TELLING:
            message = f"steps take {factor:.2f} times as long as profiled"
            reasons.append(told("ProfileCorrected", tick.name, message, requests=own.correction.requests))
        if startup.starts and abs(lead_s - prior_s) > WORTH_TELLING * prior_s:
            message = f"starts are planned to take {lead_s:.0f} s, not {prior_s:.0f} s"
            reasons.append(told("StartupLearned", tick.name, message, starts=startup.starts))
        for field, lengths in (("isl", memory.isl), ("osl", memory.osl)):
            cv2 = lengths.estimated_cv2() if lengths is not None and lengths.estimated else None
            if cv2 is not None:
                message = f"the spread of {field} is estimated from the means of intervals"
                reasons.append(told("SpreadEstimated", tick.name, message, cv2=cv2))
        return reasons


_CANNOT_SIZE = (
    "aggregated pools are sized from mixed steps, by the percentile method: give the profile mixed_points, and leave "
    "method at 'percentile'"
)


def _whole(value: KnobValue | None) -> int | None:
    """A knob that is a number of at least 1, as a whole one."""
    return int(value) if isinstance(value, int | float) and 1 <= value < LARGEST_KNOB else None


def _without_lengths(tick: Tick, seen: Seen) -> Want | Hold:
    """What there is to say before any lengths were seen: a pool without capacity wakes up."""
    traffic = tick.snapshot.traffic
    if not tick.replicas.target and (seen.requests_per_s or traffic.queued):
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
