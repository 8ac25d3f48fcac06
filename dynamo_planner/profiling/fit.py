"""How sure a measured curve is, and its points without their noise.

The errors are those at points that a curve was not told of (cross-validation). ITL and mixed steps are left out a burst
at a time, because the points of one burst lie in a row and would give each other away; TTFT one prompt at a time. Only
what lies between others is judged, since a profile says itself where it extrapolates.

The noise of the measurements, relative to what the curve does beyond its trend, is chosen by the same errors, and the
points that a profile is made of are smoothed by it. With a Gaussian process all this is in closed form (Rasmussen and
Williams, *Gaussian Processes for Machine Learning*, 2006, section 5.4.2; for a block of points G that is left out)::

    residual(G) = (Q[G, G])**-1 w[G]        Q = (R + nugget I)**-1,  w = Q log(y / trend)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from dynamo_planner.core.values import Frozen
from dynamo_planner.profiles import DecodePoints, MixedPoints
from dynamo_planner.profiles.decode_surface import fit_itl
from dynamo_planner.profiles.kriging import Fit, fit
from dynamo_planner.profiles.mixed_surface import fit_steps

Floats = NDArray[np.float64]

MIN_GROUPS = 3
"""With fewer bursts nothing is left to tell an error by."""

NUGGETS = (1e-4, 3e-3, 0.03, 0.15, 0.6)
"""Variances of the noise to choose from, relative to that of a curve around its trend."""

PROMPT_OFFSETS, PROMPT_SCALES = (64.0,), ((1.0,), (4.0,))
"""Of TTFT over ISL: tokens added before the logarithm, and correlation lengths to choose from, in e-folds."""

OUTLIER = 5.0, 0.15
"""A point that differs from its neighbours by this many times the usual, and by this share, is an outlier."""

RARE = 0.05
"""Outliers are left out where at most this share of the points are, or only one is: what comes oftener is the engine,
not a pause. Of 20 points one may be left out, and where two differ all count."""


class CurveError(Frozen):
    """The relative errors of a curve where it was not measured, as shares of 1.

    Args:
        median: half of the errors are smaller.
        p95: 95 % of the errors are smaller.
        rms: the root of their mean square.
    """

    median: float
    p95: float
    rms: float


UNKNOWN = CurveError(median=1.0, p95=1.0, rms=1.0)
"""The error of a curve with too few points to judge it."""


class Smoothed(NamedTuple):
    """Points without noise, a row each with the value last, and the error of the curve through them."""

    rows: Floats
    error: CurveError


def smoothed_prompts(isl: Sequence[float], ttft_ms: Sequence[float]) -> Smoothed:
    """Rows of (ISL, TTFT); a TTFT is at least 1 ms."""
    return _smoothed([[row] for row in zip(isl, np.maximum(ttft_ms, 1.0).tolist(), strict=True)], _fit_prompts)


def smoothed_itl(bursts: Sequence[Sequence[tuple[Any, ...]]]) -> Smoothed:
    """Rows of (batch, context, ITL)."""
    return _smoothed(bursts, _fit_itl)


def smoothed_steps(bursts: Sequence[Sequence[tuple[Any, ...]]]) -> Smoothed:
    """Rows of (prefill tokens, batch, context, step time)."""
    return _smoothed(bursts, _fit_steps)


def _fit_prompts(rows: Floats, nugget: float) -> Fit:
    def terms(places: Floats) -> Floats:
        return np.column_stack([np.ones(len(places)), places, places**2])

    return fit(rows[:, :1], rows[:, 1], terms, PROMPT_SCALES, PROMPT_OFFSETS, nugget)


def _fit_itl(rows: Floats, nugget: float) -> Fit:
    batch, context, itl = rows.T
    kv_tokens = max(float((batch * context).max()), 100.0)
    points = DecodePoints(max_kv_tokens=kv_tokens, kv_usage=batch * context / kv_tokens, context=context, itl_ms=itl)
    return fit_itl(points, nugget)


def _fit_steps(rows: Floats, nugget: float) -> Fit:
    tokens, batch, context, step = rows.T
    points = MixedPoints(prefill_tokens=tokens, num_decode=batch, context=context, step_ms=step)
    return fit_steps(points, nugget)


def _smoothed(bursts: Sequence[Sequence[tuple[Any, ...]]], fitted: Callable[[Floats, float], Fit]) -> Smoothed:
    rows, groups = _rows(bursts)
    if len(set(groups.tolist())) < MIN_GROUPS:
        return Smoothed(rows, UNKNOWN)
    kept = _without_outliers(rows, fitted)
    rows, groups = rows[kept], groups[kept]
    judged = _between(rows, groups)
    fits = [(fitted(rows, nugget), nugget) for nugget in NUGGETS]
    errors = [_error(np.abs(np.expm1(_left_out(fit, nugget, groups)[judged]))) for fit, nugget in fits]
    best = min(range(len(fits)), key=lambda k: errors[k].rms)
    return Smoothed(np.column_stack([rows[:, :-1], fits[best][0](rows[:, :-1])]), errors[best])


def _rows(bursts: Sequence[Sequence[tuple[Any, ...]]]) -> tuple[Floats, NDArray[np.intp]]:
    """All rows, no place twice, and the burst of each."""
    places = {row[:-1]: (row, number) for number, burst in enumerate(bursts) for row in burst}
    rows = np.array([row for row, _ in places.values()], float)
    return rows, np.array([number for _, number in places.values()])


def _without_outliers(rows: Floats, fitted: Callable[[Floats, float], Fit]) -> NDArray[np.bool_]:
    """All but the few points that are far from what their near neighbours say, as a share and by the standard deviation
    that is to be expected: at the end of a curve more is."""
    nugget = NUGGETS[-1]
    fit = fitted(rows, nugget)
    precision = np.diag(_inverse(fit, nugget))
    apart = np.abs(fit.weights) / precision
    unusual = np.abs(fit.weights) / np.sqrt(precision)
    times, share = OUTLIER
    usual = np.asarray((unusual <= times * float(np.median(unusual))) | (apart <= share))
    return usual if np.sum(~usual) <= max(RARE * len(rows), 1) else np.ones(len(rows), bool)


def _between(rows: Floats, groups: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which rows are of bursts whose context lies between those of others; all, where none are."""
    contexts = {group: float(np.mean(rows[groups == group, -2])) for group in set(groups.tolist())}
    ends = min(contexts.values()), max(contexts.values())
    judged = np.array([ends[0] < contexts[group] < ends[1] for group in groups.tolist()])
    return judged if judged.any() else np.ones(len(rows), bool)


def _inverse(fit: Fit, nugget: float) -> Floats:
    return np.linalg.inv(np.exp(-cdist(fit.anchors, fit.anchors)) + nugget * np.eye(len(fit.anchors)))


def _left_out(fit: Fit, nugget: float, groups: NDArray[np.intp]) -> Floats:
    """The residual of each point, in the logarithm, if its whole group were left out."""
    inverse = _inverse(fit, nugget)
    residuals = np.empty(len(groups))
    for group in set(groups.tolist()):
        here = np.flatnonzero(groups == group)
        residuals[here] = np.linalg.solve(inverse[np.ix_(here, here)], fit.weights[here])
    return residuals


def _error(errors: Floats) -> CurveError:
    if not len(errors):
        return UNKNOWN
    return CurveError(
        median=float(np.median(errors)),
        p95=float(np.quantile(errors, 0.95)),
        rms=float(np.sqrt(np.mean(errors**2))),
    )
