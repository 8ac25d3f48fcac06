"""What Prometheus knows of a pool at one moment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from dynamo_planner.engines.metric_kinds import Counter, Gauge, Histogram, Info, Mean, Metric, Product, Ratio
from dynamo_planner.engines.vocabulary import Quantity
from dynamo_planner.sources.aggregation.sample import SHARE_TOLERANCE, SHARES, above_one
from dynamo_planner.sources.aggregation.selection import describe_where, is_plausible
from dynamo_planner.sources.aggregation.window import WorkerHistory
from dynamo_planner.sources.prometheus.api import Vector

UNPICKED = (Info, Mean, Product, Ratio)
"""Kinds of metrics that pick no series by labels."""


@dataclass(frozen=True)
class PoolAnswers:
    """A pool at one moment.

    Args:
        workers: the histories of its workers, with those that could not be scraped, and of all of them together.
        causes: for each worker without a recent sample, why.
        why_no_coverage: why it is unknown how many workers there should be; empty where it is known.
        remarks: what else is to be said, by the path within the pool.
    """

    workers: list[WorkerHistory]
    causes: dict[str, str]
    why_no_coverage: str
    remarks: Mapping[tuple[str, ...], str]

    @property
    def observed(self) -> list[WorkerHistory]:
        """The workers that Prometheus has recent samples of."""
        return [history for history in self.workers if history.observed]

    @property
    def observed_at_s(self) -> float | None:
        """When the least recent of the workers' last samples was taken, of those within the window (Unix seconds)."""
        return min((history.last.at_s for history in self.observed if history.last), default=None)


class UnreadableError(Exception):
    """The workers of a pool cannot be distinguished, or the query for them failed; the message says why."""


def value_or_why(quantity: Quantity, value: float) -> float | str:
    """The value, or why it is implausible."""
    share = quantity in SHARES
    if share and 1 < value <= 1 + SHARE_TOLERANCE:
        return 1.0
    if not is_plausible(value):
        return f"{quantity} is {value:g}, which it cannot be"
    return f"{quantity} is {value:g}, and a share is at most 1: {above_one(value)}" if share and value > 1 else value


def products_of(vector: Vector, metric: Info, worker_label: str) -> dict[str, float]:
    """The product of a metric's labels for each worker, summed over its series; NaN where one is no number."""
    products: dict[str, float] = {}
    for labels, count in vector.items():
        given = dict(labels)
        worker, product = given.get(worker_label, ""), count
        for label in metric.labels:
            try:
                product *= float(given[label])
            except (KeyError, ValueError):
                product = math.nan
        products[worker] = products.get(worker, 0.0) + product
    return products


def absent_names(metrics: Iterable[Metric], there: Set[str]) -> list[str]:
    """For each metric the names of its first part that is not there; none where one metric is there as a whole.

    >>> from dynamo_planner.engines.sglang import SGLANG
    >>> absent_names(SGLANG.quantities["isl"], {"sglang:num_requests_total"})
    ['sglang:prompt_tokens_histogram_count', 'sglang:prompt_tokens_total']
    """
    absent: list[str] = []
    for metric in metrics:
        parts = [names for names in _parts_of(metric) if there.isdisjoint(names)]
        if not parts:
            return []
        absent += parts[0]
    return list(dict.fromkeys(absent))


def _parts_of(metric: Metric) -> Iterator[Sequence[str]]:
    """The names of each part of a metric, one of which has to be there."""
    if isinstance(metric, Histogram):
        yield [f"{name}_count" for name in metric.names]
    elif isinstance(metric, Info):
        yield metric.names
    elif isinstance(metric, Gauge | Counter):
        yield from (metric.names, *metric.plus, *(metric.minus if isinstance(metric, Gauge) else ()))
    elif isinstance(metric, Mean):
        yield from (*_parts_of(metric.total), *_parts_of(metric.count))
    elif isinstance(metric, Ratio):
        yield from (*_parts_of(metric.part), *_parts_of(metric.whole))
    else:
        for factor in metric.factors:
            yield from _parts_of(factor)


def why_not_picked(metrics: Iterable[Metric], there: Vector) -> str:
    """Why none of the series of a metric is picked by its labels, and which there are; empty where some is.

    Args:
        metrics: those that can give a quantity.
        there: the series that there are, by the labels that pick some.
    """
    every = [dict(labels) for labels in there]
    where = next((metric.where for metric in metrics if not isinstance(metric, UNPICKED) and metric.where), None)
    if not every or where is None:
        return ""
    if any(all(labels.get(label, "") in values for label, values in where.items()) for labels in every):
        return ""
    values = {label: sorted({labels.get(label, "") for labels in every}) for label in where}
    return f"Prometheus has none of it with {describe_where(where)}; there is {describe_where(values)}"
