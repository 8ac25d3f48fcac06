"""Burstiness: past slots of arrivals, and the bursts that are too short to forecast."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dynamo_planner.sizing import Arrivals
from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import NO_PATH

MIN_SLOT_S = 5.0
"""The shortest slot, in seconds."""

MAX_SLOTS = 360
"""Slots that are kept: half an hour of the shortest ones."""

REFRESH_SLOTS = 12
"""The pattern is worked out again after this many slots, since it changes slowly and is expensive."""

MIN_REQUESTS_PER_SLOT = 4.0
"""Slots are merged until each has this many requests on average."""

MAX_WINDOW_OVERLAP = 0.25
"""A window that overlaps the one before by more than this share of it was counted already."""

SURGE_Z = 3.0
"""Standard deviations of a Poisson count between the arrivals since the last tick and what counts as certain."""


class Slots(NamedTuple):
    """Past arrivals in slots of equal length.

    Args:
        slot_s: The length of a slot, in seconds.
        end_s: Until when arrivals were counted, in Unix seconds.
        open_s: Seconds of the slot that is not full yet.
        open_count: Its arrivals.
        number: How many slots there ever were.
        rates: Arrivals per second of the last slots, oldest first.
    """

    slot_s: float
    end_s: float
    open_s: float = 0.0
    open_count: float = 0.0
    number: int = 0
    rates: tuple[float, ...] = ()


class Pattern(NamedTuple):
    """Burstiness of arrivals about their mean rate: as in :class:`~dynamo_planner.sizing.Arrivals`."""

    dispersion: float
    slot_s: float = 1.0
    path: Floats = NO_PATH

    def at(self, requests_per_s: float) -> Arrivals:
        """Arrivals at this rate."""
        return Arrivals(requests_per_s, *self)


def counted(slots: Slots | None, end_s: float, rate_per_s: float, window_s: float) -> Slots:
    """The slots after a window of ``window_s`` seconds to ``end_s``; one that was counted before changes nothing."""
    if slots is None:
        slots = Slots(max(MIN_SLOT_S, window_s), end_s - window_s)
    if end_s - window_s < slots.end_s - MAX_WINDOW_OVERLAP * window_s:
        return slots
    open_s, count = slots.open_s + window_s, slots.open_count + rate_per_s * window_s
    if open_s < slots.slot_s - window_s / 2:
        return slots._replace(end_s=end_s, open_s=open_s, open_count=count)
    number = slots.number + 1
    rates = (*slots.rates, count / open_s)
    return Slots(slots.slot_s, end_s, number=number, rates=rates if number % REFRESH_SLOTS else rates[-MAX_SLOTS:])


def recent_rate(slots: Slots | None, over_s: float) -> float:
    """The mean rate of the last slots that are ``over_s`` long together, of at least one."""
    if slots is None or not slots.rates:
        return 0.0
    last = slots.rates[-max(round(over_s / slots.slot_s), 1) :]
    return sum(last) / len(last)


def surge(rate_per_s: float, window_s: float, before_per_s: float, elapsed_s: float, usual_per_s: float) -> float:
    """The certain rate of the ``elapsed_s`` seconds since the last tick, where windows overlap.

    A window of ``rate_per_s`` holds what the one ``before`` held, less its oldest part, which came at about the
    ``usual`` rate, and what has come since. So a step shows in full at the first tick, and not only when it fills a
    window. Arrivals in so short a time are taken for Poisson::

        came = window_s * (rate - before) + elapsed_s * min(usual, before)
        surge = max(came - z sqrt(came), 0) / elapsed_s          z = SURGE_Z
    """
    if elapsed_s < window_s:
        came = window_s * (rate_per_s - before_per_s) + elapsed_s * min(usual_per_s, before_per_s)
    else:
        elapsed_s, came = window_s, window_s * rate_per_s
    return max(came - SURGE_Z * math.sqrt(max(came, 0.0)), 0.0) / elapsed_s


def pattern(slots: Slots | None, level_s: float, reported_dispersion: float | None) -> Pattern:
    """The burstiness of arrivals about a mean over ``level_s``, as in the past slots.

    What changes over longer times than ``level_s`` is left out, since that is forecast. The dispersion that a source
    reports counts for as long as there are too few slots; without it arrivals are taken for Poisson.
    """
    whole = () if slots is None else slots.rates[: len(slots.rates) - slots.number % REFRESH_SLOTS]
    past = _past(whole, slots.slot_s, level_s) if slots and whole else None
    return Pattern(max(reported_dispersion or 1.0, 1.0)) if past is None else past


@lru_cache(maxsize=64)
def _past(rates: tuple[float, ...], slot_s: float, level_s: float) -> Pattern | None:
    """The pattern of past arrivals; ``None`` where there were too few."""
    values = np.array(rates)
    mean = float(values.mean())
    together = int(np.ceil(MIN_REQUESTS_PER_SLOT / (mean * slot_s))) if mean > 0 else len(values)
    whole = len(values) // together
    if whole < REFRESH_SLOTS:
        return None
    values = values[len(values) - whole * together :].reshape(whole, together).mean(axis=1)
    slot_s *= together
    dispersion = float(np.mean(np.diff(values) ** 2) / 2 / values.mean()) * slot_s
    level = _moving_mean(values, max(round(level_s / slot_s), 1))
    path = np.where(level > 0, values / np.where(level > 0, level, 1.0), 1.0)
    return Pattern(dispersion, slot_s, path / path.mean())


def _moving_mean(values: Floats, width: int) -> Floats:
    """The mean of the ``width`` values around each, of fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - width // 2, 0), np.minimum(index + (width + 1) // 2, len(values))
    return np.asarray((total[high] - total[low]) / (high - low))
