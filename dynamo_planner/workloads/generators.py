"""Traces drawn from a seed, where there is no recorded one at hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from dynamo_planner.core.values import Frozen
from dynamo_planner.workloads.rate_curves import RateCurve
from dynamo_planner.workloads.trace import Trace

BIN_S = 1.0


class LogNormalLengths(Frozen):
    """Token counts from a log-normal distribution.

    A log-normal with the parameters mu and sigma has the median exp(mu) and the mean exp(mu + sigma**2 / 2).

    Args:
        median: the median, in tokens, at least 1.
        mean: the mean, in tokens, at least the median.
        maximum: longer ones are cut to this, in tokens; 32768 by default.

    >>> LogNormalLengths(median=100, mean=100).draw(np.random.default_rng(1), 3).tolist()
    [100, 100, 100]
    """

    median: float = Field(ge=1)
    mean: float = Field(ge=1)
    maximum: int = Field(default=32_768, ge=1)

    @model_validator(mode="after")
    def _mean_is_not_below_the_median(self) -> Self:
        if self.mean < self.median:
            raise ValueError(f"mean ({self.mean}) must be at least median ({self.median}), as in every log-normal")
        return self

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Draw ``count`` lengths, each at least 1."""
        sigma = math.sqrt(2 * math.log(self.mean / self.median))
        drawn = np.rint(random.lognormal(math.log(self.median), sigma, count))
        return np.clip(drawn, 1, self.maximum).astype(np.int64)

    def scaled(self, factor: float) -> LogNormalLengths:
        """The same shape at ``factor`` times the length, but not below a median of 1."""
        median = max(self.median * factor, 1.0)
        return LogNormalLengths(
            median=median, mean=max(self.mean * factor, median), maximum=max(round(self.maximum * factor), 1)
        )


AZURE_CONVERSATION_ISL = LogNormalLengths(median=1020, mean=1155, maximum=14_050)
AZURE_CONVERSATION_OSL = LogNormalLengths(median=129, mean=211, maximum=1000)
"""Median, mean and maximum of the conversation part of the Azure LLM inference trace 2023 (Patel et al., "Splitwise",
ISCA 2024)."""


def poisson(
    requests_per_s: float,
    duration_s: float,
    seed: int,
    isl: LogNormalLengths = AZURE_CONVERSATION_ISL,
    osl: LogNormalLengths = AZURE_CONVERSATION_OSL,
) -> Trace:
    """A Poisson process: arrivals at a constant rate, independent of each other (exponential gaps)."""
    random = np.random.default_rng(seed)
    arrival = random.random(random.poisson(requests_per_s * duration_s)) * duration_s
    return _trace("poisson", random, arrival, duration_s, isl, osl)


def following(
    rate_curve: RateCurve,
    duration_s: float,
    seed: int,
    isl: LogNormalLengths = AZURE_CONVERSATION_ISL,
    osl: LogNormalLengths = AZURE_CONVERSATION_OSL,
    overdispersion: float = 0.0,
) -> Trace:
    """Arrivals at a rate that changes over time (see :mod:`~dynamo_planner.workloads.rate_curves`).

    With ``overdispersion`` above 0, the rate of each second is multiplied by a gamma variable of mean 1 and that
    variance, so that the counts per second have the dispersion 1 + ``overdispersion`` x rate, as in production traces;
    0 is Poisson.
    """
    if not (0 < duration_s < math.inf and 0 <= overdispersion < math.inf):
        raise ValueError(
            f"duration_s ({duration_s}) must be above 0, overdispersion ({overdispersion}) at least 0, both finite"
        )
    random = np.random.default_rng(seed)
    start_s = np.arange(0.0, duration_s, BIN_S)
    width_s = np.minimum(BIN_S, duration_s - start_s)
    rate = np.asarray(rate_curve(start_s + width_s / 2), float)
    if rate.shape != start_s.shape or not np.all(np.isfinite(rate) & (rate >= 0)):
        raise ValueError("a rate curve must give a finite rate of at least 0 for each time")
    if overdispersion:
        rate = rate * random.gamma(1 / overdispersion, overdispersion, len(rate))
    counts = random.poisson(rate * width_s)
    arrival = np.repeat(start_s, counts) + np.repeat(width_s, counts) * random.random(counts.sum())
    return _trace("following", random, arrival, duration_s, isl, osl)


def drifting(trace: Trace, from_s: float, over_s: float, isl_factor: float = 1.0, osl_factor: float = 1.0) -> Trace:
    """The same arrivals with lengths that change gradually: from ``from_s`` on, within ``over_s`` seconds, to
    ``isl_factor`` and ``osl_factor`` times what they were (prefix hits grow with their prompts)."""
    if not (over_s > 0 and 0 < isl_factor < math.inf and 0 < osl_factor < math.inf):
        raise ValueError(f"over_s ({over_s}) and the factors ({isl_factor}, {osl_factor}) must be above 0, and finite")
    progress = np.clip((trace.arrival_s - from_s) / over_s, 0, 1)

    def scaled(lengths: np.ndarray, factor: float) -> np.ndarray:
        return np.rint(lengths * factor**progress).astype(np.int64)

    isl = np.maximum(scaled(trace.isl, isl_factor), 1)
    hits = None if trace.prefix_hit is None else np.minimum(scaled(trace.prefix_hit, isl_factor), isl)
    osl = np.maximum(scaled(trace.osl, osl_factor), 1)
    return Trace(trace.arrival_s, isl, osl, hits, trace.name, trace.duration_s)


def burst_and_lull(
    lull_requests_per_s: float,
    burst_requests_per_s: float,
    seed: int,
    duration_s: float = 90.0,
    length_scale: float = 1.0,
) -> Trace:
    """A lull (the first 20 % of the time), a burst (up to 55 %), and a lull again, to show a planner at work.

    Lengths are those of the Azure conversation trace (:data:`AZURE_CONVERSATION_ISL`), times ``length_scale``. The rate
    of each second is multiplied by a gamma variable of mean 1 and variance 0.1, so that arrivals are more uneven than
    Poisson ones, as in production traces.
    """

    def rate_curve(time_s: np.ndarray) -> np.ndarray:
        burst = (time_s >= 0.2 * duration_s) & (time_s < 0.55 * duration_s)
        return np.where(burst, burst_requests_per_s, lull_requests_per_s)

    isl, osl = AZURE_CONVERSATION_ISL.scaled(length_scale), AZURE_CONVERSATION_OSL.scaled(length_scale)
    return replace(following(rate_curve, duration_s, seed, isl, osl, overdispersion=0.1), name="burst_and_lull")


def _trace(
    name: str,
    random: np.random.Generator,
    arrival_s: np.ndarray,
    duration_s: float,
    isl: LogNormalLengths,
    osl: LogNormalLengths,
) -> Trace:
    count = len(arrival_s)
    return Trace(np.sort(arrival_s), isl.draw(random, count), osl.draw(random, count), None, name, duration_s)
