"""What was foretold at one horizon, and what came of it: how experts are weighed, and how far off forecasts are.

A forecast made now for one horizon from now can be judged only once that horizon has passed. Until then it waits in
``pending``; then it settles, and three things are learned:

- how much each expert is trusted: fixed share (Herbster & Warmuth, 1998) on the pinball loss of its own quantile, so
  that a weight falls exponentially with recent loss and never so low that it could not come back;
- how large errors are: their exponentially weighted mean square, of each expert and of their mixture;
- how many of those standard errors a quantile needs: the score of each level goes up when the outcome was above it and
  down when it was not, in proportions that balance at that level. That is adaptive conformal inference (Gibbs &
  Candes, 2021) on the score instead of the level (as in conformal PID, Angelopoulos et al., 2023), and holds whatever
  the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from dynamo_planner.forecasting.experts.expert import Memory

_NORMAL = NormalDist()

_IN_FLIGHT = 16
"""Forecasts that wait for their outcome at once, at most: the longer the horizon, the fewer are kept."""

_WARM_UP = 20.0
"""Forecasts that must have settled before scores are learned at their slow, final rate."""


class Learning(NamedTuple):
    """How fast it is learned, per forecast that settles, by which quantile experts are judged, and for which levels."""

    weights: float
    share: float
    spread: float
    scores: float
    judged: float
    levels: Memory


class Track(NamedTuple):
    """What is known of forecasts for one horizon.

    ``weights`` and ``spreads`` (mean squared errors of roots) are by expert, ``scores`` (in standard errors) by level;
    ``spread`` is the mixture's. A pending forecast is ``(start of its interval, root, standard error, *experts'
    roots)``.
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
    """How far a score moves per unit of rate: scores of all levels then take as many forecasts to converge."""
    return 1 / _NORMAL.pdf(normal_quantile(level))


def new_track(experts: int, levels: Sequence[float]) -> Track:
    """Nothing foretold yet: equal weights, normal scores."""
    scores = tuple(map(normal_quantile, levels))
    return Track(0.0, (1 / experts,) * experts, (0.0,) * experts, 0.0, scores, ())


def has_room(track: Track, begins_s: float, horizon_s: float) -> bool:
    """Whether it is time for a forecast for ``begins_s``, so that no more than so many are in flight at once."""
    return not track.pending or begins_s - track.pending[-1][0] >= horizon_s / _IN_FLIGHT


def settle(
    track: Track, began_s: float, tolerance_s: float, horizon_s: float, root: float, idle: bool, learning: Learning
) -> Track:
    """Learn from the outcome ``root`` of the interval that began at ``began_s``.

    Scores learn from every outcome, by the forecast for the time nearest to it; weights and errors learn once from each
    forecast, by the outcome within ``tolerance_s`` of its time. A forecast that no outcome came for is dropped. While
    there has been no traffic (``idle``), scores learn nothing: zero is below every quantile, and a night of it
    would have forgotten by morning how far off a forecast of traffic is.
    """
    pending = track.pending
    passed = 0
    while passed + 1 < len(pending) and pending[passed + 1][0] - began_s <= began_s - pending[passed][0]:
        passed += 1
    if passed:
        track = track._replace(pending=pending[passed:])
    if not pending:
        return track
    forecast = pending[passed]
    off_s = abs(forecast[0] - began_s)
    if off_s <= tolerance_s:
        track = _learn(track, forecast, root, learning)
    if off_s <= max(tolerance_s, horizon_s / _IN_FLIGHT):
        return track if idle else track._replace(scores=_scored(track, forecast, root, learning))
    return track if forecast[0] > began_s else track._replace(pending=track.pending[1:])


def _learn(track: Track, forecast: Memory, root: float, learning: Learning) -> Track:
    settled, weights, spreads, spread, scores, pending = track
    _, centre, error, *points = forecast
    settled += 1
    rate = max(learning.spread, 1 / settled)
    if len(points) > 1:
        weights = _weighed(weights, spreads, points, root, error, learning, len(pending))
        spreads = tuple([old + rate * ((root - point) ** 2 - old) for old, point in zip(spreads, points, strict=True)])
    spread += rate * ((root - centre) ** 2 - spread)
    return Track(settled, weights, spreads, spread, scores, pending)


def _scored(track: Track, forecast: Memory, root: float, learning: Learning) -> Memory:
    """Scores after an outcome, compared with what they would say today of the forecast.

    With what they said then, a step would push them on until the first forecasts made after it have settled.
    """
    _, centre, error = forecast[:3]
    rate = max(learning.scores, 1 / (track.settled + _WARM_UP))
    miss = root - centre
    return tuple(
        [
            score + rate * _step(level) * (level if miss > score * error else level - 1)
            for score, level in zip(track.scores, learning.levels, strict=True)
        ]
    )


def _weighed(
    weights: Memory,
    spreads: Memory,
    points: Sequence[float],
    root: float,
    error: float,
    learning: Learning,
    in_flight: int,
) -> Memory:
    """Weights after the pinball losses of the experts, in standard errors of the mixture.

    Of forecasts in flight together most saw the same future, so each of them teaches only its share.
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
