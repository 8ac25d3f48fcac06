"""The mean of a metric over the last so many seconds, in a memory that stays small.

>>> samples = ()
>>> for at_s, value in ((0, 8.0), (10, 2.0), (20, 4.0)):
...     samples = sampled(samples, at_s, value, window_s=60)
>>> mean(samples, since_s=5)
3.0
"""

from __future__ import annotations

from collections.abc import Sequence

MOST_SLOTS = 60
"""A window is at most so many slots of time, none shorter than a second."""

Samples = tuple[tuple[float, float, int], ...]
"""Slots of time, oldest first: when the last sample in it was taken, the sum of its samples, and how many."""


def sampled(samples: Sequence[tuple[float, float, int]], at_s: float, value: float, window_s: float) -> Samples:
    """The samples of the window with one more; what is older than ``window_s`` is forgotten."""
    width_s = max(window_s / MOST_SLOTS, 1.0)
    kept = [sample for sample in samples if at_s - window_s < sample[0] < at_s]
    if kept and kept[-1][0] // width_s == at_s // width_s:
        _, total, count = kept.pop()
        return (*kept, (at_s, total + value, count + 1))
    return (*kept, (at_s, value, 1))


def mean(samples: Sequence[tuple[float, float, int]], since_s: float) -> float:
    """The mean of the samples that are younger than ``since_s``, of which there must be one."""
    young = [(total, count) for at_s, total, count in samples if at_s > since_s]
    return sum(total for total, _ in young) / sum(count for _, count in young)
