"""A positive surface through scattered measurements: a physical trend, and a smooth correction of it.

The trend is a sum of terms that each cost time, so no coefficient is negative. What the measurements say beyond it is
interpolated in the logarithm by a Gaussian process (kriging), which keeps to the measurements where they are, and to
the trend where there are none.

- Covariance: exponential, ``exp(-distance)``, over the logarithms of the coordinates. It assumes no smoothness, which
  suits the steps that kernels, tiles and schedulers leave in a step time.
- Coefficients: non-negative generalised least squares on relative errors (Rasmussen and Williams, *Gaussian Processes
  for Machine Learning*, 2006, section 2.7). Neighbours share their weight, so a dense row of points does not rule.
- Correlation length: of several given scales the one with the smallest squared error when each point is left
  out, in closed form (the same, equation 5.12). It is the only choice made for each data set.

::

    f(x) = max(sum_k c[k] t[k](x), least) exp(sum_i w[i] exp(-|u(x) - u[i]|))
    w    = (R + nugget I)**-1 log(y / trend)          R[i, j] = exp(-|u[i] - u[j]|)
    u(x) = log(x + offsets) / scale

======  ==================================================================================================
symbol  meaning
======  ==================================================================================================
y       measurements at ``u[i]``
t, c    terms of the trend and their coefficients, none negative
least   ``MIN_TREND`` times the smallest measurement
nugget  ``NUGGET``, the variance of the noise
======  ==================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import nnls
from scipy.spatial.distance import cdist

Floats = NDArray[np.float64]

NUGGET = 1e-5
"""Variance of the noise of a measurement, relative to that of the correction: next to none."""

MIN_TREND = 0.01
"""The trend never falls below this share of the smallest measurement."""


@dataclass(frozen=True)
class Fit:
    """A fitted surface; see :func:`fit`. ``coefficients`` are those of the terms of the trend, in their order."""

    terms: Callable[[Floats], Floats]
    offsets: Floats
    scale: Floats
    coefficients: Floats
    least: float
    anchors: Floats
    weights: Floats

    def trend(self, points: Floats) -> Floats:
        """The trend alone at points of shape (n, d): shape (n,)."""
        return np.maximum(self.terms(points) @ self.coefficients, self.least)

    def __call__(self, points: Floats) -> Floats:
        """The surface at points of shape (n, d): shape (n,), above 0."""
        correlation = np.exp(-cdist(_features(points, self.offsets, self.scale), self.anchors))
        return np.asarray(self.trend(points) * np.exp(correlation @ self.weights))


def fit(
    points: Floats,
    values: Floats,
    terms: Callable[[Floats], Floats],
    scales: Sequence[Sequence[float]],
    offsets: Sequence[float],
    nugget: float = NUGGET,
) -> Fit:
    """Fit positive ``values`` (n,) at ``points`` (n, d), none of them twice.

    ``terms`` maps points (n, d) to the terms of the trend (n, k), none negative. Distances are between
    ``log(points + offsets) / scale``, one scale of ``scales`` (each of length d) for all. With a larger ``nugget`` the
    fit smooths noise away instead of keeping to each measurement.
    """
    fits = [_fit(points, values, terms, np.asarray(scale), np.asarray(offsets), nugget) for scale in scales]
    return min(fits, key=lambda scored: scored[0])[1]


def _features(points: Floats, offsets: Floats, scale: Floats) -> Floats:
    return np.asarray(np.log(points + offsets) / scale)


def _fit(
    points: Floats, values: Floats, terms: Callable[[Floats], Floats], scale: Floats, offsets: Floats, nugget: float
) -> tuple[float, Fit]:
    anchors = _features(points, offsets, scale)
    covariance = np.exp(-cdist(anchors, anchors)) + nugget * np.eye(len(values))
    lower = cholesky(covariance, lower=True)

    relative = terms(points) / values[:, None]
    size = np.maximum(relative.max(axis=0), np.finfo(float).tiny)
    target = solve_triangular(lower, np.ones(len(values)), lower=True)
    coefficients = nnls(solve_triangular(lower, relative / size, lower=True), target)[0] / size

    least = MIN_TREND * float(values.min())
    correction = np.log(values / np.maximum(terms(points) @ coefficients, least))
    inverse = cho_solve((lower, True), np.eye(len(values)))
    weights = inverse @ correction
    left_out = float(np.mean((weights / np.diag(inverse)) ** 2))
    return left_out, Fit(terms, offsets, scale, coefficients, least, anchors, weights)
