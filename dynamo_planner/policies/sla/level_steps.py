"""Steps in the level of counts, and the dispersion of counts about a level."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.arrays import Floats

CHI2_MEDIAN = 0.455
"""The median of a squared standard normal, whose mean is 1."""

MAX_DIFFERENCE = 10.8
"""The squared difference of two counts is cut off here: of Poisson counts one in a thousand is more."""

STEP_Z = 3.0
"""Standard deviations between two levels from which on they are two."""

Places = npt.NDArray[np.intp]
"""Places in a row of counts."""


def dispersion_of(counts: Floats, steps: Sequence[int] = ()) -> float:
    """The variance of counts over their mean, 1 for Poisson, by the differences of neighbours, so that a level that
    moves slowly is none::

        D = mean of min(d, d_max)    d     = (a - b)**2 / (a + b), 1 on average for Poisson counts a, b
                                     d_max = MAX_DIFFERENCE max(1, median(d) / CHI2_MEDIAN)

    Pairs on both sides of a step (the place of its first count) are left out, and a difference that is far beyond what
    is usual counts as ``d_max``: counts of 20, 24, 20, 24, ... and one jump to 400 give 0.4, and 11.3 at the jump.
    """
    left, right = counts[:-1], counts[1:]
    apart = (left - right) ** 2 / np.maximum(left + right, 1.0)
    if steps:
        apart = np.delete(apart, [step - 1 for step in steps])
    if not len(apart):
        return 1.0
    ordered = np.sort(apart)
    median = float(ordered[(len(apart) - 1) // 2] + ordered[len(apart) // 2]) / 2
    usual = max(1.0, median / CHI2_MEDIAN)
    return float(np.minimum(apart, MAX_DIFFERENCE * usual).mean())


def steps_in(counts: Floats, width: int, dispersion: float) -> list[int]:
    """Where the level of counts changes: the places of the first counts after each change.

    A step is where all of the ``width`` counts before, halved, are on one side of all of those after, halved, by more
    than :data:`STEP_Z` standard deviations of such a half. So a burst that is over after half of ``width`` is none.
    """
    total, halves = np.concatenate([[0.0], np.cumsum(counts)]), _halves(len(counts), width)
    means = (total[halves.ends] - total[halves.begins]) / halves.lengths
    far_left, near_left, near_right, far_right = means
    up = np.minimum(near_right, far_right) - np.maximum(far_left, near_left)
    down = np.minimum(far_left, near_left) - np.maximum(near_right, far_right)
    gap = np.maximum(up, down)
    level = np.maximum((near_left + near_right) / 2, 1.0)
    certain = STEP_Z * np.sqrt(max(dispersion, 1.0) * level * halves.variance)
    found = np.flatnonzero(gap > certain)
    runs = np.split(found, np.flatnonzero(np.diff(found) > 1) + 1) if len(found) else []
    return [int(run[np.argmax(gap[run])]) + 1 for run in runs]


class _Halves(NamedTuple):
    """The halves of what is before and after each place between two counts; shape (4, places), from the left to the
    right.

    Attributes:
        begins: the places where the halves begin.
        ends: the places where they end.
        lengths: how many counts they have.
        variance: the variance of the difference of the means of two inner halves, over that of one count.
    """

    begins: Places
    ends: Places
    lengths: Places
    variance: Floats


@lru_cache(maxsize=16)  # an entry has about 40 kB
def _halves(counts: int, width: int) -> _Halves:
    """The halves of up to ``width`` counts on both sides of each place in a row of so many counts."""
    place = np.arange(1, counts)
    before, after = np.minimum(place, width), np.minimum(counts - place, width)
    left, right = np.maximum(before // 2, 1), np.maximum(after // 2, 1)
    begins = np.stack([place - before, place - left, place, place + after - right])
    lengths = np.stack([left, left, right, right])
    return _Halves(begins, begins + lengths, lengths, 1 / left + 1 / right)
