"""A fitted surface with its table, defined everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.profiles.fit import Fit
from dynamo_planner.profiles.table import Table, locate

Floats = NDArray[np.float64]


class Surface:
    """A fit, tabulated over the box of ``axes``; beyond the box it goes on from the edge as its trend does."""

    def __init__(self, fit: Fit, axes: Sequence[Floats]) -> None:
        self.fit = fit
        self.table = Table(axes, fit)
        self._low = np.array([axis[0] for axis in axes])
        self._high = np.array([axis[-1] for axis in axes])
        self._bounds = list(zip(self._low.tolist(), self._high.tolist(), strict=True))

    def at(self, *point: float) -> float:
        """The value at one point."""
        inside = [low <= x <= high for x, (low, high) in zip(point, self._bounds, strict=True)]
        if all(inside):
            return self.table.at(*point)
        return float(self.many(np.array([point]))[0])

    def many(self, points: Floats) -> Floats:
        """The values at points of shape (n, d): shape (n,), above 0."""
        edge = np.clip(points, self._low, self._high)
        values = self.table.many(edge)
        beyond = (edge != points).any(axis=1)
        if beyond.any():
            values[beyond] *= self.fit.trend(points[beyond]) / self.fit.trend(edge[beyond])
        return values

    def rows(self, last: Floats) -> Floats:
        """A surface of two coordinates at every node of the first, for each value of the last: shape (m, nodes)."""
        first, second = self.table.axes
        cell, share = locate(second, last)
        after = np.minimum(cell + 1, len(second) - 1)
        rows = (self.table.values[:, cell] * (1 - share) + self.table.values[:, after] * share).T
        edge = np.clip(last, second[0], second[-1])
        for row in np.flatnonzero(edge != last):
            there, here = (np.column_stack([first, np.full(len(first), x[row])]) for x in (last, edge))
            rows[row] *= self.fit.trend(there) / self.fit.trend(here)
        return rows
