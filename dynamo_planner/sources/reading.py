"""One page of one worker in the terms of a vocabulary: what it tells, and why it does not tell the rest.

>>> from dynamo_planner.sources.exposition import parse_page
>>> from dynamo_planner.sources.vllm import VLLM
>>> page = parse_page("vllm:num_requests_running 4\\nvllm:num_requests_waiting -1\\n", VLLM.names())
>>> reading = read_page(page, VLLM, at_s=0.0)
>>> reading.gauges, reading.unknown["waiting"]
({'running': 4.0}, 'vllm:num_requests_waiting is -1, which it cannot be')
>>> reading.unknown["isl"]
'vllm:request_prompt_tokens is not on its page'
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dynamo_planner.sources.exposition import Labels, Page, Series
from dynamo_planner.sources.vocabulary import (
    HISTOGRAM_SUFFIXES,
    QUANTITIES,
    Counter,
    Gauge,
    Histogram,
    Info,
    Metric,
    Vocabulary,
)

SHARE_TOLERANCE = 0.01
"""A share that is over 1 by no more than this is 1: what is measured at two moments may be."""

LARGEST = 1e18
"""No count, sum of tokens or sum of times in a worker's life gets here; a value that does is unknown."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What a histogram has observed since its process began: how many values, their sum, and how many of them were up
    to each bound (finite ones only). In the quantity's unit."""

    count: float
    total: float
    up_to: Mapping[float, float]


@dataclass(frozen=True, slots=True)
class Reading:
    """One page. ``unknown`` says of every quantity that is in none of the others why it is not."""

    at_s: float
    started_s: float | None
    gauges: dict[str, float] = field(default_factory=dict)
    counters: dict[str, Series] = field(default_factory=dict)
    histograms: dict[str, dict[Labels, Observed]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


class UnknownQuantityError(Exception):
    """A page does not tell a quantity; the message says why."""


def read_page(page: Page, vocabulary: Vocabulary, at_s: float) -> Reading:
    """The page in the terms of the vocabulary. Raises :class:`ValueError` where it has nothing of it."""
    if not page.keys() - vocabulary.started_at:
        raise ValueError(f"its page has none of the metrics of {vocabulary.engine}")
    reading = Reading(at_s=at_s, started_s=_started(page, vocabulary))
    for quantity in QUANTITIES:
        if quantity not in vocabulary.quantities:
            reading.unknown[quantity] = f"{vocabulary.engine} has no metric for it"
    for quantity, metric in vocabulary.quantities.items():
        try:
            _read(reading, page, quantity, metric)
        except UnknownQuantityError as why:
            reading.unknown[quantity] = str(why)
    return reading


def _read(reading: Reading, page: Page, quantity: str, metric: Metric) -> None:
    if isinstance(metric, Histogram):
        reading.histograms[quantity] = _histogram(page, metric)
    elif isinstance(metric, Counter):
        name = _name_on(page, metric, or_declared=True)
        reading.counters[quantity] = {labels: _possible(name, value) for labels, value in page[name].items()}
    else:
        reading.gauges[quantity] = _gauge(page, metric, share=quantity == "kv_usage")


def _started(page: Page, vocabulary: Vocabulary) -> float | None:
    times = [time for name in vocabulary.started_at for time in page.get(name, {}).values()]
    return max(times) if times and all(math.isfinite(time) for time in times) else None


def _name_on(page: Page, metric: Metric, suffixes: Sequence[str] = ("",), *, or_declared: bool = False) -> str:
    """The newest name of a metric that has samples on the page, or else, if that will do, that the page declares."""
    for name in metric.names:
        if any(page.get(name + suffix) for suffix in suffixes):
            return name
    for name in metric.names:
        if or_declared and any(name + suffix in page for suffix in suffixes):
            return name
    raise UnknownQuantityError(f"{' or '.join(metric.names)} is not on its page")


def _possible(name: str, value: float) -> float:
    """A value that can be: a number, not negative, and not beyond all measure."""
    if not 0 <= value <= LARGEST:
        raise UnknownQuantityError(f"{name} is {value:g}, which it cannot be")
    return value


def _gauge(page: Page, metric: Gauge | Info, *, share: bool) -> float:
    name = _name_on(page, metric)
    if isinstance(metric, Info):
        return _possible(name, sum(_product(name, labels, metric.labels) for labels in page[name]))
    values = [_possible(name, value) * metric.scale for value in page[name].values()]
    value = sum(values) / (len(values) if metric.across == "mean" else 1)
    if share and 1 < value <= 1 + SHARE_TOLERANCE:
        return 1.0
    if share and value > 1:
        raise UnknownQuantityError(f"{name} is {value:g}, and a share is at most 1")
    return _possible(name, value)


def _product(name: str, labels: Labels, wanted: Iterable[str]) -> float:
    given = dict(labels)
    product = 1.0
    for label in wanted:
        try:
            product *= float(given[label])
        except (KeyError, ValueError):
            raise UnknownQuantityError(f"{name} has {label}={given.get(label)!r}, which is no number") from None
    return product


def _histogram(page: Page, metric: Histogram) -> dict[Labels, Observed]:
    name = _name_on(page, metric, HISTOGRAM_SUFFIXES, or_declared=True)
    counts, sums, buckets = (page.get(name + suffix) for suffix in HISTOGRAM_SUFFIXES)
    bounds = _bounds(buckets or {})
    if counts is None:
        counts = {labels: up_to[math.inf] for labels, up_to in bounds.items() if math.inf in up_to}
    observed = {}
    for labels, count in counts.items():
        if sums is None or labels not in sums:
            raise UnknownQuantityError(f"{name}_sum is not on its page")
        observed[labels] = Observed(
            count=_possible(f"{name}_count", count),
            total=_possible(f"{name}_sum", sums[labels] * metric.scale),
            up_to=_finite(bounds.get(labels, {}), metric.scale),
        )
    return observed


def _bounds(buckets: Series) -> dict[Labels, dict[float, float]]:
    """The cumulative counts by upper bound, for each set of the other labels; without those that do not read."""
    bounds: dict[Labels, dict[float, float]] = {}
    for labels, value in buckets.items():
        others = tuple((label, text) for label, text in labels if label != "le")
        try:
            bound = float(dict(labels)["le"])
        except (KeyError, ValueError):
            continue
        if 0 <= value <= LARGEST and bound >= 0:
            bounds.setdefault(others, {})[bound] = value
    return bounds


def _finite(up_to: Mapping[float, float], scale: float) -> dict[float, float]:
    scaled = {bound * scale: count for bound, count in sorted(up_to.items())}
    return {bound: count for bound, count in scaled.items() if math.isfinite(bound)}
