"""One page of one worker in the terms of a vocabulary: what it tells, and why it does not tell the rest.

>>> from dynamo_planner.engines.vllm import VLLM
>>> page = {"vllm:num_requests_running": {(): 4.0}, "vllm:num_requests_waiting": {(): -1.0}}
>>> reading = read_page(page, VLLM, at_s=0.0)
>>> reading.gauges, reading.unknown["waiting"]
({'running': 4.0}, 'vllm:num_requests_waiting is -1, which it cannot be')
>>> reading.unknown["isl"]
'vllm:request_prompt_tokens is not on its page'
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from dynamo_planner.engines.metric_kinds import Counter, Histogram, Mean, Metric
from dynamo_planner.engines.vocabulary import COUNTERS, GAUGES, QUANTITIES, Quantity, Vocabulary
from dynamo_planner.sources.aggregation.selection import (
    LARGEST,
    AbsentError,
    NothingNewError,
    UnknownQuantityError,
    counter,
    gauge,
    histogram,
    possible,
)
from dynamo_planner.sources.series import Labels, Page, Series

SHARE_TOLERANCE = 0.01
"""A share that is over 1 by no more than this is 1: what is measured at two moments may be."""

SHARES = ("kv_usage", "prefix_hit_rate")


@dataclass(frozen=True, slots=True)
class Observed:
    """What a histogram has observed since its process began: how many values, their sum, and how many of them were up
    to each bound (finite ones only). In the quantity's unit."""

    count: float
    total: float
    up_to: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class SinceRead:
    """What was counted since a page was last read, in items with the numbers ``first`` to ``last``."""

    name: str
    count: float
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Reading:
    """One page. ``unknown`` says of every quantity that is in none of the others why it is not.

    ``absent`` are those whose metrics are not there at all, ``unchanged`` those that are as they were, and ``via`` says
    by which name each was read.
    """

    at_s: float
    started_s: float | None
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, Series] = field(default_factory=dict)
    since_read: dict[str, SinceRead] = field(default_factory=dict)
    histograms: dict[str, dict[Labels, Observed]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    via: dict[str, str] = field(default_factory=dict)


def of_model(page: Page, label: str | None, model: str | None) -> Page:
    """The page without series of other models; those that do not say of which they are stay."""
    if label is None or model is None:
        return page
    wanted = (label, model.casefold())
    return {
        name: {
            labels: value
            for labels, value in series.items()
            if all(each != label or (each, said.casefold()) == wanted for each, said in labels)
        }
        for name, series in page.items()
    }


def read_page(page: Page, vocabulary: Vocabulary, at_s: float, unread: Mapping[str, str] | None = None) -> Reading:
    """The page in the terms of the vocabulary; ``unread`` says which of its pages could not be had, and why."""
    reading = Reading(at_s=at_s, started_s=_started(page, vocabulary))
    for quantity in QUANTITIES:
        if quantity not in vocabulary.quantities:
            reading.unknown[quantity] = vocabulary.cannot_tell.get(
                quantity, f"{vocabulary.engine} has no metric for it"
            )
    for quantity, metrics in vocabulary.quantities.items():
        why = _first_of(reading, page, quantity, metrics)
        if why:
            switch = switched_on_by(vocabulary.switches.get(quantity, "")) if quantity in reading.absent else ""
            reading.unknown[quantity] = "; ".join((why + switch, *(unread or {}).values()))
    _nothing_yet(reading, vocabulary)
    if unread:
        reading.absent.clear()
    return reading


def switched_on_by(switch: str) -> str:
    """How an engine is made to tell what it does not, as the end of a message; empty where nothing is to be done."""
    return f" (start it with {switch})" if switch else ""


def _first_of(reading: Reading, page: Page, quantity: Quantity, metrics: tuple[Metric, ...]) -> str:
    """Read the first metric that is on the page; say why, where none could be read."""
    looked_for: dict[str, None] = {}
    for metric in metrics:
        try:
            _read(reading, page, quantity, metric)
        except AbsentError as error:
            looked_for |= dict.fromkeys(error.names)
        except NothingNewError as error:
            reading.unchanged.add(quantity)
            return " and ".join((*([str(AbsentError(looked_for))] if looked_for else []), str(error)))
        except UnknownQuantityError as error:
            return str(error)
        else:
            return ""
    reading.absent.add(quantity)
    return str(AbsentError(looked_for))


def _nothing_yet(reading: Reading, vocabulary: Vocabulary) -> None:
    """Where no metric is there that comes with the first request, there was none."""
    coming = [quantity for quantity in vocabulary.with_first_request if quantity in vocabulary.quantities]
    if not coming or set(coming) - reading.absent:
        return
    for quantity in coming:
        del reading.unknown[quantity]
        if quantity in GAUGES:
            reading.gauges[quantity] = 0.0
        elif quantity in COUNTERS:
            reading.counters[quantity] = {}
        else:
            reading.histograms[quantity] = {}


def _started(page: Page, vocabulary: Vocabulary) -> float | None:
    times = [time for name in vocabulary.started_at for time in page.get(name, {}).values()]
    return max(times) if times and all(math.isfinite(time) for time in times) else None


def _read(reading: Reading, page: Page, quantity: str, metric: Metric) -> None:
    if isinstance(metric, Histogram):
        reading.via[quantity], samples = histogram(page, metric)
        reading.histograms[quantity] = _observed(reading.via[quantity], samples, metric.scale)
    elif isinstance(metric, Mean):
        reading.via[quantity], total = counter(page, metric.total)
        _, count = counter(page, metric.count)
        summed = Observed(count=sum(count.values()), total=sum(total.values()) * metric.scale, up_to={})
        reading.histograms[quantity] = {(): summed}
    elif isinstance(metric, Counter):
        if metric.numbered is not None:
            reading.since_read[quantity] = _since_read(page, metric, metric.numbered)
        else:
            reading.via[quantity], reading.counters[quantity] = counter(page, metric)
    else:
        value = gauge(page, metric)
        if quantity in SHARES and value > 1 + SHARE_TOLERANCE:
            raise UnknownQuantityError(f"{next(metric.samples())} is {value:g}, and a share is at most 1")
        reading.gauges[quantity] = min(value, 1.0) if quantity in SHARES else value


def _since_read(page: Page, metric: Counter, numbered: str) -> SinceRead:
    name, series = counter(page, metric)
    _, numbers = counter(page, Counter(names=(numbered,)))
    return SinceRead(name, sum(series.values()), first=min(numbers.values()), last=max(numbers.values()))


def _observed(name: str, samples: Mapping[str, Series], scale: float) -> dict[Labels, Observed]:
    counts, sums, buckets = (samples.get(suffix) for suffix in ("_count", "_sum", "_bucket"))
    bounds = _bounds(buckets or {})
    if counts is None:
        counts = {labels: up_to[math.inf] for labels, up_to in bounds.items() if math.inf in up_to}
    observed = {}
    for labels, count in counts.items():
        if sums is None or labels not in sums:
            raise UnknownQuantityError(f"{name}_sum is not on its page")
        observed[labels] = Observed(
            count=possible(f"{name}_count", count),
            total=possible(f"{name}_sum", sums[labels] * scale),
            up_to=_finite(bounds.get(labels, {}), scale),
        )
    return observed


def _bounds(buckets: Series) -> dict[Labels, dict[float, float]]:
    """The cumulative counts by upper bound, for each set of the other labels; without those that do not read."""
    bounds: dict[Labels, dict[float, float]] = {}
    for labels, value in buckets.items():
        others, bound = _without_bound(labels)
        if bound >= 0 and 0 <= value <= LARGEST:
            bounds.setdefault(others, {})[bound] = value
    return bounds


@lru_cache(maxsize=2**16)
def _without_bound(labels: Labels) -> tuple[Labels, float]:
    """The other labels of a bucket, and its upper bound; NaN where that does not read."""
    others = tuple(pair for pair in labels if pair[0] != "le")
    try:
        return others, float(dict(labels)["le"])
    except (KeyError, ValueError):
        return others, math.nan


def _finite(up_to: Mapping[float, float], scale: float) -> dict[float, float]:
    return {bound * scale: count for bound, count in sorted(up_to.items()) if bound <= LARGEST}
