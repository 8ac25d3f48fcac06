"""Snapshots: the metrics, replicas and specs of one served model at one moment, which a policy decides on.

Units are in the names: ``_s`` seconds, ``_ms`` milliseconds, ``_per_s`` per second, otherwise tokens or counts. What is
unknown is ``None``, never 0; NaN and infinity become ``None`` on the way in. Time is data: Unix seconds, and no policy
reads a clock.

>>> from dynamo_planner import Dist
>>> snapshot = Snapshot(
...     at_s=1_700_000_000,
...     traffic=Traffic(requests_per_s=12, isl=800, osl=Dist(mean=200, cv2=1.4), ttft_ms=float("nan")),
...     pools={"decode": PoolStatus(spec=PoolSpec(role="decode"), replicas=3, kv_usage=0.7)},
... )
>>> snapshot.traffic.isl, snapshot.traffic.ttft_ms, snapshot.pools["decode"].replicas.target
(Dist(mean=800.0), None, 3)
>>> Snapshot.model_validate_json(snapshot.model_dump_json()) == snapshot
True
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dynamo_planner.core.metrics import Deferred, PoolMetrics, Traffic
from dynamo_planner.core.notebook import facts_table, html_table, shown
from dynamo_planner.core.values import (
    Count,
    Frozen,
    FrozenMap,
    KnobValue,
    ReadOnly,
    or_number,
    plain,
)

T = TypeVar("T", bound=Frozen)

Role = Literal["prefill", "decode", "aggregated"]
"""What the workers of a pool do: only prompts, only tokens, or both."""

STUCK_AFTER_STARTUPS = 3.0
"""A start older than this many start-up times is no longer coming capacity."""


class Sla(Frozen):
    """Latency targets, and the share of requests that must meet both.

    Args:
        ttft_ms: The target for the time to first token, in milliseconds.
        itl_ms: The target for the inter-token latency, in milliseconds.
        attainment: The share of requests that must meet both. Default 0.99.

    A request's TTFT counts from its arrival, with queueing and KV transfer. Its ITL is (last token - first token) /
    (output tokens - 1); a request of a single token meets it. A dropped or unfinished request is missed.
    """

    ttft_ms: float = Field(gt=0)
    itl_ms: float = Field(gt=0)
    attainment: float = Field(default=0.99, gt=0, lt=1)


class PoolSpec(Frozen):
    """The specification of a pool: what one replica is, and how many there may be.

    Args:
        role: ``prefill``, ``decode`` or ``aggregated``.
        gpus: GPUs per replica. Default 1.
        min_replicas: The fewest replicas. Default 1.
        max_replicas: The most replicas. Default ``None``, no limit.
        startup_s: A prior for the time from a launch to being ready, in seconds. Default 120.
        cost: The price of a replica-hour in any unit. Default ``None``, its number of GPUs.
    """

    role: Role
    gpus: Count = 1
    min_replicas: Count = 1
    max_replicas: Annotated[int, Field(ge=0)] | None = None
    startup_s: float = Field(default=120.0, ge=0)
    cost: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) must be at least min_replicas ({self.min_replicas})")
        return self


class Replicas(Frozen):
    """The replicas of a pool by their state. A bare number stands for that many ready ones.

    Args:
        ready: Replicas that serve.
        starting: Replicas that were launched and are not ready yet. Default 0.
        starting_since_s: Since when, in Unix seconds, oldest first. Default ``None``, unknown.
        failed: Replicas that cannot start or keep crashing. Default 0.
        draining: Replicas that take no new requests but hold their GPUs until they are gone. Default 0.
        target: The count that the infrastructure was last set to reach. Left out: ``ready + starting + failed``.
    """

    ready: Count
    starting: Count = 0
    starting_since_s: tuple[float, ...] | None = None
    failed: Count = 0
    draining: Count = 0
    target: Count = -1

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return or_number(core_schema, handler, "integer")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        value = plain(value)
        if isinstance(value, int):
            value = {"ready": value}
        if isinstance(value, Mapping) and value.get("target") is None:
            parts = [plain(value.get(part, 0)) for part in ("ready", "starting", "failed")]
            if all(isinstance(part, int) for part in parts):
                value = {**value, "target": sum(parts)}
        return value

    @model_validator(mode="after")
    def _one_age_each(self) -> Self:
        ages = self.starting_since_s
        if ages is not None and len(ages) != self.starting:
            raise ValueError(f"starting_since_s has {len(ages)} entries for {self.starting} starting replicas")
        if ages is not None and list(ages) != sorted(ages):
            raise ValueError(f"starting_since_s must be oldest first, got {ages}")
        return self


class PoolStatus(PoolMetrics):
    """The status of one pool of identical replicas: its metrics, spec, replicas and knobs.

    Args:
        spec: What a replica is, and how many there may be.
        replicas: How many there are; ``None`` where the infrastructure could not be read, and the pool is held.
        knobs: The engine knobs by name, as they are set.
    """

    spec: PoolSpec
    replicas: Replicas | None = None
    knobs: ReadOnly[str, KnobValue] = Field(default_factory=FrozenMap)

    @property
    def reporting(self) -> float | None:
        """The share of ready workers that were observed, also those that sleep; ``None`` where ``coverage`` is.

        What the others have is to be added to sums over the pool. A worker that sleeps was observed, and has nothing.

        >>> PoolStatus(spec=PoolSpec(role="decode"), replicas=4, coverage=0.5, asleep=1).reporting
        0.75
        """
        listed = len(self.workers) or (self.replicas.ready if self.replicas else 0)
        if self.coverage is None or not self.asleep or not listed:
            return self.coverage
        return min(self.coverage + self.asleep / listed, 1.0)

    def stuck(self, at_s: float) -> int:
        """The number of stuck starts: older than three start-up times, and so no longer coming capacity."""
        since = self.replicas.starting_since_s if self.replicas else None
        limit = at_s - STUCK_AFTER_STARTUPS * self.spec.startup_s
        return sum(start < limit for start in since or ())

    def coming(self, at_s: float) -> int:
        """The number of starting replicas that can still be expected to become ready."""
        return self.replicas.starting - self.stuck(at_s) if self.replicas else 0

    def gpus_held(self) -> int | None:
        """GPUs that the pool holds or was promised: the target's, or what is there, and draining ones until gone."""
        if self.replicas is None:
            return None
        there = max(self.replicas.target, self.replicas.ready + self.replicas.starting)
        return self.spec.gpus * (there + self.replicas.draining)


