"""A fitted surface, tabulated, and defined beyond its table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.profiles.kriging import Fit
from dynamo_planner.profiles.table import Table, locate

Floats = NDArray[np.float64]


class Surface:
    """A fit, tabulated over the box of ``axes``, and defined everywhere.

    Above the box in a coordinate it rises as its trend does; below it stays at its value on the edge.
    """

    def __init__(self, fit: Fit, axes: Sequence[Floats]) -> None:
        self.fit = fit
        self.table = Table(axes, fit)
        self._low = np.array([axis[0] for axis in axes])
        self._high = np.array([axis[-1] for axis in axes])
        self._highest = self._high.tolist()

    def at(self, *point: float) -> float:
        """The value at one point."""
        value = self.table.at(*point)
        above = [x > highest for x, highest in zip(point, self._highest, strict=True)]
        return value + float(self._rise(np.array([point]))[0]) if any(above) else value

    def many(self, points: Floats) -> Floats:
        """The values at points of shape (n, d): shape (n,), above 0."""
        return self.table.many(points) + self._rise(points)

    def rows(self, last: Floats) -> Floats:
        """A surface of two coordinates at every node of the first, for each value of the last: shape (m, nodes)."""
        first, second = self.table.axes
        cell, share = locate(second, last)
        after = np.minimum(cell + 1, len(second) - 1)
        rows = (self.table.values[:, cell] * (1 - share) + self.table.values[:, after] * share).T
        for row in np.flatnonzero(last > second[-1]):
            rows[row] += self._rise(np.column_stack([first, np.full(len(first), last[row])]))
        return rows

    def _rise(self, points: Floats) -> Floats:
        """By how much the trend is higher at these points than on the edge of the box below them."""
        above = (points > self._high).any(axis=1)
        rise = np.zeros(len(points))
        if above.any():
            outside = np.maximum(points[above], self._low)
            rise[above] = self.fit.trend(outside) - self.fit.trend(np.minimum(outside, self._high))
        return rise
