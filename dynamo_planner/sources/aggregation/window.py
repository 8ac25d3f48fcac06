"""What workers did over the last seconds, from samples at irregular times, while workers come and go.

A window is made of whole intervals between samples: those whose middle lies in it, so that jitter of the schedule
takes none in or out. The newest interval of a worker that answered is always in it, however long it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from dynamo_planner.core.metrics import Dist
from dynamo_planner.engines.vocabulary import COUNTERS, DISTRIBUTIONS
from dynamo_planner.sources.aggregation.increase import (
    WorkerInterval,
    carried_over,
    interval_between,
    interval_since_start,
    sum_histograms,
)
from dynamo_planner.sources.aggregation.sample import HistogramData, WorkerSample

QUANTILES = (0.5, 0.9, 0.99)


class WorkerHistory:
    """One worker over time: its last sample, and its intervals as far back as a window reaches.

    Attributes:
        name: the worker's name.
        listed: whether it was among the workers to observe at the last turn.
        observed: whether it answered at the last turn.
        last: its last sample, ``None`` before the first.
    """

    def __init__(self, name: str, window_s: float) -> None:
        self.name = name
        self.observed = False
        self.listed = True
        self.last: WorkerSample | None = None
        self._window_s = window_s
        self._intervals: list[WorkerInterval] = []

    @classmethod
    def unlisted(cls, name: str, window_s: float, interval: WorkerInterval) -> Self:
        """A worker that is not listed any more, and whose last interval this is."""
        history = cls(name, window_s)
        history.listed = False
        history._intervals = [interval]
        return history

    def add(self, sample: WorkerSample, previous_s: float | None) -> None:
        """Add a new sample; ``previous_s`` is the time of the turn before, whether or not this worker answered then.

        What a worker counted before its first sample is known only if its process began since ``previous_s``, or
        within the window. A worker that did not answer for longer than both starts anew.
        """
        horizon_s = sample.at_s - self._window_s
        known_from_s = horizon_s if previous_s is None else min(previous_s, horizon_s)
        last, started_s = self.last, sample.started_s
        if last is not None and last.at_s >= known_from_s:
            if sample.at_s <= last.at_s:
                return
            sample = carried_over(last, sample)
            self._intervals = [*self.recent(sample.at_s), interval_between(last, sample)]
        elif started_s is not None and known_from_s < started_s < sample.at_s:
            self._intervals = [interval_since_start(sample, started_s)]
        else:
            self._intervals = []
        self.last = sample

    def recent(self, at_s: float) -> list[WorkerInterval]:
        """The intervals in the window that ends at ``at_s``."""
        twice_horizon_s = 2 * (at_s - self._window_s)
        return [
            interval
            for interval in self._intervals
            if interval.end_s == at_s or interval.start_s + interval.end_s >= twice_horizon_s
        ]


RATES = ("arrivals", "rejections", "preemptions")


@dataclass(frozen=True, slots=True)
class WindowTotals:
    """What several workers did over a window, summed. What is not there is unknown.

    Args:
        span_s: how long the window really is, in seconds.
        rates: events per second, of those in ``RATES``; unknown where the rate of one of the workers is.
        counters: increases by quantity.
        histograms: what was observed, by quantity.
    """

    span_s: float
    rates: Mapping[str, float]
    counters: Mapping[str, float]
    histograms: Mapping[str, HistogramData]


def window_totals(workers: Iterable[WorkerHistory], at_s: float) -> WindowTotals | None:
    """The window that ends at ``at_s``; ``None`` where no worker has an interval in it."""
    recent = [(worker, intervals) for worker in workers if (intervals := worker.recent(at_s))]
    if not recent:
        return None
    start_s = min(intervals[0].start_s for _, intervals in recent)
    rates: dict[str, float] = {}
    for name in RATES:
        each = [_rate(name, worker, intervals, start_s, at_s) for worker, intervals in recent]
        known = [rate for rate in each if rate is not None]
        if len(known) == len(each):
            rates[name] = max(0.0, sum(known))
    every = [interval for _, intervals in recent for interval in intervals]
    counters: dict[str, float] = {}
    for counter in COUNTERS:
        increases = [interval.counters[counter] for interval in every if counter in interval.counters]
        if increases:
            counters[counter] = sum(increases)
    histograms: dict[str, HistogramData] = {}
    for histogram in DISTRIBUTIONS:
        parts = [interval.histograms[histogram] for interval in every if histogram in interval.histograms]
        if parts:
            histograms[histogram] = sum_histograms(parts)
    return WindowTotals(span_s=at_s - start_s, rates=rates, counters=counters, histograms=histograms)


def _rate(
    name: str, worker: WorkerHistory, intervals: list[WorkerInterval], start_s: float, at_s: float
) -> float | None:
    """Events per second at one worker, over the time for which they are known.

    Before its process began and after it was taken off the list it had none, which is known as well.
    """
    begin_s = start_s if intervals[0].since_start else intervals[0].start_s
    end_s = intervals[-1].end_s if worker.listed else at_s
    count = 0.0
    for interval in intervals:
        events = interval.arrivals if name == "arrivals" else interval.counters.get(name)
        if events is None:
            return None
        count += events
    return count / (end_s - begin_s)


def to_dist(data: HistogramData) -> Dist | None:
    """Mean, count and, where there are buckets, quantiles; ``None`` where nothing was observed."""
    mean = data.total / data.count if data.count > 0 else math.inf
    if math.isinf(mean):
        return None
    quantiles = {share: quantile(data, share) for share in QUANTILES} if data.buckets else {}
    return Dist(mean=mean, count=data.count, quantiles=quantiles)


def quantile(data: HistogramData, share: float) -> float:
    """The quantile by linear interpolation within its bucket, as Prometheus has it (``histogram_quantile``, 2.x).

    The lowest bucket begins at 0. A quantile above the highest finite bound is only known to be at least that bound,
    which is what is returned.

    >>> quantile(HistogramData(count=10, total=30.0, buckets={2.0: 5, 4.0: 9}), 0.7)
    3.0
    >>> quantile(HistogramData(count=10, total=30.0, buckets={2.0: 5, 4.0: 9}), 0.99)
    4.0
    """
    rank = share * data.count
    lower = below = 0.0
    for bound, cumulative in data.buckets.items():
        if cumulative >= rank:
            return lower + (bound - lower) * (rank - below) / (cumulative - below)
        lower, below = bound, max(below, cumulative)
    return lower
