"""Traces drawn from a seed, where there is no recorded one at hand."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from dynamo_planner.frozen import Frozen
from dynamo_planner.simulation.traces import Trace

BIN_S = 1.0


class Lengths(Frozen):
    """Token counts that are log-normal with this median and mean, at most ``maximum``.

    A log-normal with parameters mu and sigma has the median exp(mu) and the mean exp(mu + sigma**2 / 2).

    >>> Lengths(median=100, mean=100).draw(np.random.default_rng(1), 3).tolist()
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
        """So many lengths, at least 1."""
        sigma = math.sqrt(2 * math.log(self.mean / self.median))
        drawn = np.rint(random.lognormal(math.log(self.median), sigma, count))
        return np.clip(drawn, 1, self.maximum).astype(np.int64)

    def scaled(self, factor: float) -> Lengths:
        """The same shape at ``factor`` times the length, but not below a median of 1."""
        median = max(self.median * factor, 1.0)
        return Lengths(
            median=median, mean=max(self.mean * factor, median), maximum=max(round(self.maximum * factor), 1)
        )


AZURE_CONVERSATION_ISL = Lengths(median=1020, mean=1155, maximum=14_050)
AZURE_CONVERSATION_OSL = Lengths(median=129, mean=211, maximum=1000)
"""Median, mean and maximum of the conversation part of the Azure LLM inference trace 2023 (Patel et al., "Splitwise",
ISCA 2024)."""


def poisson(
    requests_per_s: float,
    duration_s: float,
    seed: int,
    isl: Lengths = AZURE_CONVERSATION_ISL,
    osl: Lengths = AZURE_CONVERSATION_OSL,
) -> Trace:
    """Arrivals at a constant rate that know nothing of each other (exponential gaps)."""
    random = np.random.default_rng(seed)
    arrival = random.random(random.poisson(requests_per_s * duration_s)) * duration_s
    return _trace("poisson", random, arrival, duration_s, isl, osl)


def burst_and_lull(
    lull_requests_per_s: float,
    burst_requests_per_s: float,
    seed: int,
    duration_s: float = 90.0,
    length_scale: float = 1.0,
) -> Trace:
    """A lull (the first 20 % of the time), a burst (up to 55 %), and a lull again, for a look at a planner at work.

    Lengths are those of the Azure conversation trace (:data:`AZURE_CONVERSATION_ISL`), times ``length_scale``. The rate
    of each second is multiplied by a gamma variable of mean 1 and variance 0.1, so that arrivals are more uneven than
    Poisson ones, as they are in production traces.
    """
    random = np.random.default_rng(seed)
    start_s = np.arange(0.0, duration_s, BIN_S)
    burst = (start_s >= 0.2 * duration_s) & (start_s < 0.55 * duration_s)
    rate = np.where(burst, burst_requests_per_s, lull_requests_per_s) * random.gamma(10.0, 0.1, len(start_s))
    width_s = np.minimum(BIN_S, duration_s - start_s)
    counts = random.poisson(rate * width_s)
    arrival = np.repeat(start_s, counts) + np.repeat(width_s, counts) * random.random(counts.sum())
    isl, osl = AZURE_CONVERSATION_ISL.scaled(length_scale), AZURE_CONVERSATION_OSL.scaled(length_scale)
    return _trace("burst_and_lull", random, arrival, duration_s, isl, osl)


def _trace(
    name: str, random: np.random.Generator, arrival_s: np.ndarray, duration_s: float, isl: Lengths, osl: Lengths
) -> Trace:
    count = len(arrival_s)
    return Trace(np.sort(arrival_s), isl.draw(random, count), osl.draw(random, count), None, name, duration_s)
