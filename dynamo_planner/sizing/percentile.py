"""Percentile sizing: the smallest replica counts with which a stated share of requests meets TTFT and ITL."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.profiles import Profile
from dynamo_planner.sizing.aggregated import AggregatedStage
from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.batching import PromptSteps
from dynamo_planner.sizing.decode import decode_stage
from dynamo_planner.sizing.doubts import doubts_of
from dynamo_planner.sizing.load import Lengths, Load
from dynamo_planner.sizing.memo import Memo
from dynamo_planner.sizing.prefill import PrefillStage
from dynamo_planner.sizing.result import DISAGGREGATED, Fact, Requirement
from dynamo_planner.sizing.stage import Stage
from dynamo_planner.sizing.step_curves import DecodeCurves, MixedCurves
from dynamo_planner.sizing.waiting import Routing

CHUNK_TOKENS = 2048
"""Default of ``max_num_batched_tokens``: vLLM's for chunked prefill in serving."""

STAGES_KEPT, REQUIREMENTS_KEPT, SHARES_KEPT = 512, 4096, 1024
"""Sizes of the caches that serve the ticks to come, of all models of a fleet with this profile."""


class PercentileSizing:
    """Sizing for a share of requests rather than for the mean.

    Prefill is a queue (:mod:`~dynamo_planner.sizing.prefill`), decode a number in flight
    (:mod:`~dynamo_planner.sizing.decode`), and aggregated replicas are both at once
    (:mod:`~dynamo_planner.sizing.aggregated`). A request meets the SLA when TTFT and ITL both hold. With separate
    roles each may miss half of what the SLA allows, so that together they miss no more than that, however the misses
    fall together, and each is sized by itself: more work never takes a replica from the other.

    Args:
        profile: the measured profile.
        chunk_tokens: ``max_num_batched_tokens`` of prefill and of aggregated engines, in tokens. Default 2048.
        routing: which replica a request goes to. Default ``least_loaded``.
        max_num_seqs: the most requests at once on a replica. Default: as many as were measured.

    >>> sizing = PercentileSizing(Profile.bundled("llama31-8b_h100_vllm_tp1"))
    >>> load, sla = Load.of(requests_per_s=40, isl=3000, osl=300), Sla(ttft_ms=500, itl_ms=20)
    >>> {role: required.replicas for role, required in sizing.replicas_for(load, sla).items()}
    {'prefill': 4, 'decode': 3}
    >>> sizing.attainable(load, sla, {"prefill": [3, 4, 5], "decode": 3}).round(3).tolist()
    [0.796, 0.999, 0.999]
    """

    def __init__(
        self,
        profile: Profile,
        chunk_tokens: int = CHUNK_TOKENS,
        routing: Routing = "least_loaded",
        max_num_seqs: int | None = None,
    ) -> None:
        if chunk_tokens < 1:
            raise ValueError(f"chunk_tokens must be at least 1, got {chunk_tokens}")
        self.profile, self.chunk_tokens, self.routing = profile, chunk_tokens, routing
        self._prompts = PromptSteps(profile.prefill, chunk_tokens)
        self._decode = DecodeCurves(profile, max_num_seqs)
        self._mixed = None if profile.mixed is None else MixedCurves(profile.decode_points, profile.mixed)
        self._doubts = {role: doubts_of(profile, role) for role in get_args(Role)}
        self._stages = Memo[Stage](STAGES_KEPT)
        self._requirements = Memo[Requirement](REQUIREMENTS_KEPT)
        self._shares = Memo[Floats](SHARES_KEPT)

    def replicas_for(
        self,
        load: Load,
        sla: Sla,
        roles: tuple[Role, ...] = DISAGGREGATED,
        service_factor: Mapping[Role, float] | None = None,
        near: Mapping[Role, int] | None = None,
    ) -> dict[Role, Requirement]:
        """The smallest replica count of each role that meets the SLA.

        ``service_factor`` is how much longer the work of a role takes than the profile says. ``near`` is the count
        around which the search begins, which only makes it faster.

        Raises ``ValueError`` where the profile has no mixed steps and the role is ``aggregated``.
        """
        share = 1 - (1 - sla.attainment) / len(roles)
        factors, near = service_factor or {}, near or {}
        return {role: self.required(role, load, sla, share, factors.get(role, 1.0), near.get(role)) for role in roles}

    def required(
        self, role: Role, load: Load, sla: Sla, share: float, factor: float = 1.0, near: int | None = None
    ) -> Requirement:
        """The smallest replica count of one role with which this share of the requests meets its target.

        ``factor`` and ``near`` are as in :meth:`replicas_for`, for this role.
        """
        # It does not depend on ``near``, since more replicas never attain less.
        key = self._key(role, load, sla, factor)
        return self._requirements.get(
            (key, load.arrivals, share),
            lambda: _sized(role, load, self._stage(key, role, load, sla, factor), share, near, self._doubts[role]),
        )

    def attainable(
        self,
        load: Load,
        sla: Sla,
        replicas: Mapping[Role, npt.ArrayLike],
        service_factor: Mapping[Role, float] | None = None,
    ) -> Floats:
        """The share of the attainable requests that meets both targets, for these replica counts of each role; arrays
        are broadcast against each other."""
        roles = tuple(replicas)
        counts = np.broadcast_arrays(*[np.asarray(count) for count in replicas.values()])
        missed = np.zeros(counts[0].shape)
        for role, count in zip(roles, counts, strict=True):
            factor = (service_factor or {}).get(role, 1.0)
            shares = self.in_time(role, load, sla, count.ravel().tolist(), factor)
            missed = missed + 1 - shares.reshape(count.shape)
        return np.asarray(1 - np.minimum(missed, 1.0))

    def in_time(self, role: Role, load: Load, sla: Sla, counts: Sequence[int], factor: float = 1.0) -> Floats:
        """The share of the attainable requests that meets the target of one role, for each replica count of it."""
        key = self._key(role, load, sla, factor)
        stage = partial(self._stage, key, role, load, sla, factor)
        return self._shares.get((key, load.arrivals, tuple(counts)), lambda: _attained(stage, load, np.array(counts)))

    def _stage(self, key: Hashable, role: Role, load: Load, sla: Sla, factor: float) -> Stage:
        """The stage of a role for these lengths and targets, which several horizons share; ``key`` is theirs."""
        return self._stages.get(key, lambda: self._built(role, load, sla, factor))

    def _key(self, role: Role, load: Load, sla: Sla, factor: float) -> Hashable:
        """What a stage depends on."""
        if not 0 < factor < math.inf:
            raise ValueError(f"service_factor of {role} must be a finite number above 0, got {factor}")
        osl = None if role == "prefill" else load.osl
        return role, load.isl, osl, load.prefix_hit_rate, load.kv_transfer_ms, sla.ttft_ms, sla.itl_ms, factor

    def _built(self, role: Role, load: Load, sla: Sla, factor: float) -> Stage:
        if role == "prefill":
            return PrefillStage(self._prompts, load, sla, factor, self.routing)
        if role == "decode":
            levelled = self.routing == "least_loaded"
            return decode_stage(self._decode, load.isl, load.osl, sla.itl_ms, factor, levelled)
        if self._mixed is None:
            raise ValueError(
                f"profile {self.profile.name!r} has no mixed steps, so it cannot size aggregated replicas: "
                "give it mixed_points (mixed_step.npz), or serve with separate prefill and decode"
            )
        return AggregatedStage(self._decode, self._mixed, load, sla, self.chunk_tokens, factor)


