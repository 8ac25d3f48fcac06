"""Request lengths: means, spreads and quantiles of ISL and OSL, with the last minutes counting most."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.values import FrozenMap
from dynamo_planner.policies.sla.length_drift import LengthDrift, drifted
from dynamo_planner.sizing import Lengths

LENGTHS_HALF_LIFE_S = 150.0
LENGTHS_HALF_LIFE_REQUESTS = 500.0
"""Evidence keeps half its weight over this time (seconds) or this many requests, whichever takes longer."""

MIN_INTERVALS = 12.0
"""The spread is estimated from the means of intervals once there were this many."""

MAX_INTERVALS = 120.0
"""The estimate has the memory of this many intervals; older ones fade."""

PRIOR_CV2, PRIOR_INTERVALS = 1.0, 20.0
"""The squared coefficient of variation that lengths usually have, and the intervals that it weighs as much as."""

MAX_CV2 = 4.0
"""The largest squared coefficient of variation that is estimated."""

MEAN_STEP, QUANTILE_STEP, CV2_STEP = 0.04, 0.1, 0.2
"""Means, quantiles and spreads are rounded in steps of these shares, so that one sizing serves for many ticks."""

GROWN_Z = 5.0
"""Standard deviations of a mean between what requests were and what they are from which on the latter counts at once:
answers that get longer fill the KV cache in minutes."""

MIN_GROWTH = 0.5
"""And at least by this share: a smaller growth need not be known at once."""

GROWN_WEIGHT = 0.25
"""What was before then weighs at most this many times as much as the window."""

MAX_INTERVAL_CV2 = 20.0
"""The means of two intervals count as at most this far apart, as a squared coefficient of variation."""

Quantiles = tuple[tuple[float, float], ...]
"""Pairs of level and value."""


class ObservedLengths(NamedTuple):
    """The lengths of prompts, or of answers, as far as they were observed.

    Args:
        weight: Requests that were observed, fading.
        mean: Their mean length, in tokens.
        cv2: The squared coefficient of variation that was reported.
        quantiles: The quantiles that were reported.
        between: The variance of one request's length that the means of intervals suggest, in tokens squared.
        intervals: How many intervals that is from.
        last_mean: The mean length of the last interval, in tokens.
        last_count: The requests of the last interval.
        drift: How far the means of intervals wander.
    """

    weight: float
    mean: float
    cv2: float | None = None
    quantiles: Quantiles = ()
    between: float = 0.0
    intervals: float = 0.0
    last_mean: float = 0.0
    last_count: float = 1.0
    drift: LengthDrift = LengthDrift()

    def lengths(self) -> Lengths:
        """The lengths to size for, with a log-normal spread unless quantiles are known."""
        spread = self.cv2 if self.cv2 is not None else self.estimated_cv2()
        mean = rounded(self.mean, MEAN_STEP)
        quantiles = [
            (level, mean * rounded(value / self.mean, QUANTILE_STEP)) for level, value in self.quantiles if mean
        ]
        return _lengths(mean, None if spread is None else rounded(spread, CV2_STEP), tuple(quantiles))

    @property
    def estimated(self) -> bool:
        """Whether the spread is an estimate, from the means of intervals."""
        return self.cv2 is None and not self.quantiles

    def estimated_cv2(self) -> float | None:
        """The squared coefficient of variation, estimated from the means of successive intervals.

        Means of n and m requests differ by a variance of 1/n + 1/m of that of one (von Neumann, 1941, with weights).
        """
        if self.quantiles or self.intervals < MIN_INTERVALS or self.mean <= 0:
            return None
        observed = self.intervals * min(self.between / self.mean**2, MAX_CV2)
        return (PRIOR_INTERVALS * PRIOR_CV2 + observed) / (PRIOR_INTERVALS + self.intervals)


@lru_cache(maxsize=2048)
def _lengths(mean: float, cv2: float | None, quantiles: Quantiles) -> Lengths:
    return Lengths.of(Dist.unchecked(mean=mean, count=None, cv2=cv2, quantiles=FrozenMap(dict(quantiles))))


def rounded(value: float, step: float) -> float:
    """The nearest power of ``exp(step)``, about ``1 + step``."""
    return math.exp(round(math.log(value) / step) * step) if value > 0 else 0.0


def learned(
    lengths: ObservedLengths | None, observed: Dist | None, requests: float, elapsed_s: float, *, may_grow: bool = True
) -> ObservedLengths | None:
    """The lengths after an interval; ``requests`` counts its requests where the distribution does not. Without
    ``may_grow`` none counts at once for being long."""
    if observed is None:
        return lengths
    count = observed.count if observed.count is not None else max(requests, 1.0)
    if count <= 0:
        return lengths
    quantiles = tuple(sorted(observed.quantiles.items()))
    if lengths is None:
        drift = LengthDrift(observed.mean, count)
        return ObservedLengths(
            count, observed.mean, observed.cv2, quantiles, last_mean=observed.mean, last_count=count, drift=drift
        )
    kept = 0.5 ** min(elapsed_s / LENGTHS_HALF_LIFE_S, count / LENGTHS_HALF_LIFE_REQUESTS) * lengths.weight
    if may_grow and _grown(lengths, observed.mean, count):
        kept = min(kept, GROWN_WEIGHT * count)
    weight = kept + count
    part = count / weight
    intervals = lengths.intervals + 1
    apart = (observed.mean - lengths.last_mean) ** 2 / (1 / count + 1 / lengths.last_count)
    apart = min(apart, MAX_INTERVAL_CV2 * lengths.mean**2)
    return ObservedLengths(
        weight=weight,
        mean=lengths.mean + part * (observed.mean - lengths.mean),
        cv2=_moved(lengths.cv2, observed.cv2, part),
        quantiles=_quantiles_moved(lengths.quantiles, quantiles, part),
        between=lengths.between + (apart - lengths.between) / min(intervals, MAX_INTERVALS),
        intervals=min(intervals, MAX_INTERVALS),
        last_mean=observed.mean,
        last_count=count,
        drift=drifted(lengths.drift, observed.mean, count, _cv2(lengths), elapsed_s),
    )


def _cv2(lengths: ObservedLengths) -> float:
    """The squared coefficient of variation of one request, as far as it is known."""
    spread = lengths.cv2 if lengths.cv2 is not None else lengths.estimated_cv2()
    return PRIOR_CV2 if spread is None else spread


def _grown(lengths: ObservedLengths, mean: float, count: float) -> bool:
    """Whether requests are much longer now than their spread explains, by half at least: after a mean of 200 with a
    squared coefficient of variation of 1, 100 requests are from ``200 (1 + 5 / sqrt(100)) = 300`` on. So must those
    of the window before be, by half: a single request of a heavy tail can make a window of a few."""
    chance = GROWN_Z * math.sqrt(max(PRIOR_CV2, _cv2(lengths)) / count)
    least = lengths.mean * (1 + MIN_GROWTH)
    return min(mean, lengths.last_mean) > least and mean > lengths.mean * (1 + chance)


def _moved(before: float | None, observed: float | None, part: float) -> float | None:
    return before if observed is None else observed if before is None else before + part * (observed - before)


def _quantiles_moved(before: Quantiles, observed: Quantiles, part: float) -> Quantiles:
    """The quantiles moved towards the observed ones; those of other levels than before replace them."""
    if not observed:
        return before
    if [level for level, _ in before] != [level for level, _ in observed]:
        return observed
    return tuple([(level, old + part * (new - old)) for (level, old), (_, new) in zip(before, observed, strict=True)])
