"""Step model: engines whose curves are learned in production, where no profile was measured."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from dynamo_planner.core.decision import Reason
from dynamo_planner.core.snapshot import Role
from dynamo_planner.policies.sla.capacity import Capacity, EngineEstimate, EngineEvidence
from dynamo_planner.policies.sla.correction import Correction
from dynamo_planner.policies.sla.learned_capacity import (
    CORRECTION_STEP,
    Comparison,
    EngineMemory,
    LearnedCapacity,
    with_comparison,
)
from dynamo_planner.policies.sla.lengths import rounded
from dynamo_planner.policies.sla.tick import Tick, reason
from dynamo_planner.profiles import Profile
from dynamo_planner.profiles.learned_profile import LearnedEngine, learned_fields
from dynamo_planner.profiles.observed_steps import MeanRequest, batch_of, observed_steps
from dynamo_planner.profiles.step_model import StepModel, StepSample, sample_ms
from dynamo_planner.profiles.steps import StepCosts
from dynamo_planner.sizing import Load
from dynamo_planner.sizing.decode import context_in_flight
from dynamo_planner.sizing.memo import Memo

CURVE_STEP = 0.05
"""The curves are drawn anew where a time has moved by more than this share, so that one sizing serves for many
ticks."""

BATCH_STEP = 0.2
"""The largest batch and the size of the KV cache are rounded in steps of this share, for the same."""

EXPLORED = 4.0
"""A replica is given at most this many times as many requests as one has had. With 2, a steady load would never leave
two replicas for one, which has to have room for more than both have."""

JUDGED = 1.5
"""The error of the curves is that at this many times as many requests as a replica has had."""

MIN_BATCH = 8.0
"""Requests in flight that every engine is trusted with."""

UNSURE_ERROR = 0.15
"""Curves that are known less exactly than this are not trusted where the present replicas do
(:mod:`~dynamo_planner.policies.sla.restraint`)."""

UNSURE_MINUTES = 10.0
"""And so are those of fewer minutes of calm engines."""

CARE, LEAST_CARE = 0.5, 0.05
"""Engines are taken to be slower by this many standard errors of their curves, and at least by this share, which is
about how far a linear step is from a measured one."""

KV_SMOOTHING = 0.1
"""The weight of a new observation of the size of a KV cache."""

MIN_KV_USAGE = 0.05
"""With less of the KV cache in use, its size does not show."""

CACHED_PROFILES = 8

UNPROFILED_BATCH = 4096.0
"""The largest batch before anything was observed, which limits nothing."""

FAST = StepCosts(base_ms=3.0, ms_per_prefill_token=0.0125, ms_per_request=0.0115, ms_per_kv_token=1e-5)
"""Engines as fast as the fastest, before anything was observed, so that no queue looks like one that has no end."""


class StepMemory(NamedTuple):
    """What was learned of the engines of a pool.

    Args:
        engine: What is learned relative to the curves that are in use.
        model: The evidence for the costs of a step.
        batch: The most requests that a replica had in flight.
        kv_tokens: Tokens that its KV cache holds; 0 where that is unknown.
        error: The relative error of the curves where the pool is to work.
        drawn: The curves in use, as four costs, the largest batch and the KV tokens; empty before the first.
        role: The role of the pool.
    """

    engine: EngineMemory
    model: StepModel = StepModel()
    batch: float = 0.0
    kv_tokens: float = 0.0
    error: float = 1.0
    drawn: tuple[float, ...] = ()
    role: Role | None = None

    @property
    def learned(self) -> LearnedEngine | None:
        """The engine of the curves in use."""
        if not self.drawn:
            return None
        base, per_token, per_request, per_kv, batch, kv_tokens = self.drawn
        costs = StepCosts(
            base_ms=base, ms_per_prefill_token=per_token, ms_per_request=per_request, ms_per_kv_token=per_kv
        )
        return LearnedEngine(costs, batch, kv_tokens)


class StepModelCapacity(Capacity, kind="step_model"):
    """Curves of the engines from what they report: a linear step time (:mod:`~dynamo_planner.profiles.step_model`),
    drawn as a profile that sizing takes like a measured one. ``SlaPolicy`` without a profile uses it.

    - Before anything was observed of calm engines, the present replicas stay, unless measured saturation asks for more.
    - Then the curves hold with their error: engines count as slower by it, and while it is large no more is asked for
      than :mod:`~dynamo_planner.policies.sla.restraint` says. A replica is given at most four times the requests that
      one has had.
    - On top of the curves, speed and offset are learned as by ``learned``, which is quick where engines change.

    Args:
        max_correction: As of ``learned``, relative to the curves in use. Default 4.
    """

    max_correction: float = Field(default=4.0, ge=1)

    state_type: ClassVar[Any] = StepMemory

    def estimate(self, state: StepMemory | None, tick: Tick, queued: float | None, profile: Profile) -> EngineEstimate:
        learned = state.learned if state else None
        curves = self._curves(learned, tick.pool.spec.role)
        found = self._speed.estimate(state.engine if state else None, tick, queued, curves)
        if state is None or learned is None:
            saturated = tuple([each for each in found.reasons if each.code == "Saturated"])
            message = "no latency of a calm engine was observed yet: the present replicas stay"
            why = (reason("EngineUnknown", tick.name, message), *saturated)
            return found._replace(reasons=why, present=True)
        unsure = state.error > UNSURE_ERROR or state.model.minutes < UNSURE_MINUTES
        slowness = found.slowness * rounded(1 + max(CARE * state.error, LEAST_CARE), CORRECTION_STEP)
        reasons = (_what_is_known(tick, state, learned), *found.reasons)
        return found._replace(slowness=slowness, reasons=reasons, profile=curves, unsure=unsure)

    def learn(self, state: StepMemory | None, evidence: EngineEvidence) -> StepMemory:
        role, pool, load = evidence.tick.pool.spec.role, evidence.tick.pool, evidence.load
        learned = state.learned if state else None
        curves = self._curves(learned, role)
        own = state or StepMemory(EngineMemory(curves.digest), role=role)
        request = _mean_request(load, evidence)
        own = own._replace(
            batch=max(own.batch, batch_of(pool)), kv_tokens=_cache_tokens(own.kv_tokens, evidence, request.context)
        )
        engine, found = self._speed.compare(own.engine, evidence._replace(profile=curves))
        if found is None:
            return own._replace(engine=engine)
        elapsed_s = evidence.arrivals.elapsed_s
        model = own.model.faded(elapsed_s)
        for sample in self._samples(evidence, request, found, curves):
            model = model.plus(sample, elapsed_s)
        if not model.weight:
            return own._replace(engine=engine)
        limit = rounded(EXPLORED * max(own.batch, MIN_BATCH), BATCH_STEP)
        cache = rounded(own.kv_tokens, BATCH_STEP) or limit * 4 * request.context
        fit = model.fit(own.kv_tokens or None)
        costs = fit.costs
        points = _points(role, request, JUDGED / EXPLORED * limit)
        own = own._replace(engine=with_comparison(engine, found, elapsed_s), model=model, error=fit.error(points[-1]))
        if learned is not None and learned[1:] == (limit, cache) and not _moved(learned.costs, costs, points):
            return own
        drawn = (*costs.model_dump().values(), limit, cache)
        own = own._replace(drawn=drawn)
        digest = self._curves(own.learned, role).digest
        return own._replace(engine=engine._replace(profile=digest, speed=Correction(), busy=Correction()))

    def _samples(
        self, evidence: EngineEvidence, request: MeanRequest, found: Comparison, curves: Profile
    ) -> tuple[StepSample, ...]:
        tick, arrivals = evidence.tick, evidence.arrivals
        rate = arrivals.requests_per_s / tick.replicas.ready
        samples = observed_steps(tick.pool, tick.snapshot.traffic, request, rate, tick.engine.chunk_tokens)
        if samples or tick.pool.spec.role != "prefill":
            return samples
        # Without stage times: the speed at which the queue of prompts makes for the TTFT.
        expected_ms = float(curves.prefill.ttft_ms(request.prompt_tokens))
        return (StepSample(found.observed / found.expected * expected_ms, 1.0, request.work, sampled=found.requests),)

    @cached_property
    def _speed(self) -> LearnedCapacity:
        return LearnedCapacity(max_correction=self.max_correction)

    @cached_property
    def _profiles(self) -> Memo[Profile]:
        return Memo(CACHED_PROFILES)

    def _curves(self, learned: LearnedEngine | None, role: Role) -> Profile:
        """The curves of a pool as a profile."""
        if learned is None:
            return unprofiled()
        both = role == "aggregated"
        return self._profiles.get((learned, both), lambda: Profile(**learned_fields(learned, learned, aggregated=both)))


@cache
def unprofiled() -> Profile:
    """Curves to begin with, before anything was observed."""
    engine = LearnedEngine(FAST, UNPROFILED_BATCH, UNPROFILED_BATCH * 1000)
    return Profile(**learned_fields(engine, engine, aggregated=True))


def given(profile: Profile | None) -> Profile:
    """The profile that a policy was given, or curves to begin with."""
    return profile or unprofiled()


def with_curves(data: Any) -> Any:
    """The data of a policy with curves to learn, where it has no profile and names no capacity.

    Raises ``ValueError`` where it names one that is relative to a profile.
    """
    if not isinstance(data, Mapping) or data.get("profile") is not None:
        return data
    capacity = data.get("capacity")
    if isinstance(capacity, LearnedCapacity) or (isinstance(capacity, Mapping) and capacity.get("kind") == "learned"):
        raise ValueError("capacity: learned corrects a profile: give one, or capacity: {kind: step_model}")
    return data if capacity is not None else {**data, "capacity": StepModelCapacity()}


def _mean_request(load: Load, evidence: EngineEvidence) -> MeanRequest:
    """The requests of a window: like the recent ones, with the window's own mean of prompts."""
    observed, computed = evidence.tick.snapshot.traffic.isl, load.computed
    longer = observed.mean / load.isl.mean if observed is not None and load.isl.mean else 1.0
    return MeanRequest(computed.mean * longer, computed.cv2, load.osl.mean, context_in_flight(load.isl, load.osl)[0])


