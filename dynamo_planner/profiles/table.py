"""A table on a grid: multilinear interpolation, of one point or many."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MAX_NODES = 160
"""Most nodes along an axis; where more would be needed they no longer coincide with the measurements."""

MAX_STEP, MIN_STEP = 0.2, 1e-4
"""Nodes are at most, and more than, this far apart in the logarithm of the coordinate."""


def nodes(values: Floats, offset: float = 0.0) -> Floats:
    """The nodes of an axis: every measured value, and others between where the gap in ``log(value + offset)`` is wide.

    >>> nodes(np.array([2.0, 1.0, 2.0])).round(2).tolist()
    [1.0, 1.19, 1.41, 1.68, 2.0]
    """
    logs = np.unique(np.log(values + offset))
    kept = logs[:1].tolist()
    for log in logs[1:].tolist():
        pieces = math.ceil((log - kept[-1]) / MAX_STEP)
        if log - kept[-1] > MIN_STEP:
            kept += np.linspace(kept[-1], log, pieces + 1)[1:].tolist()
    kept[-1] = float(logs[-1])
    if len(kept) > MAX_NODES:
        kept = np.linspace(logs[0], logs[-1], MAX_NODES).tolist()
    axis = np.exp(kept) - offset
    axis[0], axis[-1] = values.min(), values.max()
    return np.asarray(axis)


class Table:
    """Values on the grid of ``axes``, multilinear between them, and constant beyond the ends of each axis.

    >>> table = Table([np.array([1.0, 3.0]), np.array([10.0, 20.0])], lambda points: points[:, 0] * points[:, 1])
    >>> table.at(2.0, 15.0), table.at(9.0, 15.0), table.many(np.array([[2.0, 15.0], [0.0, 0.0]])).tolist()
    (30.0, 45.0, [30.0, 10.0])
    """

    def __init__(self, axes: Sequence[Floats], function: Callable[[Floats], Floats]) -> None:
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        self.axes = tuple(axes)
        self.values = function(grid.reshape(-1, len(axes))).reshape(grid.shape[:-1])
        self._strides = [math.prod(self.values.shape[axis + 1 :]) for axis in range(len(axes))]
        # Plain lists: for a single point they are several times as fast as arrays.
        self._lists = [axis.tolist() for axis in axes]
        self._flat: list[float] = self.values.ravel().tolist()

    def at(self, *point: float) -> float:
        """The value at one point."""
        corners = [(0, 1.0)]
        for axis, stride, coordinate in zip(self._lists, self._strides, point, strict=True):
            if coordinate <= axis[0]:
                continue
            if coordinate >= axis[-1]:
                last = stride * (len(axis) - 1)
                corners = [(place + last, weight) for place, weight in corners]
                continue
            cell = bisect_right(axis, coordinate) - 1
            share = (coordinate - axis[cell]) / (axis[cell + 1] - axis[cell])
            below, above = stride * cell, stride * (cell + 1)
            corners = [(place + below, weight * (1 - share)) for place, weight in corners] + [
                (place + above, weight * share) for place, weight in corners
            ]
        flat = self._flat
        return sum([flat[place] * weight for place, weight in corners])

    def many(self, points: Floats) -> Floats:
        """The values at points of shape (n, d): shape (n,)."""
        flat = self.values.ravel()
        places, weights = np.zeros((1, len(points)), dtype=np.intp), np.ones((1, len(points)))
        for number, (axis, stride) in enumerate(zip(self.axes, self._strides, strict=True)):
            cell, share = locate(axis, points[:, number])
            last = len(axis) - 1
            places = np.concatenate([places + stride * cell, places + stride * np.minimum(cell + 1, last)])
            weights = np.concatenate([weights * (1 - share), weights * share])
        return np.asarray((flat[places] * weights).sum(axis=0))


def locate(axis: Floats, values: Floats) -> tuple[NDArray[np.intp], Floats]:
    """The cell of an axis that each value is in, and how far into it (0 to 1); beyond an end, that end."""
    if len(axis) == 1:
        return np.zeros(len(values), dtype=np.intp), np.zeros(len(values))
    inside = np.clip(values, axis[0], axis[-1])
    cell = np.minimum(np.searchsorted(axis, inside, side="right") - 1, len(axis) - 2)
    return cell, (inside - axis[cell]) / (axis[cell + 1] - axis[cell])


def along(axis: Floats, positions: Floats, *tables: Floats) -> list[Floats]:
    """In each row of each table (m, n), the value at its position (m,) between the nodes of ``axis`` (n,)."""
    cell, share = locate(axis, positions)
    row, after = np.arange(len(positions)), np.minimum(cell + 1, len(axis) - 1)
    return [rows[row, cell] * (1 - share) + rows[row, after] * share for rows in tables]
