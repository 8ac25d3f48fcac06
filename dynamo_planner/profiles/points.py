"""Measured points, the data of a profile: plain values in plain units, validated when they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dynamo_planner.core.values import Count, Frozen
from dynamo_planner.profiles.validation import (
    MAX_GPUS,
    Column,
    PointsError,
    distinct,
    implied_gpus,
    in_range,
    same_length,
)

GPUS_ASSUMED = "prefill_gpus_assumed"
"""What a profile says about the GPUs of a prefill worker that its files did not tell."""


class PrefillPoints(Frozen):
    """Measurements of one prompt at a time, on each rank, on an otherwise idle engine.

    At least two points, in any order, no ISL twice.

    Args:
        isl: prompt lengths, 1 to 1e8 tokens.
        ttft_ms: TTFT of each, 1 to 1e6 ms.
        throughput_per_gpu: prompt tokens/s per GPU of each. Default: ranks * ISL / TTFT / GPUs.
        gpus: GPUs of a worker. Default 0: what the throughput implies, else 1.
        ranks: prompts that a worker computes at once, as it does with attention data parallelism. Default 0: what the
            throughput and the GPUs imply, else 1.

    The throughput alone tells no more than the GPUs of each rank.
    """

    isl: Column
    ttft_ms: Column
    throughput_per_gpu: Column | None = None
    gpus: Count = Field(default=0, le=MAX_GPUS)
    ranks: Count = Field(default=0, le=MAX_GPUS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        same_length({"isl": self.isl, "ttft_ms": self.ttft_ms, "throughput_per_gpu": self.throughput_per_gpu})
        in_range("isl", self.isl, 1, 1e8, "ISL counts tokens")
        in_range("ttft_ms", self.ttft_ms, 1, 1e6, "TTFT is in ms")
        distinct({"isl": self.isl})
        of_rank = _implied_gpus(self, [1000 * isl / ttft for isl, ttft in zip(self.isl, self.ttft_ms, strict=True)])
        if not self.gpus:
            object.__setattr__(self, "gpus", max(1, round(of_rank * max(self.ranks, 1))))
        if not self.ranks:
            implied = 1.0 if self.throughput_per_gpu is None else self.gpus / of_rank
            object.__setattr__(self, "ranks", max(1, round(implied)))
        return self


class DecodePoints(Frozen):
    """Measurements of decoding at a constant number of requests in flight.

    At least two points, in any order, however scattered, none twice.

    Args:
        max_kv_tokens: KV capacity of a worker, in tokens.
        kv_usage: share (0 to 1) of it that the requests hold, their number times ``context``.
        context: tokens that each request attends to, ISL + OSL / 2 on average.
        itl_ms: ITL, 0.5 to 1e5 ms.
        throughput_per_gpu: output tokens/s per GPU. Default: requests / ITL / GPUs.
        gpus: GPUs of a worker. Default 0: what the throughput implies, else 1.
    """

    max_kv_tokens: float = Field(ge=100, le=1e11)
    kv_usage: Column
    context: Column
    itl_ms: Column
    throughput_per_gpu: Column | None = None
    gpus: Count = Field(default=0, le=MAX_GPUS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        columns = {"kv_usage": self.kv_usage, "context": self.context, "itl_ms": self.itl_ms}
        same_length({**columns, "throughput_per_gpu": self.throughput_per_gpu})
        in_range("kv_usage", self.kv_usage, 1e-9, 1.5, "KV usage is a share, so divide percents by 100")
        in_range("context", self.context, 1, 1e8, "context counts tokens")
        in_range("itl_ms", self.itl_ms, 0.5, 1e5, "ITL is in ms")
        distinct({"kv_usage": self.kv_usage, "context": self.context})
        smallest = min(self.batch)
        if smallest < 0.5:
            raise PointsError(
                "max_kv_tokens",
                f"is {self.max_kv_tokens:g}, which makes kv_usage * max_kv_tokens / context only {smallest:.3g} "
                "requests in flight at a point: it counts tokens of a worker, not blocks",
            )
        implied = _implied_gpus(self, [1000 * batch / itl for batch, itl in zip(self.batch, self.itl_ms, strict=True)])
        if not self.gpus:
            object.__setattr__(self, "gpus", max(1, round(implied)))
        return self

    @property
    def batch(self) -> tuple[float, ...]:
        """Requests in flight at each point."""
        return tuple(
            usage * self.max_kv_tokens / context for usage, context in zip(self.kv_usage, self.context, strict=True)
        )


class MixedPoints(Frozen):
    """Measurements of single steps that compute prompts and decode at once (chunked prefill).

    At least two points, in any order, none twice.

    Args:
        prefill_tokens: prompt tokens of the step; may be 0.
        num_decode: requests that get a token beside them; may be 0.
        context: tokens that each of these requests attends to.
        step_ms: duration of the step, 0.5 to 1e6 ms.
    """

    prefill_tokens: Column
    num_decode: Column
    context: Column
    step_ms: Column

    @model_validator(mode="after")
    def _check(self) -> Self:
        places = {"prefill_tokens": self.prefill_tokens, "num_decode": self.num_decode, "context": self.context}
        same_length({**places, "step_ms": self.step_ms})
        in_range("prefill_tokens", self.prefill_tokens, 0, 1e8, "prefill_tokens counts tokens")
        in_range("num_decode", self.num_decode, 0, 1e6, "num_decode counts requests")
        in_range("context", self.context, 1, 1e8, "context counts tokens")
        in_range("step_ms", self.step_ms, 0.5, 1e6, "a step is in ms")
        distinct(places)
        return self


def _implied_gpus(points: PrefillPoints | DecodePoints, ideal: Sequence[float]) -> float:
    """The GPUs that make the ``ideal`` tokens/s, which follow from the times; 1 where no throughput was measured."""
    if points.throughput_per_gpu is None:
        return 1.0
    in_range("throughput_per_gpu", points.throughput_per_gpu, 1e-2, 1e7, "throughput is in tokens/s per GPU")
    return implied_gpus("throughput_per_gpu", ideal, points.throughput_per_gpu)


def efficiency(points: PrefillPoints | DecodePoints, ideal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of ``ideal`` (tokens/s of a worker) that was measured at each point; 1 where it was not measured."""
    if points.throughput_per_gpu is None:
        return np.ones(len(ideal))
    return np.asarray(points.gpus * np.asarray(points.throughput_per_gpu) / ideal)
