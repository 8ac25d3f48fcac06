"""Requests in flight: their residence times, and how the number in flight follows the arrivals' path."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.arrays import Floats, same_array
from dynamo_planner.sizing.arrivals import Arrivals
from dynamo_planner.sizing.memo import Memo

CLASSES = 16
"""Classes of equally many requests, by residence time."""

LEVELS = 24
"""Bins of the histogram of the number in flight."""

MAX_KERNEL_SLOTS = 2000
"""Slots over which a residence time is followed, at most."""

KERNELS_KEPT = 4
"""Lengths of slots for which it is kept how requests stay in them."""


class InFlight(NamedTuple):
    """The number in flight over its mean, as histograms: the middle of each bin and the share of requests in it.

    Attributes:
        now: bins as a request finds them on arrival; shape (1, levels).
        now_shares: the share of the requests in each of these bins.
        lasting: bins of the average over a request's residence, a row for each class; shape (classes, levels).
        lasting_shares: the share of the requests of a class in each of these bins.
        captured: the share (0 to 1) of the variance due to arrivals that is in these histograms.
    """

    now: Floats
    now_shares: Floats
    lasting: Floats
    lasting_shares: Floats
    captured: float


class ResidenceTimes:
    """How long requests stay on a replica, and the number in flight that this makes of the arrivals' path.

    Args:
        residence_s: equally likely residence times, ascending, a multiple of :data:`CLASSES` of them.
        slowness: how many times a residence time the number in flight takes to return to its mean, at least 1.
        immediate: share (0 to 1) of the work that follows the arrivals at once, not the number in flight. Default 0.

    Attributes:
        mean_s: the mean residence time.
        overlap: the mean of the shorter of two residence times over the mean of one (0 to 1).
        class_s: the mean residence time of each class.
    """

    def __init__(self, residence_s: Floats, slowness: float, immediate: float = 0.0) -> None:
        self.slowness, self.immediate = slowness, immediate
        self.mean_s = max(float(residence_s.mean()), 1e-9)
        count = len(residence_s)
        self.overlap = float(residence_s @ (2 * (count - np.arange(count)) - 1)) / count**2 / self.mean_s
        self.class_s = residence_s.reshape(CLASSES, -1).mean(axis=1)
        self._slowed_s = residence_s * slowness
        self._last: tuple[Floats, float, InFlight] | None = None
        self._kernels = Memo[tuple[Floats, float]](KERNELS_KEPT)

    def in_flight(self, arrivals: Arrivals) -> InFlight:
        """The number in flight under arrivals of this path."""
        path, slot_s = arrivals.path, arrivals.slot_s
        if self._last is None or self._last[1] != slot_s or not same_array(self._last[0], path):
            self._last = path, slot_s, self._along(path, slot_s) if path.size else _STEADY
        return self._last[2]

    def _along(self, path: Floats, slot_s: float) -> InFlight:
        kernel, captured = self._kernels.get((slot_s, path.size), lambda: self._kernel(slot_s, path.size))
        # Before the path began it was at its mean.
        padded = np.concatenate([np.full(len(kernel) - 1, path.mean()), path])
        number = np.convolve(padded, kernel, "valid")
        work = number + self.immediate * (path - number)
        lasting = _spans(tuple((self.class_s / slot_s).tolist()), path.size).means(work)
        values, shares = _histograms(np.vstack([number, lasting]), path)
        return InFlight(values[:1], shares[:1], values[1:], shares[1:], captured)

    def _kernel(self, slot_s: float, most: int) -> tuple[Floats, float]:
        """The share of their residence that requests of one slot spend in that slot and in each later one (the survival
        function, averaged over both slots), and the share of the variance due to arrivals that such slots show."""
        slots = int(min(np.ceil(self._slowed_s[-1] / slot_s) + 1, most, MAX_KERNEL_SLOTS))
        at = np.arange(-1, slots + 1)[:, None] * slot_s
        inside = np.minimum(np.maximum(at, 0), self._slowed_s)
        areas = (inside**2 / 2 + (np.maximum(at, 0) - inside) * self._slowed_s).mean(axis=1)
        seconds = np.diff(areas, 2) / slot_s
        captured = float(seconds @ seconds) / slot_s / (self.overlap * self._slowed_s.mean())
        return seconds / seconds.sum(), min(captured, 1.0)


def averaging(windows: Floats) -> Floats:
    """The variance of an average over a window of ``u`` correlation times, over the variance of single values.

    For exponential correlation it is ``2 (u - 1 + exp(-u)) / u**2``. Windows under 0.001 count as 0.001.

    >>> averaging(np.array([0.0, 1.0, 10.0])).round(3).tolist()
    [1.0, 0.736, 0.18]
    """
    u = np.maximum(windows, 1e-3)
    return np.asarray(2 * (u - 1 + np.exp(-u)) / u**2)


class _Spans(NamedTuple):
    """Windows from the middle of each slot on, in slots: shape (windows, slots).

    Attributes:
        length: how long each is; at the end of the path it is what is left.
        whole: the slot in which it ends.
        part: how much of that slot is in it.
        short: windows of less than half a slot, for which the slot stands.
    """

    length: Floats
    whole: npt.NDArray[np.intp]
    part: Floats
    short: npt.NDArray[np.bool_]

    def means(self, values: Floats) -> Floats:
        """The means of the values of slots over each window."""
        sums = np.concatenate([[0.0], np.cumsum(values)])
        means = (sums[self.whole] + self.part * values[self.whole] - sums[:-1] - values / 2) / self.length
        means[self.short] = values
        return np.asarray(means)


@lru_cache(maxsize=16)  # an entry has about 140 kB
def _spans(windows: tuple[float, ...], count: int) -> _Spans:
    """Windows of these lengths over a path of this many slots."""
    start, lengths = np.arange(count) + 0.5, np.array(windows)
    end = np.minimum(start + lengths[:, None], count)
    whole = np.minimum(end.astype(np.intp), count - 1)
    return _Spans(end - start, whole, end - whole, lengths < 0.5)


def _histograms(rows: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The middles of :data:`LEVELS` bins over the range of each row, and the share of the weights in each."""
    low = rows.min(axis=1, keepdims=True)
    width = np.maximum((rows.max(axis=1, keepdims=True) - low) / LEVELS, 1e-9)
    bins = np.minimum(((rows - low) / width).astype(np.intp), LEVELS - 1)
    bins += LEVELS * np.arange(len(rows))[:, None]
    shares = np.bincount(bins.ravel(), np.concatenate([weights] * len(rows)), LEVELS * len(rows)).reshape(-1, LEVELS)
    return low + width * (np.arange(LEVELS) + 0.5), shares / weights.sum()


_STEADY = InFlight(*(np.ones((1, 1)),) * 4, captured=0.0)
