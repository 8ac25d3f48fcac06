"""Metrics of a vocabulary as PromQL expressions: of each worker, and distributions of a pool.

Series are summed before anything is divided or compared, and of several names of a metric each worker's newest one
counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from dynamo_planner.engines.metric_kinds import Counter, Gauge, Histogram, Info, Mean, Metric, Product, Ratio
from dynamo_planner.engines.vocabulary import Quantity, Vocabulary
from dynamo_planner.sources.prometheus.query_keys import scrapable_metrics
from dynamo_planner.sources.prometheus.scope import Scope


def first_of(queries: Iterable[str]) -> str:
    """For each worker the result of the first of these queries that has one."""
    return " or ".join(queries)


Wrap = Callable[[str], str]
"""A function applied to the series of one name before they are summed."""


def _as_it_is(selector: str) -> str:
    return selector


def gauge_by_worker(metrics: Iterable[Gauge | Ratio | Product | Info], scope: Scope) -> str:
    """A gauge of each worker; of an ``Info`` how many series have which labels."""
    alternatives = []
    for metric in metrics:
        if isinstance(metric, Info):
            alternatives.append(newest(metric.names, scope, keep=metric.labels))
        elif isinstance(metric, Ratio):
            alternatives.append(f"({by_worker(metric.part, scope)}) / ({by_worker(metric.whole, scope)})")
        elif isinstance(metric, Product):
            alternatives.append(" * ".join(f"({by_worker(factor, scope)})" for factor in metric.factors))
        else:
            alternatives.append(by_worker(metric, scope))
    return first_of(alternatives)


def distribution_parts(metrics: Iterable[Metric], scope: Scope) -> dict[str, str]:
    """The count, the sum and, where there are any, the buckets of what was observed in the pool over the window.

    The sum is in the quantity's unit, the bounds of buckets in the metric's own.
    """
    counts, sums, buckets = [], [], []
    for metric in metrics:
        if isinstance(metric, Histogram):
            counts.append(_of_histogram(metric, "_count", scope))
            sums.append(sum_by_worker([metric], scope))
            buckets.append(_of_histogram(metric, "_bucket", scope, keep=("le",)))
        elif isinstance(metric, Mean):
            counts.append(by_worker(metric.count, scope, scope.increase))
            sums.append(_scaled(by_worker(metric.total, scope, scope.increase), metric.scale))
    queries = {"count": f"sum({first_of(counts)})", "sum": f"sum({first_of(sums)})"} if counts else {}
    return {**queries, "bucket": f"sum by (le) ({first_of(buckets)})"} if buckets else queries


def sum_by_worker(metrics: Iterable[Metric], scope: Scope) -> str:
    """What the histograms among these metrics observed in each worker over the window, in the quantity's unit."""
    histograms = [metric for metric in metrics if isinstance(metric, Histogram)]
    return first_of(_scaled(_of_histogram(each, "_sum", scope), each.scale) for each in histograms)


def _of_histogram(metric: Histogram, suffix: str, scope: Scope, keep: tuple[str, ...] = ()) -> str:
    names = [name + suffix for name in metric.names]
    query = newest(names, scope, scope.increase, where=metric.where, copies=metric.copies, keep=keep)
    if metric.unless:
        return f"({query}) unless on ({scope.worker_label}) {scope.any_of(metric.unless)}"
    return query


def by_worker(metric: Gauge | Counter, scope: Scope, wrap: Wrap = _as_it_is) -> str:
    """A gauge or counter of each worker, in the quantity's unit."""
    across = "avg" if isinstance(metric, Gauge) and metric.across == "mean" else "sum"
    terms = [
        newest(names, scope, wrap, across=across, where=metric.where, copies=metric.copies)
        for names in (metric.names, *metric.plus)
    ]
    query = _scaled(
        " + ".join(f"({term})" for term in terms) if len(terms) > 1 else terms[0], getattr(metric, "scale", 1)
    )
    if isinstance(metric, Counter):
        if metric.rare:  # none of what it picks, but others with these labels
            query = f"{query} or {newest(metric.names, scope, wrap, having=metric.where)} * 0"
        if metric.unless:
            return f"({query}) unless on ({scope.worker_label}) {scope.any_of(metric.unless)}"
    return query


def _scaled(query: str, scale: float) -> str:
    return query if scale == 1 else f"({query}) * {scale:.15g}"


def newest(
    names: Iterable[str],
    scope: Scope,
    wrap: Wrap = _as_it_is,
    *,
    across: str = "sum",
    where: Mapping[str, Iterable[str]] | None = None,
    having: Iterable[str] = (),
    copies: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> str:
    """The series of a metric, of each worker those of the newest name that it has, aggregated by worker."""
    labels = ", ".join((scope.worker_label, *keep))
    alternatives = []
    for name in names:
        series = wrap(scope.selector(name, where, having))
        if every := dict.fromkeys((*copies, *scope.copies)):
            series = f"max without ({', '.join(every)}) ({series})"
        alternatives.append(f"{across} by ({labels}) ({series})")
    return first_of(alternatives)


def inside_of(vocabulary: Vocabulary, scope: Scope, wrap: Wrap) -> str:
    """A function of the requests in a worker over the window; empty where the engine does not report them."""
    inside, running, waiting = (gauges_of(vocabulary, each, scope, wrap) for each in ("inside", "running", "waiting"))
    return inside or (f"({running}) + ({waiting})" if running and waiting else "")


def gauges_of(vocabulary: Vocabulary, quantity: Quantity, scope: Scope, wrap: Wrap) -> str:
    gauges = [metric for metric in scrapable_metrics(vocabulary, quantity) if isinstance(metric, Gauge)]
    return first_of(by_worker(metric, scope, wrap) for metric in gauges)


def over_time(function: str, series: str, scope: Scope) -> str:
    return f"{function}_over_time({series}[{scope.duration()}])"