def _cache_tokens(known: float, evidence: EngineEvidence, context: float) -> float:
    """Tokens that a replica's KV cache holds: as reported, else by what the requests in flight take of it."""
    pool = evidence.tick.pool
    if pool.kv_capacity_tokens:
        return pool.kv_capacity_tokens
    batch, usage = batch_of(pool), pool.kv_usage or 0.0
    if usage < MIN_KV_USAGE or not batch:
        return known
    seen = batch * context / usage
    return seen if not known else known + KV_SMOOTHING * (seen - known)


def _points(role: Role, request: MeanRequest, batch: float) -> list[StepSample]:
    """Work at which curves are compared; the last is where the pool is to work."""
    prompt = StepSample(0.0, 1.0, request.work)
    if role == "prefill":
        return [prompt]
    beside = batch * request.work / max(request.output_tokens, 1.0) if role == "aggregated" else 0.0
    alone, full = (StepSample(0.0, 1.0, p, n, n * request.context) for p, n in ((0.0, 1.0), (beside, batch)))
    return [prompt, alone, full] if role == "aggregated" else [alone, full]


def _moved(before: StepCosts, after: StepCosts, points: list[StepSample]) -> bool:
    return any(abs(sample_ms(after, each) / sample_ms(before, each) - 1) > CURVE_STEP for each in points)


def _what_is_known(tick: Tick, state: StepMemory, learned: LearnedEngine) -> Reason:
    costs, minutes = learned.costs, state.model.minutes
    message = (
        f"without a profile: {minutes:.0f} min of calm engines say {costs.base_ms:.3g} ms for a step, "
        f"{1000 * costs.ms_per_prefill_token:.3g} ms more for 1000 prompt tokens and {costs.ms_per_request:.2g} ms for "
        f"a request, known to {state.error:.0%}"
    )
    return reason("EngineLearned", tick.name, message, error=state.error, minutes=minutes, max_batch=learned.batch)