def _attained(stage: Callable[[], Stage], load: Load, counts: npt.NDArray[Any]) -> Floats:
    """The share of the attainable requests of a role that each count serves in time."""
    return stage().attainable(load.arrivals, counts)


def _sized(
    role: Role, load: Load, stage: Stage, share: float, near: int | None, doubts: tuple[Fact, ...]
) -> Requirement:
    """The smallest replica count of a role with which this share is in time, and how it came to be."""
    arrivals = load.arrivals
    replicas, attained, reachable = stage.replicas_for(arrivals, share, near)
    busy = stage.load(arrivals)
    limit = "stability" if replicas <= math.floor(busy) + 1 else stage.binding(arrivals, replicas)
    facts = [*_facts(role, load, stage, replicas, attained, busy), *doubts]
    unattainable = stage.unattainable
    if reachable < share:
        unattainable = 1 - (1 - unattainable) * reachable
        message = (
            f"{1 - reachable:.2%} of the requests miss a target however many replicas there are; sized for the rest"
        )
        facts.append(Fact("Unattainable", message, {"unattainable": unattainable}))
    return Requirement(
        role, busy, replicas, attained, unattainable, limit, stage.extrapolated, tuple(facts), stage.residence_s
    )


def _lengths(role: Role, load: Load) -> dict[str, Lengths]:
    """The lengths that a role depends on."""
    return {"isl": load.isl} if role == "prefill" else {"isl": load.isl, "osl": load.osl}


def _facts(role: Role, load: Load, stage: Stage, replicas: int, attained: float, busy: float) -> tuple[Fact, ...]:
    lengths = _lengths(role, load)
    tokens = " + ".join([f"{own.mean:.0f}" for own in lengths.values()])
    facts = [
        Fact(
            "Sized",
            f"{replicas} {role} replicas for {load.arrivals.requests_per_s:.3g} requests/s of "
            f"{tokens} tokens keep {attained:.2%} in time",
            {"replicas": replicas, "load": busy, "attained": attained},
        )
    ]
    if stage.unattainable > 0:
        share = stage.unattainable
        message = f"{share:.2%} of the requests miss a target even when served alone; they add no replicas"
        facts.append(Fact("Unattainable", message, {"unattainable": share}))
    if stage.extrapolated:
        facts.append(Fact("Extrapolated", f"the profile has no measurement where {role} is to work", {}))
    assumed = [name for name, own in lengths.items() if own.assumed]
    if assumed:
        cv2 = lengths[assumed[0]].cv2
        facts.append(Fact("SpreadAssumed", f"only the mean of {' and '.join(assumed)} is known", {"cv2": cv2}))
    return tuple(facts)
