"""Speed and offset of engines, learned from stage times, latencies, and what an overload shows."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from dynamo_planner.core.metrics import Dist
from dynamo_planner.policies.sla.arrivals import DEFAULT_WINDOW_S, ArrivalWindow
from dynamo_planner.policies.sla.capacity import Capacity, EngineEstimate, EngineEvidence
from dynamo_planner.policies.sla.correction import (
    FULL_LOG,
    IGNORED_LOG,
    MAX_BACKLOG_SHARE,
    MAX_UTILISATION,
    MIXED_LOGS,
    Correction,
    Mean,
    PromptQueue,
)
from dynamo_planner.policies.sla.lengths import rounded
from dynamo_planner.policies.sla.saturation import (
    Crowd,
    backlog_of,
    crowd_of,
    is_overloaded,
    next_pools,
    saturated,
    with_crowd,
)
from dynamo_planner.policies.sla.tick import REPORTED_CHANGE, Tick, reason
from dynamo_planner.profiles import Profile
from dynamo_planner.profiles.observed_steps import prompts_alone_ms
from dynamo_planner.sizing import Load
from dynamo_planner.sizing.decode import context_in_flight
from dynamo_planner.sizing.memo import Memo

CORRECTION_STEP = 0.02
"""Corrections are rounded in steps of this share, so that one sizing serves for many ticks."""

OFFSET_STEP = 0.1
"""The time between prefill and first token is rounded in steps of this share, for the same."""

FIRST_STEPS = 1.5
"""Steps of decode between prefill and first token where no stage times say: half of the step that runs when the prompt
is done, and the request's own. In step simulations of three engines 1.3 to 1.6."""

MAX_STAYS = 3.0
"""Requests that began before engines were calm again, whose latencies tell of then, are taken to be gone after this
many mean stays: 5 % of those of an exponential length are left."""

MAX_BUSY_RATIO = 1.5
"""What an overload shows counts as at most this: counts at both ends of a window are coarse, and longer prompts may be
what made the overload."""

MIN_CALM_S = 60.0
"""And it takes this long at least, in seconds: stays are longer in an overload than they look after it."""

BUSY_HALF_LIFE_S = 6 * 3600.0
"""What an overload shows of the speed keeps half its weight over this time, in seconds: enough replicas leave nothing
more to see of it."""

FIXED_POINT_STEPS = 4
"""Iterations for the length of a mixed step, which is as long as it takes for its share of the prompts to arrive."""

CACHED_TIMES = 4096
"""Profiled times that are kept."""


class EngineMemory(NamedTuple):
    """What was learned of the engines of a pool.

    Args:
        profile: The measurements that it is relative to.
        ready: The ready replicas at the last tick.
        since_s: Since when there have been that many, none was starting and no queue waited, in Unix seconds.
        speed: The latency of their work against the profiled one.
        busy: Seconds for each prompt while a queue waits, against those that the sizing makes of full replicas.
        offset: Milliseconds between the end of a prompt and its first token, by stage times.
        left_ms: Milliseconds that the TTFT leaves for it with engines as fast as profiled.
        itl_ms: The ITL that was observed.
        crowds: The requests in the pool at the last ticks.
        even: Whether all that are ready share what waits: none became ready while it did.
    """

    profile: str
    ready: int = -1
    since_s: float = 0.0
    speed: Correction = Correction()
    busy: Correction = Correction()
    offset: Mean = Mean()
    left_ms: Mean = Mean()
    itl_ms: Mean = Mean()
    crowds: tuple[Crowd, ...] = ()
    even: bool = True


class Comparison(NamedTuple):
    """A latency beside the profiled one, in the same unit, and the requests behind it."""

    observed: float
    expected: float
    requests: float


