"""The forecaster: experts, weighed by how they do, with quantiles that experience has calibrated.

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
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from dynamo_planner.core.values import Frozen
from dynamo_planner.forecasting.calibration import Learning, Track, has_room, new_track, settle
from dynamo_planner.forecasting.experts import DEFAULT_EXPERTS, AnyExpert
from dynamo_planner.forecasting.experts.expert import MOST_PER_S, Memory, Seconds, checked
from dynamo_planner.forecasting.forecast import Forecast, over_window

_POISSON = 0.25
"""Variance of the root of a Poisson count: the noise assumed before any was seen."""

_LONGEST_S = 1e9
"""Pauses longer than this are taken for this."""

_OVERLAP = 1e3
"""Windows that overlap more than this many times over are taken for this."""

_FURTHEST = 4.0
"""The variance of the level grows with the horizon, up to this many times the longest calibrated one."""

_IDLE = 20
"""After more zeros than this in a row there is no traffic."""

_LEAST_ERROR = 1e-3
"""Standard errors are at least this share of the root."""

_TYPICAL = 0.05
"""How fast the usual span, and the usual time between samples, follow what is seen."""


class ForecastState(Frozen):
    """What a :class:`Forecaster` remembers of one series: a value, opaque and small, that survives JSON."""

    at_s: float
    root: float = Field(ge=0)
    zeros: float = Field(ge=0)
    samples: float = Field(ge=0)
    span_s: float = Field(gt=0)
    every_s: float = Field(gt=0)
    noise: float = Field(ge=0)
    kinds: tuple[str, ...]
    memories: tuple[Memory, ...]
    tracks: tuple[Track, ...]

    @model_validator(mode="after")
    def _rows_match(self) -> Self:
        experts, levels = len(self.kinds), len(self.tracks[0].scores) if self.tracks else 0
        rows = [self.memories, *[rows for track in self.tracks for rows in (track.weights, track.spreads)]]
        pending = [forecast for track in self.tracks for forecast in track.pending]
        if (
            any(len(row) != experts for row in rows)
            or any(len(track.scores) != levels for track in self.tracks)
            or any(len(forecast) != 3 + experts for forecast in pending)
        ):
            raise ValueError("the rows of the state are not of one number of experts and levels")
        return self


class Forecaster(Frozen):
    """Forecasts a rate, with quantiles, from what was seen of it.

    Pure: a state goes in with each sample, and a state comes out; ``None`` starts. Samples may come at any times and be
    missing; zeros at the very start count as not begun yet. A series is anything of at least 0 that is a mean over
    time: requests, tokens or prefill work per second.

    Forecasts are calibrated for ``horizons_s`` and ``levels``, and interpolated elsewhere. ``judged_level`` is the
    quantile that experts are compared by. The rates say how fast it learns, per forecast that comes due: how the
    weights of experts follow their losses, the share of weight that is spread out evenly, and how standard errors and
    scores (see :mod:`~dynamo_planner.forecasting.calibration`) follow outcomes.
    """

    experts: tuple[AnyExpert, ...] = Field(default=DEFAULT_EXPERTS, min_length=1)
    horizons_s: tuple[Seconds, ...] = Field(default=(30.0, 120.0, 300.0), min_length=1)
    levels: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(default=(0.5, 0.9, 0.99), min_length=1)
    judged_level: float = Field(default=0.9, gt=0, lt=1)
    weight_rate: float = Field(default=3.0, ge=0)
    share: float = Field(default=0.0003, gt=0, lt=1)
    spread_rate: float = Field(default=0.02, gt=0, le=1)
    score_rate: float = Field(default=0.0015, ge=0, lt=1)

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

        Raises ``ValueError`` for what is no sample (see :func:`~dynamo_planner.forecasting.experts.expert.checked`).
        """
        at_s, rate, span_s = checked(at_s, rate_per_s, span_s)
        if state is not None and not self.accepts(state):
            state = None
        if rate is None or (state is not None and at_s <= state.at_s):
            return state
        root = math.sqrt(min(rate, MOST_PER_S))
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
        ahead_s = _ahead(state, at_s, horizon_s)
        if window_s is None:
            return self._expected(state, ahead_s, state.span_s)
        forecast = self._expected(state, ahead_s, _window(window_s))
        return over_window(forecast, state.noise, state.span_s, window_s)

    def accepts(self, state: ForecastState) -> bool:
        """Whether a state is of these experts, horizons and levels."""
        tracks = state.tracks
        shape = (*map(len, state.memories), len(tracks), len(tracks[0].scores) if tracks else 0)
        return state.kinds == self._kinds and shape == self._shape

    @cached_property
    def _learning(self) -> Learning:
        return Learning(self.weight_rate, self.share, self.spread_rate, self.score_rate, self.judged_level, self.levels)

    @cached_property
    def _kinds(self) -> tuple[str, ...]:
        return tuple(str(getattr(expert, "kind", type(expert).__name__)) for expert in self.experts)

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return (*[len(expert.start()) for expert in self.experts], len(self.horizons_s), len(self.levels))

    def _begun(self, at_s: float, root: float, span_s: float) -> ForecastState:
        """The state after the first sample; a zero counts for nothing yet."""
        memories = tuple([expert.update(expert.start(), at_s, span_s, span_s, root) for expert in self.experts])
        tracks = (new_track(len(self.experts), self.levels),) * len(self.horizons_s)
        return self._state(at_s, root, 0.0, float(root > 0), span_s, span_s, _POISSON, memories, tracks)

    def _advanced(self, state: ForecastState, at_s: float, root: float, span_s: float) -> ForecastState:
        """The state after one more sample."""
        elapsed = min(at_s - state.at_s, _LONGEST_S)
        every = state.every_s + _TYPICAL * (min(elapsed, 3 * state.every_s) - state.every_s)
        span = state.span_s + _TYPICAL * (span_s - state.span_s)
        samples, noise = state.samples + 1, state.noise
        zeros = 0.0 if root else state.zeros + 1
        if elapsed <= 2 * every and zeros < 2:
            between = (root - state.root) ** 2 / 2 * span_s * min(max(span_s / elapsed, 1.0), _OVERLAP)
            noise += max(self.spread_rate, 1 / samples) * (between - noise)
        memories = tuple(
            [
                expert.update(memory, at_s, elapsed, span_s, root)
                for expert, memory in zip(self.experts, state.memories, strict=True)
            ]
        )
        tracks = [
            settle(track, at_s - span_s, every / 2, horizon_s, root, zeros > _IDLE, self._learning)
            for track, horizon_s in zip(state.tracks, self.horizons_s, strict=True)
        ]
        tracks = self._foretold(tracks, memories, at_s, span, noise)
        return self._state(at_s, root, zeros, samples, span, every, noise, memories, tuple(tracks))

    def _state(self, *values: Any) -> ForecastState:
        """A state of values that are valid by construction (which saves most of the time of an update)."""
        names = ("at_s", "root", "zeros", "samples", "span_s", "every_s", "noise", "memories", "tracks")
        return ForecastState.unchecked(kinds=self._kinds, **dict(zip(names, values, strict=True)))

    def _foretold(
        self, tracks: Sequence[Track], memories: Sequence[Memory], at_s: float, span_s: float, noise: float
    ) -> list[Track]:
        """The tracks with a forecast added to each that has room for one."""
        due = [
            number
            for number, (track, horizon_s) in enumerate(zip(tracks, self.horizons_s, strict=True))
            if has_room(track, at_s + horizon_s, horizon_s)
        ]
        ahead_s = [self.horizons_s[number] + span_s / 2 for number in due]
        opinions = self._opinions(memories, at_s, ahead_s)
        variances = _variances(tracks)
        foretold = list(tracks)
        for number, points in zip(due, opinions, strict=True):
            track = tracks[number]
            root = sum(map(mul, track.weights, points))
            error = _error(variances[number], root, noise / span_s)
            pending = (at_s + self.horizons_s[number], root, error, *points)
            foretold[number] = track._replace(pending=(*track.pending, pending))
        return foretold

    def _opinions(self, memories: Sequence[Memory], at_s: float, ahead_s: Sequence[float]) -> list[tuple[float, ...]]:
        """For each time ahead what each expert expects."""
        by_expert = [expert.ahead(memory, at_s, ahead_s) for expert, memory in zip(self.experts, memories, strict=True)]
        return list(zip(*by_expert, strict=True))

    def _expected(self, state: ForecastState, ahead_s: float, window_s: float) -> Forecast:
        """The forecast for a span in the middle of the window that begins ``ahead_s`` after the last sample."""
        below, above, part = self._between(ahead_s)
        near, far = state.tracks[below], state.tracks[above]
        weights, scores = near.weights, near.scores
        if part:
            weights = _mixed(weights, far.weights, part)
            scores = _mixed(scores, far.scores, part)
        variances = _variances(state.tracks)
        variance = variances[below] + part * (variances[above] - variances[below])
        beyond_s = min(ahead_s, _FURTHEST * self.horizons_s[-1]) - self.horizons_s[-1]
        if beyond_s > 0 and below:
            growth = (variances[below] - variances[below - 1]) / (self.horizons_s[below] - self.horizons_s[below - 1])
            variance += max(growth, 0.0) * beyond_s
        (points,) = self._opinions(state.memories, state.at_s, (ahead_s + window_s / 2,))
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


