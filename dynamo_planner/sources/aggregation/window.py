"""What workers did over the last seconds, from samples at irregular times, while workers come and go.

A window is made of whole intervals between samples: those whose middle lies in it, so that jitter of the schedule
takes none in or out. The newest interval of a worker that answered is always in it, however long it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.share import cumulative_shares
from dynamo_planner.engines.vocabulary import COUNTERS, DISTRIBUTIONS
from dynamo_planner.sources.aggregation.arrivals import (
    Flow,
    UncountedError,
    add_up,
    arrivals_of,
    lower_bound,
    needs_first_tokens,
    sum_flows,
    total_flow,
)
from dynamo_planner.sources.aggregation.increase import (
    WorkerInterval,
    carried_over,
    interval_between,
    interval_since_start,
    sum_histograms,
)
from dynamo_planner.sources.aggregation.process import (
    ANOTHER_PROCESS,
    WHY,
    Continuity,
    continuity,
    goes_on,
    growth,
    has_fallen,
    is_beyond_belief,
    were_elsewhere,
)
from dynamo_planner.sources.aggregation.sample import HistogramData, WorkerSample

QUANTILES = (0.5, 0.9, 0.99)

SHARED_WINDOWS = 10
"""For how many windows nothing is believed of an address at which counters fell to those of a process of before."""

MAX_REMEMBERED = 4
"""How many processes that seem to have ended are remembered, in case that they answer again."""


class WorkerHistory:
    """One worker over time: its last sample, and its intervals as far back as a window reaches.

    Attributes:
        name: the worker's name.
        listed: whether it was among the workers to observe at the last turn.
        observed: whether it answered at the last turn.
        last: its last sample, ``None`` before the first.
        doubt: why nothing that it reports is its own, where another process answers at its address; else empty.
    """

    def __init__(self, name: str, window_s: float) -> None:
        self.name = name
        self.observed = False
        self.listed = True
        self.last: WorkerSample | None = None
        self.doubt = ""
        self._ended: list[WorkerSample] = []
        self._growth: Mapping[str, float] | None = None
        self._shared_until_s = -math.inf
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
            self._intervals = [*self.recent(sample.at_s), self._interval(last, sample)]
        elif started_s is not None and known_from_s < started_s < sample.at_s:
            self._intervals = [interval_since_start(sample, started_s)]
        else:
            self._intervals = []
        self.last = sample
        self.doubt = ANOTHER_PROCESS if any(each.doubt == ANOTHER_PROCESS for each in self._intervals) else ""

    def _interval(self, last: WorkerSample, sample: WorkerSample) -> WorkerInterval:
        """The interval up to a sample, unless a process goes on that seemed to have ended, or one that was not seen."""
        fallen, grown = has_fallen(last, sample), growth(last, sample)
        how = continuity(last, sample, fallen=fallen)
        if how is not Continuity.RESTARTED:
            if any(goes_on(earlier, last, sample, self._growth) for earlier in self._ended):
                if fallen:
                    self._shared_until_s = sample.at_s + SHARED_WINDOWS * self._window_s
                how = Continuity.OTHER
            elif sample.at_s < self._shared_until_s:
                how = Continuity.OTHER
            elif how is Continuity.SAME and sample.started_s is None and is_beyond_belief(last, sample, self._growth):
                how = Continuity.UNCLEAR
            elif how is Continuity.SAME and were_elsewhere(last, sample):
                how = Continuity.OTHER
        self._growth = None if fallen else grown
        self._ended = [earlier for earlier in self._ended if has_fallen(earlier, sample)]
        if how in WHY:
            self._ended = [*self._ended, last][-MAX_REMEMBERED:]
        return interval_between(last, sample, how)

    def recent(self, at_s: float) -> list[WorkerInterval]:
        """The intervals in the window that ends at ``at_s``."""
        twice_horizon_s = 2 * (at_s - self._window_s)
        return [
            interval
            for interval in self._intervals
            if interval.end_s == at_s or interval.start_s + interval.end_s >= twice_horizon_s
        ]


RATES = ("rejections", "aborts", "cancellations", "preemptions")
"""Counters that are rates as they are; arrivals are made of several."""


@dataclass(frozen=True, slots=True)
class WindowTotals:
    """What several workers did over a window, summed. What is not there is unknown.

    Args:
        span_s: how long the window really is, in seconds.
        rates: events per second, of ``arrivals`` and those in ``RATES``; unknown where that of one of the workers is.
        counters: increases by quantity.
        histograms: what was observed, by quantity.
        doubt: why the counters of a worker are not believed; empty where all are.
        uncounted: which requests of the pool are not counted; empty where all are.
        at_least: why there may have been more arrivals; empty where that is not so.
    """

    span_s: float
    rates: Mapping[str, float]
    counters: Mapping[str, float]
    histograms: Mapping[str, HistogramData]
    doubt: str = ""
    uncounted: str = ""
    at_least: str = ""


def window_totals(workers: Iterable[WorkerHistory], at_s: float) -> WindowTotals | None:
    """The window that ends at ``at_s``; ``None`` where no worker has an interval in it."""
    recent = [(worker, intervals) for worker in workers if (intervals := worker.recent(at_s))]
    if not recent:
        return None
    start_s = min(intervals[0].start_s for _, intervals in recent)
    rates: dict[str, float] = {}
    uncounted = ""
    flows = [sum_flows(interval.flow for interval in intervals) for _, intervals in recent]
    counts = {name: [add_up(each.counters.get(name) for each in own) for _, own in recent] for name in RATES}
    try:
        counts["arrivals"] = arrivals_of_each([worker.name for worker, _ in recent], flows)
    except UncountedError as error:
        uncounted = str(error)
    for name, each in counts.items():
        known = [
            count / _span_s(worker, intervals, start_s, at_s)
            for (worker, intervals), count in zip(recent, each, strict=True)
            if count is not None
        ]
        if len(known) == len(each):
            rates[name] = max(0.0, sum(known))
    believed = [intervals for _, intervals in recent if not any(interval.doubt for interval in intervals)]
    every = [interval for intervals in believed for interval in intervals]
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
    doubts = (_named(interval.doubt, worker.name) for worker, own in recent for interval in own if interval.doubt)
    return WindowTotals(
        at_s - start_s,
        rates,
        counters,
        histograms,
        doubt=next(doubts, ""),
        uncounted=uncounted,
        at_least=lower_bound(flows),
    )


def arrivals_of_each(names: Sequence[str], flows: Sequence[Flow]) -> list[float | None]:
    """The arrivals of each worker. Raises :class:`UncountedError`, also where only all of them together show it."""
    together = total_flow(flows)
    by_first_tokens = needs_first_tokens(together)
    arrivals = []
    for name, flow in zip(names, flows, strict=True):
        try:
            arrivals.append(arrivals_of(flow, by_first_tokens=by_first_tokens))
        except UncountedError as error:
            raise UncountedError(_named(str(error), name)) from None
    arrivals_of(together)
    return arrivals


def _named(why: str, worker: str) -> str:
    return f"{why} ({worker})" if worker else why


def _span_s(worker: WorkerHistory, intervals: Sequence[WorkerInterval], start_s: float, at_s: float) -> float:
    """The seconds for which the counts of one worker are known.

    Before its process began and after it was taken off the list it had none, which is known as well.
    """
    begin_s = start_s if intervals[0].since_start else intervals[0].start_s
    return (intervals[-1].end_s if worker.listed else at_s) - begin_s


def to_dist(data: HistogramData, *, with_buckets: bool = False) -> Dist | None:
    """Mean, count and, where there are buckets, quantiles (and the buckets); ``None`` where nothing was observed."""
    mean = data.total / data.count if data.count > 0 else math.inf
    if math.isinf(mean):
        return None
    quantiles = {share: quantile(data, share) for share in QUANTILES} if data.buckets else {}
    buckets = cumulative_shares(data.buckets, data.count) if with_buckets else {}
    return Dist(mean=mean, count=data.count, quantiles=quantiles, buckets=buckets)


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
