"""What happened between two samples of a worker: increases of counters and histograms, and the flow of requests.

A process that began since the last sample began at zero, whether or not its counters have already overtaken the old
ones. Where it is not certain which process answered, nothing of the interval is known (``process``).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from dynamo_planner.sources.aggregation.arrivals import Flow
from dynamo_planner.sources.aggregation.process import WHY, Continuity
from dynamo_planner.sources.aggregation.sample import EMPTY_HISTOGRAM, HistogramData, WorkerSample
from dynamo_planner.sources.series import Labels, Series


@dataclass(frozen=True, slots=True)
class WorkerInterval:
    """What one worker did between two samples.

    A counter or histogram that is not there is unknown.

    Args:
        start_s: its start, in Unix seconds.
        end_s: its end, in Unix seconds.
        since_start: whether it begins with the worker's process, and not with a sample.
        flow: the requests that came, ended and waited.
        counters: increases by quantity.
        histograms: what was observed in it, by quantity.
        doubt: why it is not known what happened, where that is so; else empty.
    """

    start_s: float
    end_s: float
    since_start: bool
    flow: Flow
    counters: Mapping[str, float]
    histograms: Mapping[str, HistogramData]
    doubt: str = ""


def interval_between(before: WorkerSample, after: WorkerSample, how: Continuity) -> WorkerInterval:
    """The interval from one sample of a worker to the next, which continues it in this way."""
    if how in WHY:
        return WorkerInterval(
            before.at_s, after.at_s, since_start=False, flow=Flow(), counters={}, histograms={}, doubt=WHY[how]
        )
    if how is Continuity.RESTARTED:
        before = _at_start(after, before.at_s)
    return _interval(before, after, since_start=False)


def interval_since_start(first: WorkerSample, started_s: float) -> WorkerInterval:
    """The interval from the beginning of a process to its first sample: all that it has counted."""
    return _interval(_at_start(first, started_s), first, since_start=True)


def carried_over(before: WorkerSample, after: WorkerSample) -> WorkerSample:
    """The later sample, with the earlier one's values of quantities that have nothing new to report.

    Where another reader took items between the two, the later sample says so and the quantity is unknown.
    """
    gauges = {quantity: before.gauges[quantity] for quantity in after.unchanged if quantity in before.gauges}
    none_since = {
        quantity: replace(then, count=0.0, first=then.last + 1)
        for quantity, then in before.read_once.items()
        if quantity in after.unchanged
    }
    unknown = {quantity: why for quantity, why in after.unknown.items() if quantity not in gauges | none_since}
    for quantity, now in after.read_once.items():
        then = before.read_once.get(quantity)
        if then is not None and now.first > then.last + 1:
            unknown[quantity] = f"{now.name}: another reader got {then.last + 1:g} to {now.first - 1:g}"
    return replace(
        after, gauges={**after.gauges, **gauges}, read_once={**after.read_once, **none_since}, unknown=unknown
    )


def _at_start(sample: WorkerSample, at_s: float) -> WorkerSample:
    """What the page would have reported when the process began: nothing in it, and nothing counted."""
    return WorkerSample(
        at_s=at_s,
        started_s=sample.started_s,
        gauges={"running": 0.0, "waiting": 0.0, "inside": 0.0},
        counters={quantity: {} for quantity in sample.counters},
        histograms={quantity: {} for quantity in sample.histograms},
    )


def _interval(before: WorkerSample, after: WorkerSample, *, since_start: bool) -> WorkerInterval:
    counters = {
        quantity: _increase(before.counters.get(quantity, {}), series)
        for quantity, series in after.counters.items()
        if _comparable(before, after, quantity, before.counters)
    }
    counters |= {quantity: now.count for quantity, now in after.read_once.items() if quantity not in after.unknown}
    histograms = {
        quantity: _increase_of_histograms(before.histograms.get(quantity, {}), series)
        for quantity, series in after.histograms.items()
        if _comparable(before, after, quantity, before.histograms)
    }
    return WorkerInterval(
        start_s=before.at_s,
        end_s=after.at_s,
        since_start=since_start,
        flow=_flow(before, after, counters),
        counters=counters,
        histograms=histograms,
    )


def _comparable(before: WorkerSample, after: WorkerSample, quantity: str, known: Container[str]) -> bool:
    """Whether both report the same metric. One that was not on the page before began at zero since."""
    if quantity in before.absent and quantity not in known:
        return True
    by_names = before.metric_names.get(quantity), after.metric_names.get(quantity)
    return quantity in known and (None in by_names or by_names[0] == by_names[1])


def _flow(before: WorkerSample, after: WorkerSample, counters: Mapping[str, float]) -> Flow:
    return Flow(
        arrived=counters.get("arrivals"),
        ended=counters.get("completions"),
        aborted=counters.get("aborts", 0.0),
        inside=_change(before.inside, after.inside),
        first_tokens=counters.get("first_tokens"),
        waiting=_change(before.gauges.get("waiting"), after.gauges.get("waiting")),
        preemptions=counters.get("preemptions"),
        running=max(each.gauges.get("running", 0.0) for each in (before, after)),
        waited=max(each.gauges.get("waiting", 0.0) for each in (before, after)),
    )


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _increase(before: Series, after: Series) -> float:
    """The increase over all label sets; one that was not there before began at zero since."""
    return sum(value - before.get(labels, 0.0) for labels, value in after.items())


def _increase_of_histograms(
    before: Mapping[Labels, HistogramData], after: Mapping[Labels, HistogramData]
) -> HistogramData:
    """What was observed over all label sets; one that was not there before began at zero since."""
    return sum_histograms(
        _histogram_increase(before.get(labels, EMPTY_HISTOGRAM), now) for labels, now in after.items()
    )


def _histogram_increase(before: HistogramData, now: HistogramData) -> HistogramData:
    """What a histogram observed between two samples."""
    return HistogramData(
        count=now.count - before.count,
        total=max(0.0, now.total - before.total),
        buckets={
            bound: count - before.buckets.get(bound, 0.0)
            for bound, count in now.buckets.items()
            if bound in before.buckets or before.count == 0
        },
    )


def sum_histograms(parts: Iterable[HistogramData]) -> HistogramData:
    """Several histograms as one, at the bounds that all non-empty ones have.

    >>> sum_histograms([HistogramData(2, 6.0, {1: 0, 5: 2}), HistogramData(1, 4.0, {5: 1, 10: 1}), EMPTY_HISTOGRAM])
    HistogramData(count=3.0, total=10.0, buckets={5: 3.0})
    """
    full = [part for part in parts if part.count > 0]
    if len(full) == 1:
        return full[0]
    bounds = set.intersection(*(set(part.buckets) for part in full)) if full else set()
    return HistogramData(
        count=sum((part.count for part in full), 0.0),
        total=sum((part.total for part in full), 0.0),
        buckets={bound: sum((part.buckets[bound] for part in full), 0.0) for bound in sorted(bounds)},
    )
