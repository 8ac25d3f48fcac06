"""Sizing: the part that turns a load, an SLA and the engines' capacity into replicas."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import SerializeAsAny

from dynamo_planner.core.component import Component, Kinds
from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.policies.sla.tick import Engine
from dynamo_planner.profiles import Profile
from dynamo_planner.sizing import ClassicSizing, Load, PercentileSizing, Requirement
from dynamo_planner.sizing.memo import Memo

CACHED_SIZINGS = 8
"""Settings of engines that a sizing is cached for."""


class CannotSizeError(ValueError):
    """What is asked cannot be sized, whatever the load; the message says what to change."""


class SizingRequest(NamedTuple):
    """What one role is sized for.

    Args:
        role: The role.
        load: Arrivals and lengths; ``load.kv_transfer_ms`` lies between the end of a prompt and its first token.
        sla: The targets, with the share of requests that this role has to serve in time.
        profile: Measured performance of one replica.
        engine: The settings of the engines.
        slowness: How much longer the work takes than profiled. Default 1.
        near: The count around which a search may begin, which only makes it faster. Default 1.
    """

    role: Role
    load: Load
    sla: Sla
    profile: Profile
    engine: Engine = Engine()
    slowness: float = 1.0
    near: int = 1


class Sizing(Component):
    """The replicas of one role for a load; it remembers nothing.

    >>> from math import ceil
    >>> from dynamo_planner import Profile
    >>> class PerReplica(Sizing, kind="per_replica"):
    ...     requests_per_s: float = 4.0
    ...
    ...     def required(self, request):
    ...         load = request.load.arrivals.requests_per_s * request.slowness / self.requests_per_s
    ...         return Requirement(request.role, load, ceil(load))
    >>> profile, sla = Profile.bundled("llama31-8b_h100_vllm_tp1"), Sla(ttft_ms=500, itl_ms=25)
    >>> PerReplica().required(SizingRequest("decode", Load.of(9, isl=500, osl=100), sla, profile)).replicas
    3
    """

    @abstractmethod
    def required(self, request: SizingRequest) -> Requirement:
        """The smallest replica count that does. More load, slower engines, tighter targets or a larger share never
        need fewer.

        Raises :class:`CannotSizeError` where it has no answer for such a pool.
        """

    def attainable(self, request: SizingRequest, counts: Sequence[int]) -> Sequence[float] | None:
        """The share of the attainable requests that these replica counts serve in time; ``None`` where it cannot
        say."""
        return None


class Percentile(Sizing, kind="percentile"):
    """The share of requests that is to be in time, by queueing models
    (:class:`~dynamo_planner.sizing.PercentileSizing`)."""

    @cached_property
    def _sizings(self) -> Memo[PercentileSizing]:
        return Memo(CACHED_SIZINGS)

    def required(self, request: SizingRequest) -> Requirement:
        share = request.sla.attainment
        return self._sizing(request).required(
            request.role, request.load, request.sla, share, request.slowness, request.near
        )

    def attainable(self, request: SizingRequest, counts: Sequence[int]) -> Sequence[float]:
        role, load, sla = request.role, request.load, request.sla
        shares = self._sizing(request).in_time(role, load, sla, counts, request.slowness)
        found: list[float] = (1 - np.minimum(1 - shares, 1.0)).tolist()
        return found

    def _sizing(self, request: SizingRequest) -> PercentileSizing:
        profile, engine = request.profile, request.engine
        if request.role == "aggregated" and profile.mixed is None:
            raise CannotSizeError(f"aggregated pools are sized from mixed steps: give {profile.name!r} mixed_points")
        chunk, seqs, routing = engine
        return self._sizings.get((engine, profile.digest), lambda: PercentileSizing(profile, chunk, routing, seqs))


class Classic(Sizing, kind="classic"):
    """Mean rates over the throughput of an engine that is always busy, as Dynamo 0.5.1 has it
    (:class:`~dynamo_planner.sizing.ClassicSizing`): for comparison, and without aggregated pools."""

    @cached_property
    def _sizings(self) -> Memo[ClassicSizing]:
        return Memo(CACHED_SIZINGS)

    def required(self, request: SizingRequest) -> Requirement:
        role, profile = request.role, request.profile
        if role == "aggregated":
            raise CannotSizeError("the classic sizing knows no aggregated pools: use sizing: {kind: percentile}")
        sizing = self._sizings.get(profile.digest, lambda: ClassicSizing(profile))
        return sizing.replicas_for(request.load, request.sla, (role,), {role: request.slowness})[role]


SIZINGS = Kinds(
    "sizing",
    Sizing,
    "dynamo_planner.sla.sizing",
    {
        "percentile": "dynamo_planner.policies.sla.sizing:Percentile",
        "classic": "dynamo_planner.policies.sla.sizing:Classic",
    },
    default="percentile",
)

AnySizing = Annotated[SerializeAsAny[Sizing], SIZINGS.validator()]
"""A field that holds a sizing of any kind: one that is built, or its data."""
