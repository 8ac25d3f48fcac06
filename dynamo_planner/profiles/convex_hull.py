"""The convex hull of measurements: whether a query lies among them or is extrapolated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

TOLERANCE = 1e-9
"""Relative distance by which a point may lie outside an edge."""


class ConvexHull:
    """The convex hull of points in the plane: a segment where they are on a line, a point where all are the same.

    >>> x, y = np.array([1.0, 3.0]), np.array([1.0, 3.0])
    >>> ConvexHull([(0, 0), (4, 0), (0, 4)]).has(x, y).tolist(), ConvexHull([(0, 0), (2, 2)]).has(x, y).tolist()
    ([True, False], [True, False])
    """

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        corners = _hull(sorted(set(points)))
        xs, ys = zip(*corners, strict=True)
        # The box adds nothing to a polygon, and makes a segment out of a line.
        sides = [(1.0, 0.0, max(xs)), (-1.0, 0.0, -min(xs)), (0.0, 1.0, max(ys)), (0.0, -1.0, -min(ys))]
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            across, along = y1 - y0, x0 - x1
            sides.append((across, along, across * x0 + along * y0))
        self._across, self._along, limits = np.array(sides).T
        self._limits = limits + TOLERANCE * (1 + np.abs(limits))

    def has(self, x: Floats, y: Floats) -> NDArray[np.bool_]:
        """Whether each point is inside or on the edge."""
        beyond = np.multiply.outer(x, self._across) + np.multiply.outer(y, self._along)
        return np.asarray((beyond <= self._limits).all(axis=-1))


def _hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners, counter-clockwise, of the hull of sorted points (Andrew's monotone chain)."""
    if len(points) < 3:
        return list(points)
    return _chain(points)[:-1] + _chain(points[::-1])[:-1]


def _chain(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    chain: list[tuple[float, float]] = []
    for x, y in points:
        while len(chain) > 1:
            (x0, y0), (x1, y1) = chain[-2:]
            if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                break
            chain.pop()
        chain.append((x, y))
    return chain