class LearnedCapacity(Capacity, kind="learned"):
    """Speed and offset of the engines, each learned by itself and smoothed over ten minutes.

    **Speed** is how much longer the work takes than profiled. For prefill: the time of prompts in their steps, less
    what waiting adds to it; without stage times, the service time at which the mean TTFT less the offset is the
    observed one, with the waiting that there is at this rate. Either is at most so much, since steps that prompts share
    take less: engines are faster only where prompts take less than profiled with all of it. For the others: the ITL at
    the observed batch.

    **Offset** is what lies between the end of a prompt and its first token: the time to the first token in the decode
    pool. Without stage times it is 1.5 steps of decode, and at most what the TTFT leaves for it with engines as fast as
    profiled: which of the two is less than expected does not show in a TTFT, and it is taken for the offset.

    In an overload the rate at which prompts are done says how long each takes; it counts where it is slower, and where
    no replica joined since requests wait, since one that joins gets none of those. Nothing else is learned of engines
    that are starting or have just changed, where a queue waits, there or for decode, or with a full KV cache.

    Args:
        max_correction: The speed stays between ``1 / max_correction`` and this; 1 turns it off. Default 4: what is
            further off is a fault of the metrics.
        offset_ms: A prior for the offset in milliseconds. Default ``None``: 1.5 steps of decode.
    """

    max_correction: float = Field(default=4.0, ge=1)
    offset_ms: Annotated[float, Field(ge=0)] | None = None

    state_type: ClassVar[Any] = EngineMemory

    def estimate(
        self, state: EngineMemory | None, tick: Tick, queued: float | None, profile: Profile
    ) -> EngineEstimate:
        own = _of_profile(state, profile)
        logs = MIXED_LOGS if tick.pool.spec.role == "aggregated" else (IGNORED_LOG, FULL_LOG)
        factor, busy = own.speed.factor(self.max_correction, logs), own.busy.factor(self.max_correction)
        if busy > 1:
            factor = max(factor, min(busy, MAX_BUSY_RATIO))
        reasons = []
        if abs(factor - 1) > REPORTED_CHANGE:
            message = f"steps take {factor:.2f} times as long as profiled"
            reasons.append(reason("ProfileCorrected", tick.name, message, requests=own.speed.requests))
        offset_ms = 0.0
        if tick.pool.spec.role == "prefill":
            offset_ms = self._offset_ms(own, profile)
            message = f"the first token comes {offset_ms:.3g} ms after prefill"
            reasons.append(
                reason("FirstTokenOffset", tick.name, message, requests=max(own.offset.weight, own.left_ms.weight))
            )
        elif tick.pool.spec.role == "aggregated":
            offset_ms = self.offset_ms or 0.0
        window_s = tick.snapshot.traffic.window_s or DEFAULT_WINDOW_S
        full = saturated(tick, own.crowds, crowd_of(tick, queued), window_s)
        if full is not None:
            reasons.append(reason("Saturated", tick.name, full.message, replicas=full.replicas))
        slowness, offset_ms = rounded(factor, CORRECTION_STEP), rounded(offset_ms, OFFSET_STEP)
        return EngineEstimate(slowness, offset_ms, full.replicas if full else 0, tuple(reasons))

    def learn(self, state: EngineMemory | None, evidence: EngineEvidence) -> EngineMemory:
        own, found = self.compare(state, evidence)
        return own if found is None else with_comparison(own, found, evidence.arrivals.elapsed_s)

    def compare(self, state: EngineMemory | None, evidence: EngineEvidence) -> tuple[EngineMemory, Comparison | None]:
        """The state after a tick but for its speed, and what the tick says of that; ``None`` where engines are not
        calm, or latencies are unknown."""
        tick, profile, arrivals = evidence.tick, evidence.profile, evidence.arrivals
        own, replicas, itl = _of_profile(state, profile), tick.replicas, tick.snapshot.traffic.itl_ms
        crowds = with_crowd(own.crowds, crowd_of(tick, evidence.queued), arrivals.window_s)
        waits = (evidence.queued or 0.0) > replicas.ready
        even = not waits or (own.even and not 0 <= own.ready < replicas.ready)
        overloaded = waits or any(map(is_overloaded, (tick.pool, *next_pools(tick))))
        changed = replicas.ready != own.ready or replicas.starting or overloaded
        since_s = tick.snapshot.at_s if changed else own.since_s
        own = own._replace(ready=replicas.ready, since_s=since_s, crowds=crowds, even=even)
        if tick.pool.spec.role == "prefill" and arrivals.elapsed_s and even:
            own = self._overloaded(own, evidence)
        if changed:
            return own, None
        stay_s = 0.0 if itl is None else evidence.load.osl.mean * itl.mean / 1000
        settled = arrivals.at_s - arrivals.window_s - max(MAX_STAYS * stay_s, MIN_CALM_S) >= own.since_s
        if not settled or not replicas.ready or not arrivals.elapsed_s or not arrivals.requests_per_s:
            return own, None
        if itl is not None and itl.mean > 0:
            requests = _requests(itl, arrivals)
            own = own._replace(itl_ms=own.itl_ms.with_sample(itl.mean, requests, arrivals.elapsed_s))
        if tick.pool.spec.role == "prefill":
            return self._prompts(own, evidence)
        return own, self._steps(evidence, itl)

    def _offset_ms(self, own: EngineMemory, profile: Profile) -> float:
        """The offset by stage times, else by the steps of decode."""
        prior_ms = self.offset_ms
        if prior_ms is None:
            prior_ms = FIRST_STEPS * own.itl_ms.value(min(profile.decode_points.itl_ms))
        if own.offset.weight:
            return own.offset.value(prior_ms)
        return min(max(own.left_ms.value(prior_ms), 0.0), prior_ms)

    def _prompts(self, own: EngineMemory, evidence: EngineEvidence) -> tuple[EngineMemory, Comparison | None]:
        """What a prefill pool says: by its stages, else by the TTFT."""
        tick, queued, arrivals, load, profile, _ = evidence
        traffic, stages, elapsed_s = tick.snapshot.traffic, tick.pool.stages, arrivals.elapsed_s
        service_ms = self._service_ms(load, traffic.isl, profile)
        for dist in filter(None, [pool.stages.first_token_ms for pool in next_pools(tick)]):
            own = own._replace(offset=own.offset.with_sample(dist.mean, _requests(dist, arrivals), elapsed_s))
        if stages.prefill_ms is not None and stages.queue_ms is not None:
            in_steps_ms = stages.prefill_ms.mean
            alone_ms = prompts_alone_ms(in_steps_ms, stages.queue_ms.mean)
            if alone_ms is None:
                return own, None
            # Steps that prompts share take longer than one alone by less than that where they are far from full.
            alone_ms = max(alone_ms, min(in_steps_ms, service_ms))
            return own, Comparison(alone_ms, service_ms, _requests(stages.prefill_ms, arrivals))
        if traffic.ttft_ms is None:
            return own, None
        queue = _queue(tick, arrivals, load, service_ms, profile)
        backlog_ms = 1000 * (queued or 0.0) / arrivals.requests_per_s
        if queue.utilisation > MAX_UTILISATION or backlog_ms > MAX_BACKLOG_SHARE * traffic.ttft_ms.mean:
            return own, None
        requests = _requests(traffic.ttft_ms, arrivals)
        left_ms = traffic.ttft_ms.mean - 1000 * queue.ttft_s(1.0)
        own = own._replace(left_ms=own.left_ms.with_sample(left_ms, requests, elapsed_s))
        factor = queue.explained((traffic.ttft_ms.mean - self._offset_ms(own, profile)) / 1000)
        return own, Comparison(factor, 1.0, requests)

    def _overloaded(self, own: EngineMemory, evidence: EngineEvidence) -> EngineMemory:
        """What a prefill pool says that has more to do than it can: how long each prompt takes it then, beside what the
        sizing makes of full replicas."""
        tick, arrivals = evidence.tick, evidence.arrivals
        backlog = backlog_of(tick, own.crowds, crowd_of(tick, evidence.queued), arrivals.window_s)
        if backlog is None or not backlog.completed_per_s or evidence.work_s is None:
            return own
        rate, (work_s, slowness) = backlog.completed_per_s, evidence.work_s()
        if slowness > work_s * backlog.busy_up_to_per_s:
            return own
        requests = rate * tick.replicas.ready * min(arrivals.window_s, arrivals.elapsed_s)
        busy = own.busy.with_sample(1 / rate, work_s / slowness, requests, arrivals.elapsed_s, BUSY_HALF_LIFE_S)
        return own._replace(busy=busy)

    def _steps(self, evidence: EngineEvidence, itl: Dist | None) -> Comparison | None:
        """What a pool that decodes says: the ITL against the profiled one of the observed batch."""
        tick, _, arrivals, load, profile, _ = evidence
        pool, ready = tick.pool, tick.replicas.ready
        if itl is None or itl.mean <= 0 or not pool.running:
            return None
        batch = pool.running / (ready * (pool.reporting or 1.0))
        tokens_per_ms = 0.0
        if pool.spec.role == "aggregated":
            tokens_per_ms = arrivals.requests_per_s * load.computed.mean / ready / 1000
        expected_ms = self._step_ms(profile, batch, load, tokens_per_ms)
        return Comparison(itl.mean, expected_ms, _requests(itl, arrivals))

    @cached_property
    def _times_ms(self) -> Memo[float]:
        return Memo(CACHED_TIMES)

    def _service_ms(self, load: Load, observed: Dist | None, profile: Profile) -> float:
        """The profiled mean time of the prompts of a window: over the recent lengths, for the window's own mean."""
        prompts = load.computed
        mean_ms = self._times_ms.get(
            (profile.digest, prompts), lambda: float(np.mean(profile.prefill.ttft_ms(prompts.values)))
        )
        if observed is None or not load.isl.mean:
            return mean_ms
        longer = observed.mean / load.isl.mean * prompts.mean
        return mean_ms * float(profile.prefill.ttft_ms(longer)) / float(profile.prefill.ttft_ms(prompts.mean))

    def _step_ms(self, profile: Profile, batch: float, load: Load, tokens_per_ms: float) -> float:
        """The profiled step with about this batch, while prompt tokens come at about this rate."""
        batch, tokens_per_ms = rounded(batch, CORRECTION_STEP), rounded(tokens_per_ms, CORRECTION_STEP)

        def computed() -> float:
            kv_tokens = batch * context_in_flight(load.isl, load.osl)[0]
            step_ms = float(profile.step_ms(0.0, batch, kv_tokens))
            for _ in range(FIXED_POINT_STEPS if tokens_per_ms else 0):
                step_ms = float(profile.step_ms(min(tokens_per_ms * step_ms, load.computed.mean), batch, kv_tokens))
            return step_ms

        key = profile.digest, batch, load.isl, load.osl, load.computed.mean, tokens_per_ms
        return self._times_ms.get(key, computed)


def _of_profile(state: EngineMemory | None, profile: Profile) -> EngineMemory:
    """What was learned relative to this profile: what is relative to another one says nothing."""
    return state if state is not None and state.profile == profile.digest else EngineMemory(profile.digest)


def with_comparison(own: EngineMemory, found: Comparison, elapsed_s: float) -> EngineMemory:
    """The memory with one comparison more."""
    return own._replace(speed=own.speed.with_sample(*found, elapsed_s))


def _requests(dist: Dist, arrivals: ArrivalWindow) -> float:
    """The requests behind a latency: those that it counts, of the new ones."""
    return arrivals.new_requests if dist.count is None else min(dist.count, arrivals.new_requests)


def _queue(tick: Tick, arrivals: ArrivalWindow, load: Load, service_ms: float, profile: Profile) -> PromptQueue:
    """The queue of a prefill pool, as profiled."""
    own_queues = tick.engine.routing != "least_loaded"
    servers = tick.replicas.ready * profile.prefill_points.ranks
    queues = tick.replicas.ready if own_queues else 1
    variation = load.isl.cv2 + (not own_queues)
    return PromptQueue(service_ms / 1000, variation, arrivals.requests_per_s / queues, servers / queues)
