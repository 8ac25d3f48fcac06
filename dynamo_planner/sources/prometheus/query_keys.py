"""What is queried of a pool: the keys of the queries, and the names by which a metric is known to be there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from dynamo_planner.engines.metric_kinds import Counter, Histogram, Metric
from dynamo_planner.engines.vocabulary import Quantity, Vocabulary

UP, OBSERVED_AT, NAMES, KNOWN_BEFORE = "up", "observed_at_s", "names", "known_before"
INSIDE_CHANGE, WAITING_CHANGE, INSIDE_PEAK = "inside_change", "waiting_change", "inside_peak"
"""Queries beside those of quantities, of each worker: whether it could be scraped, when it was, which metrics it has,
how many series it had at the beginning of the window, by how much the requests in it and those that wait have changed
over the window, and the most that there were."""

LABELS = "labels"
"""Which values of labels there are, of a metric of which some are picked."""

FELL, FIRST_VALUE = "fell", "first_value"
STARTED, OLDEST_START, START_FELL = "started", "oldest_start", "start_fell"
"""How often a counter fell, the first value of one that came within the window, the newest and the oldest start time
of the process in the window, and how often it went back."""

SUM_OF_TTFT = "sum_of_ttft"
"""How long the requests of each worker waited for their first tokens, all together, in milliseconds."""

FELL_LATELY, USUAL, HALF = "fell_lately", "usual", "half"
"""How often a counter fell over the last windows, and how much it grew in the window before and in the last half of
this one: for workers that have no start time."""

ANSWERED, SAMPLED_BEFORE, KNOWN_EARLIER = "answered", "sampled_before", "known_earlier"
TOTAL, TOTAL_BEFORE, INSIDE_BEFORE, WAITING_BEFORE = "total", "total_before", "inside_before", "waiting_before"
"""The share of scrapes in the window that a worker answered; and where it missed some, what its counters and queues
were at the last sample and at the one at the beginning of the window, when that one was, and whether there were any
within ten minutes before."""

OF_PROCESSES = (KNOWN_BEFORE, FELL, STARTED, OLDEST_START, START_FELL)
OF_ARRIVALS = ("aborts", "first_tokens", FIRST_VALUE, INSIDE_CHANGE, WAITING_CHANGE)
"""Queries without which counters cannot be believed, and arrivals not be known."""

TARGETS, STARTS, ADDRESSES, COPIES = "targets", "starts", "addresses", "copies"
"""With all of their labels: the targets, and the start times of processes; at which addresses each worker has metrics,
and with which labels."""

WITNESSES: tuple[Quantity, ...] = ("arrivals", "completions", "first_tokens", "prefix_queries")
"""The counters by which another process is told."""

COUNTED: tuple[Quantity, ...] = ("arrivals", "completions", "aborts", "first_tokens")
"""The counters of which arrivals are made."""


class QueryKey(NamedTuple):
    """The number that a query gives.

    Args:
        quantity: of the vocabulary, or one of those beside (``UP`` and the like).
        part: ``count``, ``sum`` or ``bucket`` of a distribution; for ``LABELS``, ``FELL``, ``TOTAL`` and the like the
            quantity.
    """

    quantity: str
    part: str = ""


def scrapable_metrics(vocabulary: Vocabulary, quantity: Quantity) -> list[Any]:
    """The metrics of a quantity that Prometheus can scrape: not those in JSON."""
    metrics = vocabulary.quantities.get(quantity, ())
    return [metric for metric in metrics if not any(name.startswith("/") for name in metric.samples())]


def presence_names(vocabulary: Vocabulary) -> frozenset[str]:
    """The sample names by which a metric is known to be there: of a histogram that of its count."""
    metrics = [metric for quantity in vocabulary.quantities for metric in scrapable_metrics(vocabulary, quantity)]
    return frozenset(name for metric in metrics for name in presence_names_of(metric))


def presence_names_of(metric: Metric) -> Iterable[str]:
    """As :func:`presence_names`, of one metric."""
    if isinstance(metric, Histogram):
        return [f"{name}_count" for name in metric.names]
    return (name for name in metric.samples() if not isinstance(metric, Counter) or name not in metric.unless)
