"""Sliding-window maximum: the most that was required lately, in a bounded memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

WINDOW_BUCKETS = 24
MIN_BUCKET_S = 1e-3
"""The sliding-window maximum is kept in this many buckets of time, none shorter than this (seconds)."""

SlidingMaximum = tuple[tuple[float, float], ...]
"""A sliding-window maximum of the required replicas: pairs of time (Unix seconds) and count, oldest first, each count
less than the one before, since what is less than something newer never is the maximum."""


def with_requirement(requirements: SlidingMaximum, at_s: float, count: float, window_s: float) -> SlidingMaximum:
    """The sliding-window maximum with what is required now, and without what is older than ``window_s``.

    Entries of one twenty-fourth of the window are merged, so that at most some two dozen are kept.
    """
    bucket_s = max(window_s / WINDOW_BUCKETS, MIN_BUCKET_S)
    recent = bisect_right(requirements, at_s - window_s, key=_at_s)
    kept = requirements[recent : bisect_left(requirements, -count, lo=recent, key=_negative_count)]
    if kept and kept[-1][0] // bucket_s == at_s // bucket_s:
        return (*kept[:-1], (at_s, kept[-1][1]))
    return (*kept, (at_s, count))


def largest(requirements: SlidingMaximum) -> float:
    """The most replicas that were required within the window."""
    return requirements[0][1] if requirements else 0.0


def _at_s(entry: tuple[float, float]) -> float:
    return entry[0]


def _negative_count(entry: tuple[float, float]) -> float:
    return -entry[1]
