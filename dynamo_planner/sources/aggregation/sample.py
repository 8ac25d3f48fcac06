"""One page of one worker in an engine's vocabulary: what it reports, and why it does not report the rest.

>>> from dynamo_planner.engines.vllm import VLLM
>>> page = {"vllm:num_requests_running": {(): 4.0}, "vllm:num_requests_waiting": {(): -1.0}}
>>> sample = read_page(page, VLLM, at_s=0.0)
>>> sample.gauges, sample.unknown["waiting"]
({'running': 4.0}, 'vllm:num_requests_waiting is -1, which it cannot be')
>>> sample.unknown["isl"]
'vllm:request_prompt_tokens is not on its page'
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from dynamo_planner.engines.metric_kinds import Counter, Histogram, Mean, Metric, Ratio
from dynamo_planner.engines.vocabulary import COUNTERS, GAUGES, QUANTITIES, Quantity, Vocabulary
from dynamo_planner.sources.aggregation.selection import (
    MAX_PLAUSIBLE,
    AbsentError,
    NoNewItemsError,
    UnknownQuantityError,
    counter_series,
    gauge_value,
    histogram_series,
    require_plausible,
)
from dynamo_planner.sources.series import Labels, Page, Series

SHARE_TOLERANCE = 0.01
"""By how much a share may exceed 1 and be taken for 1: its parts may be measured at two moments."""

JSON_PAGES = ("/slots", "/v1/loads")
"""Pages that have only JSON."""

SHARES = ("kv_usage", "prefix_hit_rate", "awake")


@dataclass(frozen=True, slots=True)
class HistogramData:
    """What a histogram observed, since its process began or within an interval.

    Args:
        count: number of values.
        total: their sum, in the quantity's unit.
        buckets: for each finite upper bound, in the quantity's unit, the number of values up to it (cumulative).
    """

    count: float
    total: float
    buckets: Mapping[float, float]


EMPTY_HISTOGRAM = HistogramData(count=0.0, total=0.0, buckets={})


@dataclass(frozen=True, slots=True)
class ReadOnceCount:
    """What was counted since a page was last read, of a list that each reader empties.

    Args:
        name: the metric, for messages.
        count: its sum over the items.
        first: the number of the first item.
        last: the number of the last item.
    """

    name: str
    count: float
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class WorkerSample:
    """What one worker reported at one moment.

    Args:
        at_s: when, in Unix seconds.
        started_s: when its process began, in Unix seconds; ``None`` where unknown.
        gauges: values as they were, by quantity.
        counters: totals since the process began, by quantity and series.
        read_once: counts since the last read, by quantity.
        histograms: what was observed since the process began, by quantity and series.
        unknown: for each quantity that is in none of these, why.
        absent: quantities none of whose metrics is on the page.
        unchanged: quantities whose list has no new items, so that they are as they were.
        metric_names: for counters and histograms, the name under which each was read.
        transient: labels whose series may go while the process lives.
    """

    at_s: float
    started_s: float | None
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, Series] = field(default_factory=dict)
    read_once: dict[str, ReadOnceCount] = field(default_factory=dict)
    histograms: dict[str, dict[Labels, HistogramData]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    metric_names: dict[str, str] = field(default_factory=dict)
    transient: tuple[str, ...] = ()

    @property
    def inside(self) -> float | None:
        """The requests that are running or waiting; ``None`` where unknown."""
        if "inside" in self.gauges:
            return self.gauges["inside"]
        running, waiting = self.gauges.get("running"), self.gauges.get("waiting")
        return None if running is None or waiting is None else running + waiting


def read_page(
    page: Page,
    vocabulary: Vocabulary,
    at_s: float,
    failed_pages: Mapping[str, str] | None = None,
    others: str = "",
) -> WorkerSample:
    """Read a page in an engine's vocabulary.

    Args:
        page: the series of all pages of the worker.
        vocabulary: for the worker's role.
        at_s: when it was read, in Unix seconds.
        failed_pages: for each page that could not be fetched, why.
        others: which models there are instead of the one whose series the page has; empty where it has them.
    """
    sample = WorkerSample(at_s=at_s, started_s=_started(page, vocabulary), transient=vocabulary.transient)
    for quantity in QUANTITIES:
        if quantity not in vocabulary.quantities:
            sample.unknown[quantity] = vocabulary.cannot_tell.get(quantity, f"{vocabulary.engine} has no metric for it")
    for quantity, metrics in vocabulary.quantities.items():
        why = _first_of(sample, page, quantity, metrics)
        if why:
            switch = start_hint(vocabulary.switches.get(quantity, "")) if quantity in sample.absent else ""
            failed = _failed_of(metrics, failed_pages) if failed_pages else ()
            sample.unknown[quantity] = others or "; ".join((why + switch, *failed))
    if failed_pages or others:
        sample.absent.clear()
    _zero_before_first_request(sample, vocabulary)
    return sample


def _failed_of(metrics: tuple[Metric, ...], failed_pages: Mapping[str, str]) -> list[str]:
    """Why pages could not be fetched that may have these metrics: not those of JSON that have others alone."""
    own = {name.partition(":")[0] for metric in metrics for name in metric.samples() if name.startswith("/")}
    return [why for path, why in failed_pages.items() if path in own or path not in JSON_PAGES]


def start_hint(switch: str) -> str:
    """How an engine is made to report a quantity, as the end of a message; empty where there is no such switch."""
    return f" (start it with {switch})" if switch else ""


def _first_of(sample: WorkerSample, page: Page, quantity: Quantity, metrics: tuple[Metric, ...]) -> str:
    """Read the first metric that is on the page. Returns why none could be read, or an empty text."""
    expected_names: dict[str, None] = {}
    for metric in metrics:
        try:
            _read(sample, page, quantity, metric)
        except AbsentError as error:
            expected_names |= dict.fromkeys(error.names)
        except NoNewItemsError as error:
            sample.unchanged.add(quantity)
            return " and ".join((*([str(AbsentError(expected_names))] if expected_names else []), str(error)))
        except UnknownQuantityError as error:
            return str(error)
        else:
            return ""
    sample.absent.add(quantity)
    return str(AbsentError(expected_names))


def _zero_before_first_request(sample: WorkerSample, vocabulary: Vocabulary) -> None:
    """Set to zero what appears with the first request, where none of it is on the page: there was none yet.

    A page of an engine that has to be told to report them declares them even before, so that none of them says nothing.
    """
    coming = [quantity for quantity in vocabulary.with_first_request if quantity in vocabulary.quantities]
    if not coming or set(coming) - sample.absent or not vocabulary.switches.keys().isdisjoint(coming):
        return
    for quantity in coming:
        del sample.unknown[quantity]
        if quantity in GAUGES:
            sample.gauges[quantity] = 0.0
        elif quantity in COUNTERS:
            sample.counters[quantity] = {}
        else:
            sample.histograms[quantity] = {}


def _started(page: Page, vocabulary: Vocabulary) -> float | None:
    times = [time for name in vocabulary.started_at for time in page.get(name, {}).values()]
    return max(times) if times and all(math.isfinite(time) for time in times) else None


def _read(sample: WorkerSample, page: Page, quantity: str, metric: Metric) -> None:
    if isinstance(metric, Histogram):
        sample.metric_names[quantity], samples = histogram_series(page, metric)
        sample.histograms[quantity] = _histogram_data(sample.metric_names[quantity], samples, metric.scale)
    elif isinstance(metric, Mean):
        sample.metric_names[quantity], total = counter_series(page, metric.total)
        _, count = counter_series(page, metric.count)
        summed = HistogramData(count=sum(count.values()), total=sum(total.values()) * metric.scale, buckets={})
        sample.histograms[quantity] = {(): summed}
    elif isinstance(metric, Counter):
        if metric.numbered is not None:
            sample.read_once[quantity] = _read_once(page, metric, metric.numbered)
        else:
            sample.metric_names[quantity], sample.counters[quantity] = counter_series(page, metric)
    else:
        value = gauge_value(page, metric)
        if quantity in SHARES and value > 1 + SHARE_TOLERANCE:
            why = (metric.above_one if isinstance(metric, Ratio) else "") or above_one(value)
            raise UnknownQuantityError(f"{next(metric.samples())} is {value:g}, and a share is at most 1: {why}")
        sample.gauges[quantity] = min(value, 1.0) if quantity in SHARES else value


def above_one(value: float) -> str:
    """What a share above 1 may be, and what to do about it."""
    if value > 100:
        return "it counts something else"
    return "if it is in percent, give it a scale of 0.01 in a vocabulary of your own (engine)"


def _read_once(page: Page, metric: Counter, numbered: str) -> ReadOnceCount:
    name, series = counter_series(page, metric)
    _, numbers = counter_series(page, Counter(names=(numbered,)))
    return ReadOnceCount(name, sum(series.values()), first=min(numbers.values()), last=max(numbers.values()))


def _histogram_data(name: str, samples: Mapping[str, Series], scale: float) -> dict[Labels, HistogramData]:
    counts, sums, buckets = (samples.get(suffix) for suffix in ("_count", "_sum", "_bucket"))
    bounds = _bounds(buckets or {})
    if counts is None:
        counts = {labels: buckets[math.inf] for labels, buckets in bounds.items() if math.inf in buckets}
    found = {}
    for labels, count in counts.items():
        if sums is None or labels not in sums:
            raise UnknownQuantityError(f"{name}_sum is not on its page")
        found[labels] = HistogramData(
            count=require_plausible(f"{name}_count", count),
            total=require_plausible(f"{name}_sum", sums[labels] * scale),
            buckets=_finite(bounds.get(labels, {}), scale),
        )
    return found


def _bounds(buckets: Series) -> dict[Labels, dict[float, float]]:
    """The cumulative counts by upper bound, for each set of the other labels; without implausible ones."""
    bounds: dict[Labels, dict[float, float]] = {}
    for labels, value in buckets.items():
        others, bound = _without_bound(labels)
        if bound >= 0 and 0 <= value <= MAX_PLAUSIBLE:
            of_others = bounds.get(others)
            if of_others is None:
                of_others = bounds[others] = {}
            if bound not in of_others:  # the same bound may be written in two ways: 1 and 1.0
                of_others[bound] = value
    return bounds


@lru_cache(maxsize=2**16)
def _without_bound(labels: Labels) -> tuple[Labels, float]:
    """The other labels of a bucket, and its upper bound; NaN where it is not a number."""
    others = tuple(pair for pair in labels if pair[0] != "le")
    try:
        return others, float(dict(labels)["le"])
    except (KeyError, ValueError):
        return others, math.nan


def _finite(buckets: Mapping[float, float], scale: float) -> dict[float, float]:
    return {bound * scale: count for bound, count in sorted(buckets.items()) if bound <= MAX_PLAUSIBLE}
