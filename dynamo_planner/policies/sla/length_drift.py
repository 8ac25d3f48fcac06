"""Length drift: how far the mean lengths of a minute are from those of the minutes before, beyond chance.

A forecast of the arrival rate says how many requests come, not how long they are. Where tenants or tasks change, the
mean prompt of a minute may be a fifth longer than that of the quarter of an hour before, for as many requests::

    d = ln(mean of a window / mean before)      V <- V + w (d**2 - C / n - C / N - V)

=======  =============================================================================================================
``n``    requests of the window; ``N``: those that the mean before is of
``C``    squared coefficient of variation of one request: ``C / n + C / N`` is what chance alone makes for
``V``    variance of the logarithm of mean lengths; it begins as if there had been none for :data:`PRIOR_S`
``w``    weight of the window, with a half-life of :data:`DRIFT_HALF_LIFE_S`, times ``n / (n + TELLING_REQUESTS)``
=======  =============================================================================================================

3,000 requests with a mean of 1,250 tokens, where 30,000 before had 1,000, are ``ln(1.25) = 0.22`` away; with a
``C`` of 1, chance makes for ``sqrt(1 / 3000 + 1 / 30000) = 0.019``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dynamo_planner.forecasting.experts.base import decayed

REFERENCE_HALF_LIFE_S, REFERENCE_REQUESTS = 600.0, 500.0
"""The mean before keeps half its weight over this time (seconds) or this many requests, whichever takes longer."""

DRIFT_HALF_LIFE_S = 1800.0
"""Half-life in seconds of the variance."""

TELLING_REQUESTS = 100.0
"""A window of this many requests tells half as much as one of very many, whose mean is hardly a matter of chance. So a
night with a request a minute does not forget how lengths drift by day."""

PRIOR_S = 300.0
"""Seconds without drift that the variance begins with."""

MAX_DEVIATION = 1.5
"""The logarithm of a window's mean over the mean before is cut off here, at 4.5 times as long, and so is chance."""

MAX_SPREAD = 0.4
"""The largest standard deviation that is planned for: half as long again."""


class LengthDrift(NamedTuple):
    """The drift of the lengths of prompts, or of answers.

    Args:
        mean: The mean before, in tokens; 0 where there was none.
        weight: The requests that it is of, fading.
        variance: The variance of the logarithm of mean lengths, beyond chance. Below 0 by chance.
        seen_s: Seconds for which lengths were observed, less of those in which few were.
    """

    mean: float = 0.0
    weight: float = 0.0
    variance: float = 0.0
    seen_s: float = 0.0

    def spread(self) -> float:
        """The standard deviation of the logarithm of mean lengths."""
        return min(math.sqrt(max(self.variance, 0.0)), MAX_SPREAD)


def drifted(before: LengthDrift, mean: float, count: float, cv2: float, elapsed_s: float) -> LengthDrift:
    """The drift after a window of ``count`` requests, with the ``cv2`` of one, ``elapsed_s`` after the last one."""
    if mean <= 0:
        return before
    if not before.mean:
        return LengthDrift(mean, count)
    apart = min(abs(math.log(mean / before.mean)), MAX_DEVIATION)
    chance = min(cv2 * (1 / count + 1 / before.weight), MAX_DEVIATION**2)
    told_s = elapsed_s * count / (count + TELLING_REQUESTS)
    seen_s = before.seen_s + told_s
    part = max(1 - decayed(told_s, DRIFT_HALF_LIFE_S), told_s / (PRIOR_S + seen_s))
    kept = 0.5 ** min(elapsed_s / REFERENCE_HALF_LIFE_S, count / REFERENCE_REQUESTS) * before.weight
    weight = kept + count
    return LengthDrift(
        mean=before.mean + count / weight * (mean - before.mean),
        weight=weight,
        variance=before.variance + part * (apart**2 - chance - before.variance),
        seen_s=seen_s,
    )
