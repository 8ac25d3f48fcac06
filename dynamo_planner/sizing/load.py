"""Load: arrivals, prompt and answer lengths, and the share of prompts in the prefix cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Self

import numpy as np
from scipy.special import ndtri

from dynamo_planner.core.metrics import Dist
from dynamo_planner.sizing.arrays import Floats, read_only, same_array
from dynamo_planner.sizing.arrivals import Arrivals

ASSUMED_CV2 = 1.0
"""The squared coefficient of variation of lengths of which only the mean is known: the order of public traces of
chat and code, whose prompts and answers have 0.5 to 2."""

SAMPLE = 64
"""Equally likely lengths that stand for a distribution."""

TAIL = 8
"""The longest of them whose slope goes on beyond the sample."""

ASSUMED_TAIL = 0.5
"""The part of the slope, in log length over normal score, that goes on beyond the sample where no quantiles are known.
A log-normal distribution of the same spread has too long a tail: in windows of 5,000 requests of public traces the
0.999 quantile of prompts is 0.55 to 0.85 of its, and a replica with a queue of its own is held up by the longest."""


@lru_cache(maxsize=8)
def _normal_scores(count: int) -> Floats:
    """The standard normal quantiles in the middle of this many equally likely parts."""
    return read_only(ndtri((np.arange(count) + 0.5) / count))


_NORMAL = _normal_scores(SAMPLE)


@dataclass(frozen=True, eq=False)
class Lengths:
    """A distribution of lengths in tokens: a value, equal and hashed by content.

    Args:
        mean: mean length, in tokens.
        cv2: squared coefficient of variation.
        values: equally likely lengths, ascending.
        assumed: whether only the mean is known, and the spread is :data:`ASSUMED_CV2`. Default False.
        tail: whether quantiles say how the longest are distributed; else those beyond ``values`` are as
            :data:`ASSUMED_TAIL` says. Default True.

    >>> lengths = Lengths.of(Dist(mean=200, quantiles={0.5: 150, 0.9: 400}))
    >>> round(lengths.mean), round(lengths.cv2, 2), lengths.assumed
    (200, 0.69, False)
    >>> Lengths.of(200).assumed
    True
    """

    mean: float
    cv2: float
    values: Floats
    assumed: bool = False
    tail: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", read_only(self.values))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Lengths):
            return NotImplemented
        return (
            self.mean == other.mean
            and self.cv2 == other.cv2
            and self.assumed == other.assumed
            and self.tail == other.tail
            and same_array(self.values, other.values)
        )

    def __hash__(self) -> int:
        return hash((self.mean, self.cv2))

    @classmethod
    def of(cls, dist: Dist | float) -> Self:
        """A log-normal distribution with this mean and ``cv2``, or one through the quantiles where two are known.

        The quantiles set the shape, by straight lines in log length over normal score between them and beyond; the
        mean, which is of the same requests, sets the scale.
        """
        dist = dist if isinstance(dist, Dist) else Dist(mean=dist)
        if dist.mean == 0:
            return cls(0.0, 0.0, np.zeros(SAMPLE))
        known = sorted((share, value) for share, value in dist.quantiles.items() if 0 < share < 1 and value > 0)
        cv2 = ASSUMED_CV2 if dist.cv2 is None else dist.cv2
        if len(known) < 2:
            logs = _NORMAL * math.sqrt(math.log1p(cv2))
        else:
            scores, heights = ndtri([share for share, _ in known]), np.log([value for _, value in known])
            logs = _through(scores, np.maximum.accumulate(heights))
        values = np.exp(logs - logs.max())
        values = values * (dist.mean / values.mean())
        if dist.cv2 is None and len(known) > 1:
            cv2 = float(values.var()) / dist.mean**2
        return cls(dist.mean, cv2, values, assumed=dist.cv2 is None and len(known) < 2, tail=len(known) > 1)

    def finer(self, count: int) -> Floats:
        """A larger sample of equally likely lengths, shape (count,), on straight lines in log length over normal score
        between those of ``values`` and beyond."""
        if not self.mean:
            return np.zeros(count)
        normal = _normal_scores(count)
        logs = np.log(np.maximum(self.values, 1e-9))
        slope = (logs[-1] - logs[-1 - TAIL]) / (_NORMAL[-1] - _NORMAL[-1 - TAIL]) * (1.0 if self.tail else ASSUMED_TAIL)
        beyond = np.maximum(normal - _NORMAL[-1], 0.0)
        return np.asarray(np.exp(np.interp(normal, _NORMAL, logs) + slope * beyond))

    def less(self, share: float) -> Self:
        """The lengths without this share of each."""
        if not share:
            return self
        return type(self)(self.mean * (1 - share), self.cv2, self.values * (1 - share), self.assumed, self.tail)


def _through(scores: Floats, heights: Floats) -> Floats:
    """At each normal score of the sample, on the line through the known points, whose ends go on straight."""
    piece = np.clip(np.searchsorted(scores, _NORMAL) - 1, 0, len(scores) - 2)
    slope = np.diff(heights) / np.diff(scores)
    return np.asarray(heights[piece] + slope[piece] * (_NORMAL - scores[piece]))


@dataclass(frozen=True)
class Load:
    """The load of a service: how requests arrive, and how long they are.

    Args:
        arrivals: how requests arrive.
        isl: prompt lengths.
        osl: answer lengths.
        prefix_hit_rate: share (0 to 1) of prompt tokens that need no computing, though their KV is attended to all the
            same. Default 0.
        kv_transfer_ms: time between the end of a prompt and its first token. Default 0.

    >>> load = Load.of(requests_per_s=20, isl=3000, osl=Dist(mean=300, cv2=0.5))
    >>> load.arrivals.requests_per_s, load.isl.mean, load.isl.assumed, load.osl.assumed
    (20, 3000.0, True, False)
    """

    arrivals: Arrivals
    isl: Lengths
    osl: Lengths
    prefix_hit_rate: float = 0.0
    kv_transfer_ms: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.prefix_hit_rate <= 1:
            raise ValueError(f"prefix_hit_rate must be from 0 to 1, got {self.prefix_hit_rate}")
        if not 0 <= self.kv_transfer_ms < math.inf:
            raise ValueError(f"kv_transfer_ms must be a finite number of at least 0, got {self.kv_transfer_ms}")

    @classmethod
    def of(
        cls,
        requests_per_s: float | Arrivals,
        isl: Dist | Lengths | float,
        osl: Dist | Lengths | float,
        prefix_hit_rate: float = 0.0,
        kv_transfer_ms: float = 0.0,
    ) -> Self:
        """A load from plain numbers."""
        arrivals = requests_per_s if isinstance(requests_per_s, Arrivals) else Arrivals(requests_per_s)
        prompts, answers = [size if isinstance(size, Lengths) else Lengths.of(size) for size in (isl, osl)]
        return cls(arrivals, prompts, answers, prefix_hit_rate, kv_transfer_ms)

    @cached_property
    def computed(self) -> Lengths:
        """The prompt tokens that have to be computed, without those in the prefix cache."""
        return self.isl.less(self.prefix_hit_rate)
