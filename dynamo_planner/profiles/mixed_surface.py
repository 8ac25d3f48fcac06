"""Step time of chunked prefill: steps that compute prompts and decode at once."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.profiles.convex_hull import ConvexHull
from dynamo_planner.profiles.kriging import NUGGET, Fit, fit
from dynamo_planner.profiles.points import MixedPoints
from dynamo_planner.profiles.surface import Surface
from dynamo_planner.profiles.table import nodes
from dynamo_planner.profiles.vectorize import Numbers, evaluate

Floats = NDArray[np.float64]

OFFSETS = (64.0, 1.0, 0.0)
"""Added to prefill tokens, requests and context (tokens) before their logarithms, since two of them may be 0."""

SCALES = ((2.0, 4.0, 4.0),)
"""Correlation lengths of step times over the three, in e-folds; see :mod:`dynamo_planner.profiles.kriging`."""


class MixedSteps:
    """Step time over prefill tokens, requests that decode, and the context of each.

    ::

        trend = a + b p + c p**2 + d p x + e n + f n x      ms

    ======  ==============================================================================================
    symbol  meaning
    ======  ==============================================================================================
    p       prompt tokens of the step
    n       requests that decode
    x       context of each, in tokens
    a..f    ms for the weights, the projections and attention of the prompts, each decoding request and its KV cache
    ======  ==============================================================================================

    The rest is as in :class:`~dynamo_planner.profiles.decode_surface.DecodeSurface`.

    Queries are numbers or arrays; numbers give a number. A negative or NaN query raises ``ValueError``.

    >>> points = [(p, n, c) for p in (0, 512, 2048) for n in (0, 8, 64) for c in (1000, 8000) if p or n]
    >>> steps = MixedSteps(MixedPoints(
    ...     prefill_tokens=[p for p, _, _ in points],
    ...     num_decode=[n for _, n, _ in points],
    ...     context=[c for _, _, c in points],
    ...     step_ms=[6 + 0.02 * p + 0.05 * n + 2e-5 * n * c for p, n, c in points],
    ... ))
    >>> round(steps.step_ms(prefill_tokens=1024, num_decode=32, context=4000), 2)
    30.64
    """

    def __init__(self, points: MixedPoints) -> None:
        self.points = points
        self._where = np.column_stack([points.prefill_tokens, points.num_decode, points.context])
        self._most = max(points.prefill_tokens)
        self._least = min(points.prefill_tokens)
        self._region = ConvexHull([(x, y) for _, x, y in np.log(self._where + OFFSETS).tolist()])

    @cached_property
    def _surface(self) -> Surface:
        axes = [nodes(column, offset) for column, offset in zip(self._where.T, OFFSETS, strict=True)]
        return Surface(fit_steps(self.points), axes)

    def step_ms(self, prefill_tokens: Numbers, num_decode: Numbers, context: Numbers) -> Any:
        """The duration in ms of a step of ``prefill_tokens`` of prompts and ``num_decode`` requests of ``context``."""
        return evaluate(self._steps, self._step, prefill_tokens=prefill_tokens, num_decode=num_decode, context=context)

    def extrapolated(self, prefill_tokens: Numbers, num_decode: Numbers, context: Numbers) -> Any:
        """Whether this is outside the range of ``prefill_tokens``, or the convex hull of the rest, in logarithms."""
        return evaluate(self._outside, prefill_tokens=prefill_tokens, num_decode=num_decode, context=context)

    def _step(self, prefill_tokens: float, num_decode: float, context: float) -> float:
        return self._surface.at(prefill_tokens, num_decode, max(context, 1.0))

    def _steps(self, prefill_tokens: Floats, num_decode: Floats, context: Floats) -> Floats:
        return self._surface.many(np.column_stack([prefill_tokens, num_decode, np.maximum(context, 1.0)]))

    def _outside(self, prefill_tokens: Floats, num_decode: Floats, context: Floats) -> NDArray[np.bool_]:
        requests, tokens = np.log(num_decode + OFFSETS[1]), np.log(np.maximum(context, 1.0))
        inside = self._region.has(requests, tokens)
        return ~(inside & (prefill_tokens >= self._least) & (prefill_tokens <= self._most))


def fit_steps(points: MixedPoints, nugget: float = NUGGET) -> Fit:
    """The step time of the points as a function of (prefill tokens, requests, context); see :class:`MixedSteps`."""
    where = np.column_stack([points.prefill_tokens, points.num_decode, points.context])
    return fit(where, np.asarray(points.step_ms), _terms, SCALES, OFFSETS, nugget)


def _terms(points: Floats) -> Floats:
    prefill, requests, context = points.T
    columns = (prefill, prefill**2, prefill * context, requests, requests * context)
    return np.column_stack([np.ones_like(prefill), *columns])
