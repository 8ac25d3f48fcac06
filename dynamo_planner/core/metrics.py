"""Metrics: request distributions, traffic, and what one pool and its workers report.

>>> Traffic(requests_per_s=12, isl=800, ttft_ms=float("nan")).isl
Dist(mean=800.0)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge
from pydantic import BeforeValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dynamo_planner.core.share import Share, share_within
from dynamo_planner.core.values import Frozen, FrozenMap, Known, KnownShare, KnownTime, ReadOnly, Unit, or_number, plain

Bound = Annotated[float, Ge(0)]
"""The upper bound of a bucket."""


class Dist(Frozen):
    """A distribution, as far as it is known. A bare number stands for its mean.

    Args:
        mean: The mean, in the unit of the metric.
        count: The sample size.
        cv2: The squared coefficient of variation, variance / mean**2.
        quantiles: Values by level, such as ``{0.9: value}``.
        buckets: The share of values up to each bound, such as ``{1000: 0.6, 2500: 0.9}``.

    >>> Dist(mean=120, quantiles={0.5: 100, 0.99: 400}).quantiles[0.99]
    400.0
    """

    mean: float = Field(ge=0)
    count: Known = None
    cv2: Known = None
    quantiles: ReadOnly[Unit, float] = Field(default_factory=FrozenMap)
    buckets: ReadOnly[Bound, Unit] = Field(default_factory=FrozenMap)

    def share_within(self, target: float) -> Share | None:
        """The share of values up to a target, from the buckets; without them the quantiles give it, as exact as they
        are. ``None`` where there is neither.

        >>> Dist(mean=1100, buckets={1000: 0.6, 2500: 0.9}).share_within(2000)
        Share(estimate=0.8, lower=0.6, upper=0.9)
        >>> Dist(mean=120, quantiles={0.5: 100, 0.9: 300}).share_within(200)
        Share(estimate=0.7, lower=0.5, upper=0.9)
        """
        points = self.buckets or {value: share for share, value in sorted(self.quantiles.items())}
        return share_within(points, target) if points else None

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return or_number(core_schema, handler, "number")

    @model_validator(mode="before")
    @classmethod
    def _bare_number_is_the_mean(cls, value: Any) -> Any:
        value = plain(value)
        return {"mean": value} if isinstance(value, int | float) else value

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        return [(name, value) for name, value in super().__repr_args__() if value is not None and value != {}]


def _unknown_without_mean(value: Any) -> Any:
    mean = plain(value.get("mean") if isinstance(value, Mapping) else value)
    unknown = mean is None or (isinstance(mean, float) and not math.isfinite(mean))
    return None if unknown and (not isinstance(value, Mapping) or "mean" in value) else value


KnownDist = Annotated[Dist | None, BeforeValidator(_unknown_without_mean)]
"""A :class:`Dist`, or ``None`` where it is unknown; a mean that is NaN makes it unknown."""


class InTime(Frozen):
    """The share of requests that met both targets of an SLA, as a source that observes each request knows it.

    Args:
        ttft_ms: The target for the time to first token, in milliseconds.
        itl_ms: The target for the inter-token latency, in milliseconds.
        share: The share of the requests that ended in the window; one that was dropped is missed.
    """

    ttft_ms: float = Field(gt=0)
    itl_ms: float = Field(gt=0)
    share: Unit


class Traffic(Frozen):
    """The requests of the last ``window_s`` seconds; every field is ``None`` where it is unknown.

    Windows may overlap the one before: a history goes by ``observed_at_s`` and ``window_s`` and never counts twice.

    Args:
        window_s: The length of the window, in seconds.
        observed_at_s: When it ended, in Unix seconds. Left out: at the snapshot's own ``at_s``; ``None``: at an unknown
            time.
        requests_per_s: Arrivals, not completions.
        rejected_per_s: Requests that were turned away because of the load. They are part of ``requests_per_s`` only
            where a frontend counts them at the door.
        aborted_per_s: Requests that were given up before their end.
        preemptions_per_s: How often a request lost its place in a batch.
        queued: Requests that are accepted but not yet in a pool.
        queued_tokens: Their prompt tokens.
        prefill_tokens: Prompt tokens that were given to workers and are not computed yet, as a router counts them.
        prefix_hit_rate: The share of prompt tokens served from cache.
        arrival_dispersion: The variance of the arrival counts over their mean, 1 for Poisson.
        isl: Prompt lengths, in tokens.
        osl: Output lengths, in tokens.
        ttft_ms: Times to first token, in milliseconds.
        itl_ms: Inter-token latencies, in milliseconds: of each request its mean, where the engine observes that.
        token_gap_ms: Gaps between two tokens (or outputs of a step) of a request, in milliseconds.
        request_duration_s: Times from arrival to the last token, in seconds.
        in_time: The share of requests that met both targets of one SLA, where a source observes each request.
    """

    window_s: Known = None
    observed_at_s: KnownTime = None
    requests_per_s: Known = None
    rejected_per_s: Known = None
    aborted_per_s: Known = None
    preemptions_per_s: Known = None
    queued: Known = None
    queued_tokens: Known = None
    prefill_tokens: Known = None
    prefix_hit_rate: KnownShare = None
    arrival_dispersion: Known = None
    isl: KnownDist = None
    osl: KnownDist = None
    ttft_ms: KnownDist = None
    itl_ms: KnownDist = None
    token_gap_ms: KnownDist = None
    request_duration_s: KnownDist = None
    in_time: InTime | None = None


class Deferred(Frozen):
    """The requests of a deferrable class, which a gateway holds back until there is room for them.

    Args:
        due: Requests that wait, by the moment at which they are due, in Unix seconds: one entry for each job.
        running: Requests that were released and are not finished.
        isl: Prompt lengths, in tokens.
        osl: Output lengths, in tokens.
        observed_at_s: As in :class:`Traffic`.
    """

    due: ReadOnly[float, Annotated[float, Ge(0)]] = Field(default_factory=FrozenMap)
    running: Known = None
    isl: KnownDist = None
    osl: KnownDist = None
    observed_at_s: KnownTime = None

    @property
    def waiting(self) -> float:
        """Requests that wait.

        >>> Deferred(due={3600.0: 200, 7200.0: 100}).waiting
        300.0
        """
        return float(sum(self.due.values()))


class WorkerStatus(Frozen):
    """One worker (a process or a pod) of a pool, as far as it is known."""

    name: str
    queued: Known = None
    queued_tokens: Known = None
    running: Known = None
    kv_usage: KnownShare = None
    kv_capacity_tokens: Known = None
    observed_at_s: KnownTime = None


class StageTimes(Frozen):
    """How long requests were in each stage of a pool, in milliseconds: mean and count of those in the window.

    Most engines observe all stages of a request when it ends. Of requests that pass two pools, the time to first token
    is the queue and the prefill of the prefill pool, and ``first_token_ms`` of the decode pool.

    Args:
        queue_ms: Waiting at the worker, up to the first step there.
        prefill_ms: From the first step there to the first token, or to the end of the prompt in a prefill pool.
        transfer_ms: The transfer of the KV cache between two workers.
        first_token_ms: In a decode pool, from the end of prefill elsewhere to the first token, with the transfer.
        decode_ms: From the first token to the last one.
    """

    queue_ms: KnownDist = None
    prefill_ms: KnownDist = None
    transfer_ms: KnownDist = None
    first_token_ms: KnownDist = None
    decode_ms: KnownDist = None


class PoolMetrics(Frozen):
    """The metrics of one pool; every field is ``None`` where it is unknown.

    Args:
        observed_at_s: As in :class:`Traffic`.
        coverage: The share of ready workers that were observed and take requests: one that sleeps does not.
        asleep: Workers that answered and take no requests, since they sleep.
        queued: Requests waiting, the sum over the observed workers.
        queued_tokens: Prompt tokens of those that are not computed yet, the sum over the observed workers. From a
            router also those of prompts that are being computed.
        running: Requests being served, the sum over the observed workers.
        kv_usage: The share of the KV cache in use, the mean over the observed workers.
        kv_usage_max: That of the fullest worker, which preempts requests once it is 1.
        kv_capacity_tokens: Tokens that the KV cache of one replica holds.
        stages: How long requests were in each stage.
        traffic: The requests at this pool's workers.
        workers: The metrics of each worker.
    """

    observed_at_s: KnownTime = None
    coverage: KnownShare = None
    asleep: Known = None
    queued: Known = None
    queued_tokens: Known = None
    running: Known = None
    kv_usage: KnownShare = None
    kv_usage_max: KnownShare = None
    kv_capacity_tokens: Known = None
    stages: StageTimes = StageTimes()
    traffic: Traffic | None = None
    workers: tuple[WorkerStatus, ...] = ()
