"""Queries of curves by numbers or arrays, and the largest argument that keeps a curve within a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PLAIN = {float, int, np.float64}

Numbers = float | np.number[Any] | Sequence[float] | NDArray[Any]
"""A number or an array; arrays are broadcast against each other."""


def evaluate(many: Callable[..., Any], one: Callable[..., Any] | None = None, **query: Numbers) -> Any:
    """``many`` of flat arrays of one length, in the shape that they broadcast to, or ``one`` of plain numbers.

    Without ``one``, numbers are arrays of one entry. What ``many`` gives may be a tuple of arrays.

    Raises ``ValueError`` where a number is negative, NaN or infinite, and says which.
    """
    values = query.values()
    if one is not None and PLAIN.issuperset(map(type, values)):
        for name, value in query.items():
            if not 0 <= value < math.inf:  # type: ignore[operator]
                raise ValueError(f"{name} must be a finite number of at least 0, got {value!r}")
        return one(*values)
    arrays = np.broadcast_arrays(*[np.asarray(value, dtype=np.float64) for value in values])
    for name, array in zip(query, arrays, strict=True):
        wrong = np.flatnonzero(~((array >= 0) & (array < math.inf)))
        if wrong.size:
            value = array.ravel()[wrong[0]]
            raise ValueError(f"{name} must be finite and at least 0, got {value} at position {wrong[0]}")
    shape = arrays[0].shape
    found = many(*[array.ravel() for array in arrays])
    if isinstance(found, tuple):
        return type(found)(*[_shaped(part, shape) for part in found])
    return _shaped(found, shape)


def _shaped(found: NDArray[Any], shape: tuple[int, ...]) -> Any:
    return found.reshape(shape) if shape else found.item()


def last_within(axis: Floats, rows: Floats, limits: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Up to where each row stays at or under its limit, going up the axis and never past a value above it.

    ``rows`` (m, n) are values at the nodes of ``axis`` (n,), with straight lines between; ``limits`` is (m,). Returns
    the positions on the axis (m,), its first node where even that is above, and whether there is one (m,). A curve
    that comes down again further up is not followed there: a batch would have to pass the values above the limit.

    >>> last_within(np.array([1.0, 2.0, 3.0]), np.array([[5.0, 9.0, 6.0]]), np.array([7.0]))[0].tolist()
    [1.5]
    """
    under = np.logical_and.accumulate(rows <= limits[:, None], axis=1)
    count = under.sum(axis=1)
    found = count > 0
    row = np.arange(len(limits))
    left = np.maximum(count - 1, 0)
    right = np.minimum(left + 1, len(axis) - 1)
    low, high = rows[row, left], rows[row, right]
    crosses = found & (high > limits)
    share = np.where(crosses, (limits - low) / np.where(crosses, high - low, 1.0), 0.0)
    return axis[left] + share * (axis[right] - axis[left]), found
