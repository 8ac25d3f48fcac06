"""Calibration at one horizon: expert weights, standard errors and quantile scores, learned from outcomes.

A forecast can be judged only once its horizon has passed. Until then it is pending; then it settles, and three things
are learned::

    w[k]  <- (1 - a) w[k] exp(-r L[k] / E) / sum + a / K          weights of experts
    V     <- V + v ((y - m)**2 - V)                               mean squared errors, of each expert and of the mixture
    s[q]  <- s[q] + c (q - 1[y <= m + s[q] E]) / phi(z[q])        scores of quantile levels

======  ==================================================================================================
symbol  meaning
======  ==================================================================================================
y       outcome, the square root of a rate; ``m`` is what the mixture forecast for it
E       standard error of the mixture at the time of the forecast, ``sqrt(V)``
L[k]    pinball loss of expert k at its own quantile ``judged``; r is shared by the forecasts in flight
a       share of the weight that is spread out evenly over K experts: fixed share (Herbster & Warmuth, 1998), so that a
        weight falls exponentially with recent loss and never so low that it could not come back
z[q]    standard normal quantile, phi its density: scores of all levels then take as many forecasts to converge
c       step of the scores: adaptive conformal inference (Gibbs & Candes, 2021) on the score instead of the level (as in
        conformal PID, Angelopoulos et al., 2023), which holds whatever the distribution
======  ==================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from dynamo_planner.forecasting.experts.base import Memory

_NORMAL = NormalDist()

MAX_PENDING = 16
"""Most forecasts that are pending at once: at longer horizons fewer of those made are kept."""

WARM_UP_FORECASTS = 20.0
"""The scores' rate begins at one over this, and falls as one over this plus the forecasts that have settled."""


class LearningRates(NamedTuple):
    """How fast a calibration learns, per forecast that settles.

    Attributes:
        weights: rate of the experts' weights, per standard error of loss.
        share: share of the weight that is spread out evenly.
        spread: weight of an outcome in mean squared errors.
        scores: step of the scores, in standard errors.
        judged: quantile level by which experts are compared.
        levels: quantile levels that have scores.
    """

    weights: float
    share: float
    spread: float
    scores: float
    judged: float
    levels: Memory


class Calibration(NamedTuple):
    """What outcomes have taught of forecasts at one horizon.

    Attributes:
        settled: forecasts that have settled.
        weights: weight of each expert; they sum to 1.
        spreads: mean squared error of each expert's roots.
        spread: mean squared error of the mixture's roots.
        scores: how many standard errors above the mean root each quantile level is.
        pending: forecasts without an outcome yet: ``(start of its interval, root, standard error, *experts' roots)``.
    """

    settled: float
    weights: Memory
    spreads: Memory
    spread: float
    scores: Memory
    pending: tuple[Memory, ...]


@lru_cache(maxsize=256)
def normal_quantile(level: float) -> float:
    """The standard normal quantile."""
    return _NORMAL.inv_cdf(level)


@lru_cache(maxsize=256)
def _step(level: float) -> float:
    """How far a score moves per unit of rate."""
    return 1 / _NORMAL.pdf(normal_quantile(level))


def uncalibrated(experts: int, levels: Sequence[float]) -> Calibration:
    """The calibration before the first forecast: equal weights, normal scores."""
    scores = tuple(map(normal_quantile, levels))
    return Calibration(0.0, (1 / experts,) * experts, (0.0,) * experts, 0.0, scores, ())


def is_due(track: Calibration, begins_s: float, horizon_s: float) -> bool:
    """Whether a forecast for ``begins_s`` may be added without more than :data:`MAX_PENDING` pending at once."""
    return not track.pending or begins_s - track.pending[-1][0] >= horizon_s / MAX_PENDING


def settle(
    track: Calibration,
    began_s: float,
    tolerance_s: float,
    horizon_s: float,
    root: float,
    idle: bool,
    learning: LearningRates,
) -> Calibration:
    """The calibration after the outcome ``root`` of the interval that began at ``began_s``.

    Scores learn from every outcome, by the forecast for the time nearest to it; weights and errors learn once from each
    forecast, by the outcome within ``tolerance_s`` of its time. A forecast that no outcome came for is dropped. While
    there has been no traffic (``idle``), scores learn nothing: zero is below every quantile, and a night of it
    would have forgotten by morning how far off a forecast of traffic is.
    """
    pending = track.pending
    passed = 0
    while passed + 1 < len(pending) and pending[passed + 1][0] - began_s <= began_s - pending[passed][0]:
        passed += 1
    if not pending:
        return track
    pending = pending[passed:]
    forecast = pending[0]
    off_s = abs(forecast[0] - began_s)
    settled, weights, spreads, spread, scores, _ = track
    if off_s <= tolerance_s:
        settled, weights, spreads, spread = _learned(track, len(pending), forecast, root, learning)
    if off_s <= max(tolerance_s, horizon_s / MAX_PENDING):
        scores = scores if idle else _scored(scores, settled, forecast, root, learning)
    elif forecast[0] <= began_s:
        pending = pending[1:]
    return Calibration(settled, weights, spreads, spread, scores, pending)


def _learned(
    track: Calibration, in_flight: int, forecast: Memory, root: float, learning: LearningRates
) -> tuple[float, Memory, Memory, float]:
    """Forecasts that have settled, weights, and mean squared errors of the experts and of the mixture."""
    settled, weights, spreads, spread, _, _ = track
    _, centre, error, *points = forecast
    settled += 1
    rate = max(learning.spread, 1 / settled)
    if len(points) > 1:
        weights = _weighed(weights, spreads, points, root, error, learning, in_flight)
        spreads = tuple([old + rate * ((root - point) ** 2 - old) for old, point in zip(spreads, points, strict=True)])
    spread += rate * ((root - centre) ** 2 - spread)
    return settled, weights, spreads, spread


def _scored(scores: Memory, settled: float, forecast: Memory, root: float, learning: LearningRates) -> Memory:
    """Scores after an outcome, which is compared with the quantiles that today's scores give the forecast.

    Compared with the scores of that time, a step in the rate would push them on until the first forecasts made after
    it have settled.
    """
    _, centre, error = forecast[:3]
    rate = max(learning.scores, 1 / (settled + WARM_UP_FORECASTS))
    miss = root - centre
    return tuple(
        [
            score + rate * _step(level) * (level if miss > score * error else level - 1)
            for score, level in zip(scores, learning.levels, strict=True)
        ]
    )


def _weighed(
    weights: Memory,
    spreads: Memory,
    points: Sequence[float],
    root: float,
    error: float,
    learning: LearningRates,
    in_flight: int,
) -> Memory:
    """Weights after the pinball losses of the experts, in standard errors of the mixture.

    Forecasts that are pending together mostly share one future, so each of them teaches only its share.
    """
    judged = learning.judged
    reach = normal_quantile(judged)
    misses = [root - point - reach * math.sqrt(spread) for point, spread in zip(points, spreads, strict=True)]
    losses = [judged * miss if miss > 0 else (judged - 1) * miss for miss in misses]
    least = min(losses)
    rate = learning.weights / (in_flight or 1) / (error or 1.0)
    kept = [weight * math.exp(rate * (least - loss)) for weight, loss in zip(weights, losses, strict=True)]
    total = sum(kept)
    floor = learning.share / len(kept)
    scale = (1 - learning.share) / total
    return tuple([floor + scale * weight for weight in kept])
