"""How long requests stay, and what that makes of the path of their arrivals: how many are there at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dynamo_planner.sizing.arrivals import Arrivals
from dynamo_planner.sizing.queueing import Floats, same_array

CLASSES, LEVELS = 16, 24


class Seen(NamedTuple):
    """How many there are at a time, over their mean: histograms (values and shares of the requests), on the way in
    (``now``) and averaged over the lives of requests of each class (``lasting``, a row each); and ``captured``, how
    much of the variance that arrivals make is in them."""

    now: Floats
    now_shares: Floats
    lasting: Floats
    lasting_shares: Floats
    captured: float


class Lives:
    """Lives of ``lives_s`` seconds (equally likely), which the number in flight takes ``slowness`` times as long to
    forget. ``at_once`` is the share of what they do that follows the arrivals at once, not the number in flight.

    ``overlap`` is the mean of the shorter of two lives over the mean life, and ``windows_s`` are the lives of
    :data:`CLASSES` equally many requests.
    """

    def __init__(self, lives_s: Floats, slowness: float, at_once: float = 0.0) -> None:
        self.slowness, self.at_once = slowness, at_once
        self.mean_s = max(float(lives_s.mean()), 1e-9)
        count = len(lives_s)
        self.overlap = float(lives_s @ (2 * (count - np.arange(count)) - 1)) / count**2 / self.mean_s
        self.windows_s = lives_s.reshape(CLASSES, -1).mean(axis=1)
        self._lives_s = lives_s * slowness
        self._last: tuple[Floats, float, Seen] | None = None

    def seen(self, arrivals: Arrivals) -> Seen:
        """What the path of these arrivals makes of the number in flight."""
        path, slot_s = arrivals.path, arrivals.slot_s
        if self._last is None or self._last[1] != slot_s or not same_array(self._last[0], path):
            self._last = path, slot_s, self._along(path, slot_s) if path.size else _EVEN
        return self._last[2]

    def _along(self, path: Floats, slot_s: float) -> Seen:
        kernel = self._kernel(slot_s, len(path))
        total = self._lives_s.mean()
        # Before the path began it was at its mean.
        padded = np.concatenate([np.full(len(kernel) - 1, path.mean()), path])
        there = np.convolve(padded, kernel / kernel.sum(), "valid")
        felt = there + self.at_once * (path - there)
        rows = np.vstack([there, _averaged(felt, self.windows_s / slot_s)])
        values, shares = _histograms(rows, path)
        captured = float(kernel @ kernel) / slot_s / (self.overlap * total)
        return Seen(values[:1], shares[:1], values[1:], shares[1:], min(captured, 1.0))

    def _kernel(self, slot_s: float, most: int) -> Floats:
        """Seconds that requests of one slot are there in that slot and in each later one: the survival function,
        averaged over both slots."""
        slots = int(min(np.ceil(self._lives_s[-1] / slot_s) + 1, most, 2000))
        at = np.arange(-1, slots + 1)[:, None] * slot_s
        inside = np.minimum(np.maximum(at, 0), self._lives_s)
        areas = (inside**2 / 2 + (np.maximum(at, 0) - inside) * self._lives_s).mean(axis=1)
        return np.asarray(np.diff(areas, 2) / slot_s)


def averaging(windows: Floats) -> Floats:
    """The variance of an average over a window, in correlation times, over that of single values: for exponential
    correlation, ``2 (u - 1 + exp(-u)) / u**2``."""
    u = np.maximum(windows, 1e-3)
    return np.asarray(2 * (u - 1 + np.exp(-u)) / u**2)


def _averaged(values: Floats, windows: Floats) -> Floats:
    """The means over so many slots from the middle of each on, at the end over what there is; a row for each window.

    A window of less than half a slot is the slot.
    """
    count = len(values)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    start = np.arange(count) + 0.5
    end = np.minimum(start + windows[:, None], count)
    whole = np.minimum(end.astype(np.intp), count - 1)
    means = (sums[whole] + (end - whole) * values[whole] - sums[:-1] - values / 2) / (end - start)
    return np.where(windows[:, None] < 0.5, values, means)


def _histograms(rows: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The middles of :data:`LEVELS` bins over the range of each row, and the share of the weights in each."""
    low = rows.min(axis=1, keepdims=True)
    width = np.maximum((rows.max(axis=1, keepdims=True) - low) / LEVELS, 1e-9)
    bins = np.minimum(((rows - low) / width).astype(np.intp), LEVELS - 1)
    bins += LEVELS * np.arange(len(rows))[:, None]
    shares = np.bincount(bins.ravel(), np.tile(weights, len(rows)), LEVELS * len(rows)).reshape(-1, LEVELS)
    return low + width * (np.arange(LEVELS) + 0.5), shares / weights.sum()


_EVEN = Seen(*(np.ones((1, 1)),) * 4, captured=0.0)
