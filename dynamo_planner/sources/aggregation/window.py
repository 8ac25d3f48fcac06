"""What workers did over the last seconds, from readings at irregular times, while workers come and go.

A window is made of whole intervals between readings: those whose middle lies in it, so that jitter of the schedule
takes none in or out. Of a worker that is seen, the newest one is in it however long it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from dynamo_planner.core.snapshot import Dist
from dynamo_planner.engines.vocabulary import COUNTERS, DISTRIBUTIONS
from dynamo_planner.sources.aggregation.increase import (
    Interval,
    carried_over,
    interval_between,
    interval_since_birth,
    total,
)
from dynamo_planner.sources.aggregation.sample import Observed, Reading

QUANTILES = (0.5, 0.9, 0.99)


class Track:
    """One worker over time: whether, at the last turn, it was ``listed`` to be asked, and answered (``seen``)."""

    def __init__(self, name: str, window_s: float) -> None:
        self.name = name
        self.seen = False
        self.listed = True
        self.last: Reading | None = None
        self._window_s = window_s
        self._intervals: list[Interval] = []

    @classmethod
    def of_gone(cls, name: str, window_s: float, interval: Interval) -> Self:
        """One that is not listed any more, and that was last known to do this."""
        track = cls(name, window_s)
        track.listed = False
        track._intervals = [interval]
        return track

    def add(self, reading: Reading, previous_s: float | None) -> None:
        """A new reading; ``previous_s`` is when workers were scraped before, whether or not this one was.

        What a worker counted before its first reading is known only if its process began since ``previous_s``, or
        within the window. A worker that was not seen for longer than both starts anew.
        """
        horizon_s = reading.at_s - self._window_s
        known_from_s = horizon_s if previous_s is None else min(previous_s, horizon_s)
        last, started_s = self.last, reading.started_s
        if last is not None and last.at_s >= known_from_s:
            if reading.at_s <= last.at_s:
                return
            reading = carried_over(last, reading)
            self._intervals = [*self.recent(reading.at_s), interval_between(last, reading)]
        elif started_s is not None and known_from_s < started_s < reading.at_s:
            self._intervals = [interval_since_birth(reading, started_s)]
        else:
            self._intervals = []
        self.last = reading

    def recent(self, at_s: float) -> list[Interval]:
        """The intervals in the window that ends at ``at_s``."""
        twice_horizon_s = 2 * (at_s - self._window_s)
        return [
            interval
            for interval in self._intervals
            if interval.end_s == at_s or interval.start_s + interval.end_s >= twice_horizon_s
        ]


RATES = ("arrivals", "rejections", "preemptions")


@dataclass(frozen=True, slots=True)
class Window:
    """What several workers did over ``span_s``: increases of counters and histograms, all summed, and how often a
    second something came (``RATES``).

    What is not there is unknown. A rate is unknown where that of one of the workers is.
    """

    span_s: float
    rates: Mapping[str, float]
    counters: Mapping[str, float]
    histograms: Mapping[str, Observed]


def window_of(tracks: Iterable[Track], at_s: float) -> Window | None:
    """The window that ends at ``at_s``; ``None`` where no worker has an interval in it."""
    recent = [(track, intervals) for track in tracks if (intervals := track.recent(at_s))]
    if not recent:
        return None
    start_s = min(intervals[0].start_s for _, intervals in recent)
    rates: dict[str, float] = {}
    for name in RATES:
        each = [_rate(name, track, intervals, start_s, at_s) for track, intervals in recent]
        known = [rate for rate in each if rate is not None]
        if len(known) == len(each):
            rates[name] = max(0.0, sum(known))
    every = [interval for _, intervals in recent for interval in intervals]
    counters: dict[str, float] = {}
    for counter in COUNTERS:
        increases = [interval.counters[counter] for interval in every if counter in interval.counters]
        if increases:
            counters[counter] = sum(increases)
    histograms: dict[str, Observed] = {}
    for histogram in DISTRIBUTIONS:
        parts = [interval.histograms[histogram] for interval in every if histogram in interval.histograms]
        if parts:
            histograms[histogram] = total(parts)
    return Window(span_s=at_s - start_s, rates=rates, counters=counters, histograms=histograms)


def _rate(name: str, track: Track, intervals: list[Interval], start_s: float, at_s: float) -> float | None:
    """How often a second something came to one worker, over the time that it is known of.

    Before it was born and after it was taken off the list nothing came to it, which is known as well.
    """
    begin_s = start_s if intervals[0].since_birth else intervals[0].start_s
    end_s = intervals[-1].end_s if track.listed else at_s
    count = 0.0
    for interval in intervals:
        came = interval.arrivals if name == "arrivals" else interval.counters.get(name)
        if came is None:
            return None
        count += came
    return count / (end_s - begin_s)


def dist_of(observed: Observed) -> Dist | None:
    """Mean, count and, where there are buckets, quantiles; ``None`` where nothing was observed."""
    mean = observed.total / observed.count if observed.count > 0 else math.inf
    if math.isinf(mean):
        return None
    quantiles = {share: quantile(observed, share) for share in QUANTILES} if observed.up_to else {}
    return Dist(mean=mean, count=observed.count, quantiles=quantiles)


def quantile(observed: Observed, share: float) -> float:
    """The quantile by linear interpolation within its bucket, as Prometheus has it (``histogram_quantile``, 2.x).

    The lowest bucket begins at 0. What lies above the highest finite bound is only known to be at least that, and the
    bound is what is told.

    >>> quantile(Observed(count=10, total=30.0, up_to={2.0: 5, 4.0: 9}), 0.7)
    3.0
    >>> quantile(Observed(count=10, total=30.0, up_to={2.0: 5, 4.0: 9}), 0.99)
    4.0
    """
    rank = share * observed.count
    lower = below = 0.0
    for bound, up_to in observed.up_to.items():
        if up_to >= rank:
            return lower + (bound - lower) * (rank - below) / (up_to - below)
        lower, below = bound, max(below, up_to)
    return lower