class Snapshot(Frozen):
    """One served model at one moment.

    Args:
        at_s: The moment, in Unix seconds.
        traffic: The requests at the frontend, as clients experience them. Without a frontend: for aggregated pools
            their sum; for disaggregated ones arrivals, ISL and TTFT from prefill, and OSL and ITL from decode.
        pools: The status of each pool, by name.
        knobs: The knobs of the service as a whole.
        deferred: The requests that a gateway holds back, by class; ``traffic`` is without them.
        missing: Why a field is unknown, by its path; by ``PATH.at_least``, why a known one may be higher in truth.
    """

    at_s: float
    traffic: Traffic = Traffic()
    pools: ReadOnly[str, PoolStatus] = Field(default_factory=FrozenMap)
    knobs: ReadOnly[str, KnobValue] = Field(default_factory=FrozenMap)
    deferred: ReadOnly[str, Deferred] = Field(default_factory=FrozenMap)
    missing: ReadOnly[str, str] = Field(default_factory=FrozenMap)

    @model_validator(mode="after")
    def _left_out_times_are_now(self) -> Self:
        """Fill ``observed_at_s`` where it was left out, so that the JSON says it; an explicit ``None`` stays."""
        if "observed_at_s" not in self.traffic.model_fields_set:
            object.__setattr__(self, "traffic", self._observed_now(self.traffic))
        if any("observed_at_s" not in pool.model_fields_set for pool in self.pools.values()):
            pools = {
                name: pool if "observed_at_s" in pool.model_fields_set else self._observed_now(pool)
                for name, pool in self.pools.items()
            }
            object.__setattr__(self, "pools", FrozenMap(pools))
        return self

    def _observed_now(self, value: T) -> T:
        return value.replace(observed_at_s=self.at_s)

    def age_s(self, observed_at_s: float | None) -> float:
        """The age of an observation in seconds; infinite where its time is unknown."""
        return math.inf if observed_at_s is None else self.at_s - observed_at_s

    def at_least(self, field: str) -> str | None:
        """Why a field that is known is a lower bound: it may raise a pool, not lower one. ``None`` where it is not.

        >>> why = "clients give up, and those that do before a first token are not counted"
        >>> Snapshot(at_s=0, missing={"traffic.requests_per_s.at_least": why}).at_least("traffic.requests_per_s") == why
        True
        """
        return self.missing.get(f"{field}.at_least")

    def _repr_html_(self) -> str:
        """The traffic and the pools as tables, for notebooks."""
        traffic = self.traffic
        facts: list[tuple[str, Any]] = [
            ("requests/s", traffic.requests_per_s),
            ("queued", traffic.queued),
            *((name, dist and dist.mean) for name, dist in (("ISL", traffic.isl), ("OSL", traffic.osl))),
            *((name, dist and dist.mean) for name, dist in (("TTFT ms", traffic.ttft_ms), ("ITL ms", traffic.itl_ms))),
            *((f"unknown: {field}", why) for field, why in self.missing.items()),
        ]
        header = ["pool", "role", "ready", "starting", "draining", "target", "queued", "running", "KV usage"]
        rows = []
        for name, pool in self.pools.items():
            replicas = pool.replicas
            counts = [getattr(replicas, part, None) for part in ("ready", "starting", "draining", "target")]
            cells = [name, pool.spec.role, *counts, pool.queued, pool.running, pool.kv_usage]
            rows.append([shown(cell) for cell in cells])
        return facts_table(facts) + html_table(header, rows)

    def with_role(self, *roles: Role) -> dict[str, PoolStatus]:
        """The pools of these roles, by name, in the order of the roles."""
        return {name: pool for role in roles for name, pool in self.pools.items() if pool.spec.role == role}


class Observation(Frozen):
    """The metrics part of a snapshot, from a source, without specs and replicas, which an executor knows.

    Args:
        traffic: As in :class:`Snapshot`.
        pools: The metrics of each pool, by name.
        deferred: As in :class:`Snapshot`.
        missing: As in :class:`Snapshot`.
    """

    traffic: Traffic = Traffic()
    pools: ReadOnly[str, PoolMetrics] = Field(default_factory=FrozenMap)
    deferred: ReadOnly[str, Deferred] = Field(default_factory=FrozenMap)
    missing: ReadOnly[str, str] = Field(default_factory=FrozenMap)