def _mixed(near: Memory, far: Memory, part: float) -> Memory:
    return tuple([one + part * (other - one) for one, other in zip(near, far, strict=True)])


def _variances(tracks: Sequence[Track]) -> list[float]:
    """The mean squared error at each horizon; until one has settled, that of the shorter one."""
    variance, variances = 0.0, []
    for track in tracks:
        variance = track.spread if track.settled else variance
        variances.append(variance)
    return variances


def _error(variance: float, root: float, noise: float) -> float:
    """The standard error: never less than count noise, so that traffic that returns after a pause is no surprise."""
    return math.sqrt(max(variance, min(noise, root * root), (_LEAST_ERROR * root) ** 2))


def _ahead(state: ForecastState, at_s: float, horizon_s: float) -> float:
    if not 0 <= horizon_s <= _LONGEST_S:
        raise ValueError(f"horizon_s must be 0 to {_LONGEST_S:g} seconds, got {horizon_s!r}")
    if not math.isfinite(at_s):
        raise ValueError(f"at_s must be a finite time, got {at_s!r}")
    return min(max(at_s - state.at_s, 0.0), _LONGEST_S) + horizon_s


def _window(window_s: float) -> float:
    if not 0 < window_s <= _LONGEST_S:
        raise ValueError(f"window_s must be positive and at most {_LONGEST_S:g} seconds, got {window_s!r}")
    return window_s
