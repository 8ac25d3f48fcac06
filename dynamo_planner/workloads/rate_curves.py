"""Arrival rates over time: functions from times (seconds, an array) to requests per second.

Sums and products of rate curves are rate curves too:
``lambda time_s: diurnal(5)(time_s) + flash_crowd(5, at_s=600)(time_s)``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RateCurve = Callable[[Floats], Floats]
"""The rate at each of many times."""

DAY_S = 86_400.0


def constant(requests_per_s: float) -> RateCurve:
    """The same rate at all times."""
    return lambda time_s: np.full_like(time_s, requests_per_s)


def diurnal(mean: float, peak_to_mean: float = 1.8, period_s: float = DAY_S, peak_s: float | None = None) -> RateCurve:
    """A wave: ``mean`` over a period, ``peak_to_mean`` (1 to 2) times that at ``peak_s`` (left out: mid-period).

    >>> diurnal(10.0)(np.array([0.0, 43_200.0])).round(6).tolist()
    [2.0, 18.0]
    """
    if not 1 <= peak_to_mean <= 2:
        raise ValueError(f"peak_to_mean must be from 1 to 2, got {peak_to_mean}: a wave cannot go below 0")
    middle_s = period_s / 2 if peak_s is None else peak_s
    return lambda time_s: mean * (1 + (peak_to_mean - 1) * np.cos(2 * np.pi * (time_s - middle_s) / period_s))


def flash_crowd(
    base: float, at_s: float, factor: float = 5.0, rise_s: float = 30.0, stay_s: float = 300.0, fall_s: float = 30.0
) -> RateCurve:
    """``base``, but from ``at_s`` on it rises to ``factor`` times that, holds it, and falls again.

    >>> flash_crowd(2.0, at_s=100.0)(np.array([0.0, 115.0, 130.0, 430.0, 460.0])).tolist()
    [2.0, 6.0, 10.0, 10.0, 2.0]
    """
    times = np.cumsum([at_s, rise_s, stay_s, fall_s])
    return lambda time_s: base * np.interp(time_s, times, [1.0, factor, factor, 1.0])


def ramp(start: float, end: float, from_s: float, over_s: float) -> RateCurve:
    """``start`` up to ``from_s``, then in a straight line to ``end`` within ``over_s``; 0 makes it a step.

    >>> ramp(1.0, 4.0, from_s=60.0, over_s=30.0)(np.array([60.0, 70.0, 90.0, 600.0])).tolist()
    [1.0, 2.0, 4.0, 4.0]
    """
    if over_s <= 0:
        return lambda time_s: np.where(time_s < from_s, start, end)
    return lambda time_s: np.interp(time_s, [from_s, from_s + over_s], [start, end])


def rise_and_fall(low: float, high: float, from_s: float, over_s: float) -> RateCurve:
    """``low``, but from ``from_s`` on it rises to ``high`` and falls again within ``over_s``, as a busy day does.

    In between it is low + (high - low) sin^2(pi t / over_s), where t counts from ``from_s``.

    >>> rise_and_fall(2.0, 10.0, from_s=20.0, over_s=60.0)(np.array([0.0, 35.0, 50.0, 90.0])).round(6).tolist()
    [2.0, 6.0, 10.0, 2.0]
    """
    if not over_s > 0:
        raise ValueError(f"over_s must be above 0, got {over_s}")
    return lambda time_s: low + (high - low) * np.sin(np.pi * np.clip((time_s - from_s) / over_s, 0, 1)) ** 2


def on_off(on: float, off: float, on_s: float, off_s: float) -> RateCurve:
    """``on`` for ``on_s`` seconds, ``off`` for ``off_s``, and so on.

    >>> on_off(8.0, 1.0, on_s=600.0, off_s=300.0)(np.array([0.0, 599.0, 600.0, 900.0])).tolist()
    [8.0, 8.0, 1.0, 8.0]
    """
    return lambda time_s: np.where(np.mod(time_s, on_s + off_s) < on_s, on, off)
