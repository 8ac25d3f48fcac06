"""Burstiness: past slots of arrivals, and the bursts that are too short to forecast."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.level_steps import dispersion_of, steps_in
from dynamo_planner.sizing import Arrivals
from dynamo_planner.sizing.arrays import Floats, read_only
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
"""Standard deviations of a count between what arrived and what counts as certain."""

MAX_SURGE_RATIO = 1.5
"""What has come since the last tick is taken for at most this many times the rate that a window shows: a window that is
not as long as it says, or an exact rate beside a window, would make for any number."""

MAX_SLOT_LEVELS = 1.5
"""Slots that are longer than this many times ``level_s`` show changes of the level, and no bursts."""


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
    if slots is None or window_s > MAX_SLOT_LEVELS * slots.slot_s:
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


def certain_rate(arrivals: ArrivalWindow, before_per_s: float | None, usual_per_s: float, dispersion: float) -> float:
    """The arrival rate that is certain already, by the last window: a rise need not last to be planned for.

    All of the window, and, where it overlaps the one before, what has come since the last tick. It holds what the one
    before held, less its oldest part, which came at about the ``usual`` rate, and what has come since. So a step shows
    in full at the first tick, and not only when it fills a window::

        came    = window_s (rate - before) + elapsed_s min(usual, before)
        certain = max(rate - z sqrt(D rate / window_s), min((came - z sqrt(D came)) / elapsed_s, 1.5 rate))

    From 5 to 50 requests/s: 10 s later a window of 30 s shows 20. 500 have come, of which ``500 - 3 sqrt(500) = 433``
    are certain, 43 a second, and 30 a second are planned for. Of the whole window ``20 - 3 sqrt(20 / 30) = 17.6`` are.
    """
    rate, window_s, elapsed_s = arrivals.requests_per_s, arrivals.window_s, arrivals.elapsed_s
    whole = rate - SURGE_Z * math.sqrt(dispersion * rate / window_s)
    if before_per_s is None or elapsed_s >= window_s:
        return max(whole, 0.0)
    came = max(window_s * (rate - before_per_s) + elapsed_s * min(usual_per_s, before_per_s), 0.0)
    since = (came - SURGE_Z * math.sqrt(dispersion * came)) / elapsed_s
    return max(whole, min(since, MAX_SURGE_RATIO * rate), 0.0)


def steady_dispersion(
    before: float | None, reported: float | None, arrivals: ArrivalWindow, before_per_s: float | None
) -> float | None:
    """The dispersion that a source reported last while the level of the arrivals stood.

    In a window that holds a change of level, the variance of the counts is that of the levels. What came since the last
    tick differs then from what left the window, by more than chance::

        window_s |rate - before| > z sqrt(2 D max(rate, before) elapsed_s)

    A window of 600 s that falls from 40 to 39.4 requests/s within 10 s lost 360 requests, where chance makes for
    ``3 sqrt(2 * 40 * 10) = 85``: the level changes.
    """
    if reported is None or before is None or before_per_s is None:
        return before if reported is None else reported
    rate, elapsed_s = arrivals.requests_per_s, min(arrivals.elapsed_s, arrivals.window_s)
    chance = math.sqrt(2 * max(before, 1.0) * max(rate, before_per_s) * elapsed_s)
    moves = arrivals.window_s * abs(rate - before_per_s) > SURGE_Z * chance
    return before if moves else reported


def pattern(slots: Slots | None, level_s: float, reported_dispersion: float | None) -> Pattern:
    """The burstiness of arrivals about a mean over ``level_s``, as in the past slots.

    What changes over longer times than ``level_s`` is left out, since that is forecast. So slots that are longer than
    that say nothing. The dispersion that a source reports counts for as long as there are too few slots; without it
    arrivals are taken for Poisson.
    """
    rates = _refreshed(slots, level_s)
    past = _past(rates, slots.slot_s, level_s) if slots is not None and rates else None
    return Pattern(max(reported_dispersion or 1.0, 1.0)) if past is None else past


def dispersion(slots: Slots | None, level_s: float, reported_dispersion: float | None) -> float:
    """The dispersion of the :func:`pattern` of the past slots, without the path, which takes longer."""
    rates = _refreshed(slots, level_s)
    past = _between_steps(rates, slots.slot_s, level_s) if slots is not None and rates else None
    return max(reported_dispersion or 1.0, 1.0) if past is None else past.dispersion


def _refreshed(slots: Slots | None, level_s: float) -> tuple[float, ...]:
    """The past slots that a pattern is worked out from; empty where they say nothing."""
    if slots is None or slots.slot_s > MAX_SLOT_LEVELS * level_s:
        return ()
    return slots.rates[: len(slots.rates) - slots.number % REFRESH_SLOTS]


class _Merged(NamedTuple):
    """Past arrivals in slots of enough requests: the length of a slot, the rates, and their dispersion."""

    slot_s: float
    rates: Floats
    dispersion: float


@lru_cache(maxsize=1024)
def _merged(rates: tuple[float, ...], slot_s: float) -> _Merged | None:
    """Past arrivals in longer slots, whatever their level; ``None`` where there were too few."""
    values = np.array(rates)
    mean = float(values.mean())
    together = int(np.ceil(MIN_REQUESTS_PER_SLOT / (mean * slot_s))) if mean > 0 else len(values)
    whole = len(values) // together
    if whole < REFRESH_SLOTS:
        return None
    values = values[len(values) - whole * together :].reshape(whole, together).mean(axis=1)
    slot_s *= together
    return _Merged(slot_s, values, dispersion_of(values * slot_s))


class _Stretches(NamedTuple):
    """Past arrivals in slots of enough requests, cut where their level changes.

    Args:
        slot_s: The length of a slot, in seconds.
        rates: The rates.
        width: The slots of a level.
        steps: The places of the first slots after a change.
        dispersion: The dispersion between changes.
    """

    slot_s: float
    rates: Floats
    width: int
    steps: list[int]
    dispersion: float


@lru_cache(maxsize=2048)
def _between_steps(rates: tuple[float, ...], slot_s: float, level_s: float) -> _Stretches | None:
    """Past arrivals between changes of level; ``None`` where there were too few."""
    merged = _merged(rates, slot_s)
    if merged is None:
        return None
    slot_s, values, dispersion = merged
    width = max(round(level_s / slot_s), 1)
    steps = steps_in(values * slot_s, width, dispersion)
    if steps:
        dispersion = dispersion_of(values * slot_s, steps)
    return _Stretches(slot_s, values, width, steps, dispersion)


@lru_cache(maxsize=2048)
def _past(rates: tuple[float, ...], slot_s: float, level_s: float) -> Pattern | None:
    """The pattern of past arrivals; ``None`` where there were too few."""
    stretches = _between_steps(rates, slot_s, level_s)
    if stretches is None:
        return None
    slot_s, values, width, steps, dispersion = stretches
    parts = np.split(values, steps) if steps else [values]
    level = np.concatenate([_moving_mean(part, width) for part in parts])
    path = np.where(level > 0, values / np.where(level > 0, level, 1.0), 1.0)
    return Pattern(dispersion, slot_s, read_only(path / path.mean()))


def _moving_mean(values: Floats, width: int) -> Floats:
    """The mean of the ``width`` values around each, of fewer at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - width // 2, 0), np.minimum(index + (width + 1) // 2, len(values))
    return np.asarray((total[high] - total[low]) / (high - low))
