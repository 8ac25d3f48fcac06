"""How long prompts and answers are: what was seen of it, so that requests of the last minutes count most."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from dynamo_planner.core.snapshot import Dist
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.sizing import Lengths

HALF_LIFE_S = 600.0
HALF_LIFE_REQUESTS = 500.0
"""Evidence keeps half its weight over this time or so many requests, whichever takes longer."""

LEAST_INTERVALS = 12.0
"""The spread is estimated from the means of intervals once there were so many."""

MOST_INTERVALS = 120.0
"""Of more intervals than this the older ones fade."""

USUAL_CV2, USUAL_WEIGHT = 1.0, 20.0
"""The spread that lengths usually have, which counts as so many intervals."""

MOST_CV2 = 4.0

STEP = 0.02
"""Means are told in steps of this share, quantiles in five and spreads in ten times as large ones: what is worked out
for some lengths then serves for many ticks."""

Quantiles = tuple[tuple[float, float], ...]
"""Pairs of level and value."""


class LengthsSeen(NamedTuple):
    """What is remembered: requests seen (fading), their mean length, and of its spread what was told (``cv2``,
    ``quantiles``) and what the means of ``intervals`` gave away (``between``); mean and requests of the last one."""

    weight: float
    mean: float
    cv2: float | None = None
    quantiles: Quantiles = ()
    between: float = 0.0
    intervals: float = 0.0
    last_mean: float = 0.0
    last_count: float = 1.0

    def lengths(self) -> Lengths:
        """The lengths to size for; of log-normal spread unless quantiles are known."""
        spread = self.cv2 if self.cv2 is not None else self.estimated_cv2()
        mean = rounded(self.mean, STEP)
        quantiles = [(level, mean * rounded(value / self.mean, 5 * STEP)) for level, value in self.quantiles if mean]
        return _lengths(mean, None if spread is None else rounded(spread, 10 * STEP), tuple(quantiles))

    @property
    def estimated(self) -> bool:
        """Whether the spread is an estimate, from the means of intervals."""
        return self.cv2 is None and not self.quantiles

    def estimated_cv2(self) -> float | None:
        """The squared coefficient of variation, from how the means of successive intervals differ: means of n and m
        requests differ by a variance of 1/n + 1/m of that of one (von Neumann, 1941, with weights)."""
        if self.quantiles or self.intervals < LEAST_INTERVALS or self.mean <= 0:
            return None
        seen = self.intervals * min(self.between / self.mean**2, MOST_CV2)
        return (USUAL_WEIGHT * USUAL_CV2 + seen) / (USUAL_WEIGHT + self.intervals)


@lru_cache(maxsize=64)
def _lengths(mean: float, cv2: float | None, quantiles: Quantiles) -> Lengths:
    return Lengths.of(Dist.unchecked(mean=mean, count=None, cv2=cv2, quantiles=FrozenMap(dict(quantiles))))


def rounded(value: float, step: float) -> float:
    """To the nearest power of ``1 + step``."""
    return math.exp(round(math.log(value) / step) * step) if value > 0 else 0.0


def learned(lengths: LengthsSeen | None, seen: Dist | None, requests: float, elapsed_s: float) -> LengthsSeen | None:
    """The lengths after an interval in which so many requests were seen, of which the distribution may not say."""
    if seen is None:
        return lengths
    count = seen.count if seen.count is not None else max(requests, 1.0)
    if count <= 0:
        return lengths
    quantiles = tuple(sorted(seen.quantiles.items()))
    if lengths is None:
        return LengthsSeen(count, seen.mean, seen.cv2, quantiles, last_mean=seen.mean, last_count=count)
    weight = 0.5 ** min(elapsed_s / HALF_LIFE_S, count / HALF_LIFE_REQUESTS) * lengths.weight + count
    part = count / weight
    intervals = lengths.intervals + 1
    apart = (seen.mean - lengths.last_mean) ** 2 / (1 / count + 1 / lengths.last_count)
    apart = min(apart, 5 * MOST_CV2 * lengths.mean**2)
    return LengthsSeen(
        weight=weight,
        mean=lengths.mean + part * (seen.mean - lengths.mean),
        cv2=_moved(lengths.cv2, seen.cv2, part),
        quantiles=_quantiles_moved(lengths.quantiles, quantiles, part),
        between=lengths.between + (apart - lengths.between) / min(intervals, MOST_INTERVALS),
        intervals=min(intervals, MOST_INTERVALS),
        last_mean=seen.mean,
        last_count=count,
    )


def _moved(before: float | None, seen: float | None, part: float) -> float | None:
    return before if seen is None else seen if before is None else before + part * (seen - before)


def _quantiles_moved(before: Quantiles, seen: Quantiles, part: float) -> Quantiles:
    """Quantiles move towards what was seen of them; those of other levels than before replace them."""
    if not seen:
        return before
    if [level for level, _ in before] != [level for level, _ in seen]:
        return seen
    return tuple([(level, old + part * (new - old)) for (level, old), (_, new) in zip(before, seen, strict=True)])
