"""The forecaster: an ensemble of experts, weighed by their losses, with calibrated quantiles.

>>> forecaster = Forecaster()
>>> state = None
>>> for second in range(5, 3605, 5):
...     state = forecaster.update(state, at_s=second, rate_per_s=10 + second // 5 * 7 % 5, span_s=5)
>>> soon = forecaster.forecast(state, at_s=3600, horizon_s=30)
>>> round(soon.mean, 1), round(soon.quantile(0.9), 1)
(12.0, 14.0)
>>> ForecastState.model_validate_json(state.model_dump_json()) == state
True
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from operator import mul
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from dynamo_planner.forecasting.calibration import Calibration, LearningRates, is_due, settle, uncalibrated
from dynamo_planner.forecasting.experts import DEFAULT_EXPERTS
from dynamo_planner.forecasting.experts.base import Memory, Seconds
from dynamo_planner.forecasting.experts.registry import AnyExpert
from dynamo_planner.forecasting.forecast import Forecast, over_window
from dynamo_planner.forecasting.rate_forecaster import RateForecaster
from dynamo_planner.forecasting.state import ForecastState
from dynamo_planner.forecasting.validation import LONGEST_S, checked_sample, checked_window, seconds_ahead

MAX_RATE_PER_S = 1e15
"""Higher rates count as this, so that no arithmetic overflows."""

POISSON_NOISE = 0.25
"""Variance of the root of a Poisson count: the noise assumed before any was observed."""

MAX_OVERLAP = 1e3
"""Windows that overlap more than this many times over count as this."""

MAX_HORIZON_RATIO = 4.0
"""The variance of the level grows with the horizon, up to this many times the longest calibrated one."""

IDLE_SAMPLES = 20
"""After more zeros than this in a row there is no traffic."""

MIN_RELATIVE_ERROR = 1e-3
"""Standard errors are at least this share of the root."""

SPAN_GAIN = 0.05
"""Weight of a sample in the usual span, and in the usual time between samples."""

MAX_PAUSE_RATIO = 3.0
"""A pause counts as at most this many times the usual time between samples in that average."""

GAP_RATIO = 2.0
"""After more than this many times the usual time between samples, a difference says nothing of count noise."""


class Forecaster(RateForecaster, kind="ensemble"):
    """Online forecasts of a rate, with calibrated quantiles.

    Pure: a state goes in with each sample, and a state comes out; ``None`` starts. Samples may come at any times and be
    missing; zeros at the very start count as not begun yet. A series is anything of at least 0 that is a mean over
    time: requests, tokens or prefill work per second.

    Forecasts are calibrated at ``horizons_s`` and ``levels``, and interpolated elsewhere. The rates are per forecast
    that comes due (:mod:`~dynamo_planner.forecasting.calibration`).

    Args:
        experts: the point forecasts to weigh. Default: two averages, a step detector, a damped trend, the time of day.
        horizons_s: ascending horizons at which forecasts are calibrated. Default 30, 120 and 300 s.
        levels: ascending quantile levels that are calibrated. Default 0.5, 0.9 and 0.99.
        judged_level: the quantile level by which experts are compared. Default 0.9.
        weight_rate: how fast weights follow losses, per standard error of loss. Default 3.
        share: share of the weight that is spread out evenly. Default 0.0003.
        spread_rate: weight of an outcome in standard errors and count noise. Default 0.02.
        score_rate: step of a quantile's score, in standard errors. Default 0.0015.
    """

    experts: tuple[AnyExpert, ...] = Field(default=DEFAULT_EXPERTS, min_length=1)
    horizons_s: tuple[Seconds, ...] = Field(default=(30.0, 120.0, 300.0), min_length=1)
    levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.5, 0.9, 0.99), min_length=1)
    judged_level: float = Field(default=0.9, gt=0, lt=1)
    weight_rate: float = Field(default=3.0, ge=0)
    share: float = Field(default=0.0003, gt=0, lt=1)
    spread_rate: float = Field(default=0.02, gt=0, le=1)
    score_rate: float = Field(default=0.0015, ge=0, lt=1)

    state_type: ClassVar[Any] = ForecastState

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        for name in ("horizons_s", "levels"):
            values = getattr(self, name)
            if any(low >= high for low, high in pairwise(values)):
                raise ValueError(f"{name} must ascend, got {values}")
        return self

    def update(
        self, state: ForecastState | None, at_s: float, rate_per_s: float | None, span_s: float
    ) -> ForecastState | None:
        """The state after a sample: the mean rate over the ``span_s`` seconds to ``at_s``.

        A rate of ``None``, NaN or infinity is missing, and a sample that is not newer than the last one is ignored:
        both leave the state as it is. A state that this forecaster does not accept starts anew.

        Raises ``ValueError`` for a negative rate, a time that is not finite, or a span that is not 1 ms to 1e9 s.
        """
        at_s, rate, span_s = checked_sample(at_s, rate_per_s, span_s)
        if state is not None and not self.accepts(state):
            state = None
        if rate is None or (state is not None and at_s <= state.at_s):
            return state
        root = math.sqrt(min(rate, MAX_RATE_PER_S))
        if state is None or not state.samples:
            return self._begun(at_s, root, span_s)
        return self._advanced(state, at_s, root, span_s)

    def forecast(
        self, state: ForecastState | None, at_s: float, horizon_s: float, window_s: float | None = None
    ) -> Forecast | None:
        """The mean rate over the ``window_s`` seconds that begin ``horizon_s`` after ``at_s``; ``None`` if nothing is
        known.

        By default the window is as long as the spans that were fed in, and forecasts are calibrated for that. For
        another one, the part of the variance that is count noise is taken to be independent from span to span.
        """
        if state is None or not self.accepts(state):
            return None
        ahead_s = seconds_ahead(state.at_s, at_s, horizon_s)
        if window_s is None:
            return self._expected(state, ahead_s, state.span_s)
        forecast = self._expected(state, ahead_s, checked_window(window_s))
        return over_window(forecast, state.noise, state.span_s, window_s)

    def accepts(self, state: ForecastState) -> bool:
        """Whether a state is of these experts, horizons and levels."""
        if state.kinds is self._kinds:  # its own, which never left the process
            return True
        tracks = state.tracks
        shape = (*map(len, state.memories), len(tracks), len(tracks[0].scores) if tracks else 0)
        return state.kinds == self._kinds and shape == self._shape

    @cached_property
    def _rates(self) -> LearningRates:
        return LearningRates(
            self.weight_rate, self.share, self.spread_rate, self.score_rate, self.judged_level, self.levels
        )

    @cached_property
    def _kinds(self) -> tuple[str, ...]:
        return tuple([expert.kind for expert in self.experts])

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return (*[len(expert.start()) for expert in self.experts], len(self.horizons_s), len(self.levels))

    def _begun(self, at_s: float, root: float, span_s: float) -> ForecastState:
        """The state after the first sample; a zero counts for nothing yet."""
        memories = tuple([expert.update(expert.start(), at_s, span_s, span_s, root) for expert in self.experts])
        tracks = (uncalibrated(len(self.experts), self.levels),) * len(self.horizons_s)
        return self._state(at_s, root, 0.0, float(root > 0), span_s, span_s, POISSON_NOISE, memories, tracks)

    def _advanced(self, state: ForecastState, at_s: float, root: float, span_s: float) -> ForecastState:
        """The state after one more sample."""
        elapsed = min(at_s - state.at_s, LONGEST_S)
        every = state.every_s + SPAN_GAIN * (min(elapsed, MAX_PAUSE_RATIO * state.every_s) - state.every_s)
        span = state.span_s + SPAN_GAIN * (span_s - state.span_s)
        samples, noise = state.samples + 1, state.noise
        zeros = 0.0 if root else state.zeros + 1
        if elapsed <= GAP_RATIO * every and zeros < 2:
            between = (root - state.root) ** 2 / 2 * span_s * min(max(span_s / elapsed, 1.0), MAX_OVERLAP)
            noise += max(self.spread_rate, 1 / samples) * (between - noise)
        memories = tuple(
            [
                expert.update(memory, at_s, elapsed, span_s, root)
                for expert, memory in zip(self.experts, state.memories, strict=True)
            ]
        )
        tracks = [
            settle(track, at_s - span_s, every / 2, horizon_s, root, zeros > IDLE_SAMPLES, self._rates)
            for track, horizon_s in zip(state.tracks, self.horizons_s, strict=True)
        ]
        tracks = self._with_forecasts(tracks, memories, at_s, span, noise)
        return self._state(at_s, root, zeros, samples, span, every, noise, memories, tuple(tracks))

    def _state(self, *values: Any) -> ForecastState:
        """A state of values that are valid by construction (which saves most of the time of an update)."""
        names = ("at_s", "root", "zeros", "samples", "span_s", "every_s", "noise", "memories", "tracks")
        return ForecastState.unchecked(kinds=self._kinds, **dict(zip(names, values, strict=True)))

    def _with_forecasts(
        self, tracks: Sequence[Calibration], memories: Sequence[Memory], at_s: float, span_s: float, noise: float
    ) -> list[Calibration]:
        """The calibrations, each with a pending forecast added where one is due."""
        due = [
            number
            for number, (track, horizon_s) in enumerate(zip(tracks, self.horizons_s, strict=True))
            if is_due(track, at_s + horizon_s, horizon_s)
        ]
        ahead_s = [self.horizons_s[number] + span_s / 2 for number in due]
        predictions = self._predictions(memories, at_s, ahead_s)
        variances = _variances(tracks)
        updated = list(tracks)
        for number, points in zip(due, predictions, strict=True):
            track = tracks[number]
            root = sum(map(mul, track.weights, points))
            error = _error(variances[number], root, noise / span_s)
            pending = (at_s + self.horizons_s[number], root, error, *points)
            updated[number] = track._replace(pending=(*track.pending, pending))
        return updated

    def _predictions(
        self, memories: Sequence[Memory], at_s: float, ahead_s: Sequence[float]
    ) -> list[tuple[float, ...]]:
        """The experts' point forecasts (columns) at each time ahead (rows)."""
        by_expert = [expert.ahead(memory, at_s, ahead_s) for expert, memory in zip(self.experts, memories, strict=True)]
        return list(zip(*by_expert, strict=True))

    def _expected(self, state: ForecastState, ahead_s: float, window_s: float) -> Forecast:
        """The forecast for a span in the middle of the window that begins ``ahead_s`` after the last sample."""
        below, above, part = self._between(ahead_s)
        near, far = state.tracks[below], state.tracks[above]
        weights, scores = near.weights, near.scores
        if part:
            weights = _interpolated(weights, far.weights, part)
            scores = _interpolated(scores, far.scores, part)
        variances = _variances(state.tracks)
        variance = variances[below] + part * (variances[above] - variances[below])
        beyond_s = min(ahead_s, MAX_HORIZON_RATIO * self.horizons_s[-1]) - self.horizons_s[-1]
        if beyond_s > 0 and below:
            growth = (variances[below] - variances[below - 1]) / (self.horizons_s[below] - self.horizons_s[below - 1])
            variance += max(growth, 0.0) * beyond_s
        (points,) = self._predictions(state.memories, state.at_s, (ahead_s + window_s / 2,))
        root = sum(map(mul, weights, points))
        return Forecast(root, _error(variance, root, state.noise / state.span_s), self.levels, scores)

    def _between(self, ahead_s: float) -> tuple[int, int, float]:
        """The calibrated horizons around one, and how far it is from the first to the second, by logarithms."""
        horizons_s = self.horizons_s
        above = bisect_left(horizons_s, ahead_s)
        if above == 0:
            return 0, 0, 0.0
        if above == len(horizons_s):
            return above - 1, above - 1, 0.0
        low, high = horizons_s[above - 1], horizons_s[above]
        return above - 1, above, math.log(ahead_s / low) / math.log(high / low)


def _interpolated(near: Memory, far: Memory, part: float) -> Memory:
    return tuple([one + part * (other - one) for one, other in zip(near, far, strict=True)])


def _variances(tracks: Sequence[Calibration]) -> list[float]:
    """The mean squared error at each horizon; until one has settled, that of the shorter one."""
    variance, variances = 0.0, []
    for track in tracks:
        variance = track.spread if track.settled else variance
        variances.append(variance)
    return variances


def _error(variance: float, root: float, noise: float) -> float:
    """The standard error of a root: never less than count noise, so that traffic that returns after a pause is no
    surprise, nor than a share of the root.

    >>> _error(0.0, root=3.0, noise=0.25), _error(0.0, root=0.2, noise=0.25), _error(0.0, root=3.0, noise=0.0)
    (0.5, 0.2, 0.003)
    """
    return math.sqrt(max(variance, min(noise, root * root), (MIN_RELATIVE_ERROR * root) ** 2))
