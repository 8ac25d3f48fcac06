"""A vocabulary as PromQL: the queries for each quantity of a pool.

Gauges and counters are queried by worker, histograms for the pool as a whole. Series are summed before anything is
divided or compared, and of several names of a metric each worker's newest one counts, so that a fleet in the midst of
an upgrade reads right.

>>> from dynamo_planner.engines.metric_kinds import Counter, Gauge
>>> from dynamo_planner.engines.vocabulary import Vocabulary
>>> mine = Vocabulary(engine="Mine", quantities={
...     "running": Gauge(names=("mine:running", "mine:active")), "completions": Counter(names=("mine:done_total",))
... })
>>> queries = queries_of(mine, Scope(labels={"job": "mine", "pod": "=~mine-.*"}, worker_label="pod", window_s=60))
>>> print(queries[QueryKey("running")])
sum by (pod) (mine:running{job="mine",pod=~"mine-.*"}) or sum by (pod) (mine:active{job="mine",pod=~"mine-.*"})
>>> print(queries[QueryKey("completions")])
sum by (pod) (increase(mine:done_total{job="mine",pod=~"mine-.*"}[60s]))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from dynamo_planner.engines.metric_kinds import Counter, Gauge, Histogram, Info, Mean, Metric, Product, Ratio
from dynamo_planner.engines.vocabulary import COUNTERS, GAUGES, Quantity, Vocabulary
from dynamo_planner.sources.prometheus.query_keys import (
    ADDRESSES,
    COPIES,
    COUNTED,
    FELL,
    FIRST_VALUE,
    INSIDE_CHANGE,
    INSIDE_PEAK,
    KNOWN_BEFORE,
    LABELS,
    NAMES,
    OBSERVED_AT,
    OLDEST_START,
    START_FELL,
    STARTED,
    STARTS,
    TARGETS,
    UP,
    WAITING_CHANGE,
    WITNESSES,
    QueryKey,
    presence_names,
    presence_names_of,
    scrapable_metrics,
)
from dynamo_planner.sources.prometheus.scope import Scope

LOST_FOR = "10m"
"""For how long a worker that cannot be scraped any more still counts. One that never could be is starting."""


def queries_of(vocabulary: Vocabulary, scope: Scope) -> dict[QueryKey, str]:
    """All queries for a pool. What an engine reports only in JSON is not among them."""
    queries: dict[QueryKey, str] = {}
    for quantity in vocabulary.quantities:
        metrics = scrapable_metrics(vocabulary, quantity)
        if quantity in GAUGES:
            queries[QueryKey(quantity)] = _gauge(metrics, scope)
        elif quantity in COUNTERS:
            queries[QueryKey(quantity)] = _any(_by_worker(metric, scope, scope.increase) for metric in metrics)
        else:
            queries[QueryKey(quantity)] = _gauge([metric for metric in metrics if isinstance(metric, Gauge)], scope)
            queries |= {QueryKey(quantity, part): query for part, query in _distribution(metrics, scope).items()}
        picked = [metric for metric in metrics if getattr(metric, "where", None)]
        if picked:
            every = scope.any_of(name for metric in picked for name in presence_names_of(metric))
            labels = dict.fromkeys(label for metric in picked for label in metric.where)
            queries[QueryKey(LABELS, quantity)] = f"count by ({', '.join(labels)}) ({every})"
    comes_and_goes = bool(vocabulary.transient) and "inside" in vocabulary.quantities
    change = _change(vocabulary, scope) if comes_and_goes else scope.delta
    names = scope.any_of(sorted(presence_names(vocabulary).union(vocabulary.repeated_by)))
    queries |= {
        QueryKey(UP): _up(vocabulary, scope),
        QueryKey(OBSERVED_AT): _any(
            f"max by ({scope.worker_label}) (timestamp({scope.selector(name)}))" for name in _sampled(vocabulary)
        ),
        QueryKey(NAMES): f"count by (__name__, {scope.worker_label}) ({names})",
        QueryKey(KNOWN_BEFORE): f"count by ({scope.worker_label}) ({names} offset {scope.duration()})",
        QueryKey(INSIDE_CHANGE): _inside(vocabulary, scope, change),
        QueryKey(WAITING_CHANGE): _gauges(vocabulary, "waiting", scope, change),
    }
    if any(vocabulary.switches.get(quantity) for quantity in vocabulary.with_first_request):
        queries[QueryKey(INSIDE_PEAK)] = _inside(vocabulary, scope, lambda series: _over_time("max", series, scope))
    queries |= _of_processes(vocabulary, scope) | _of_copies(vocabulary, scope)
    return {key: query for key, query in queries.items() if query}


def _any(queries: Iterable[str]) -> str:
    """For each worker the result of the first of these queries that has one."""
    return " or ".join(queries)


def _sampled(vocabulary: Vocabulary) -> list[str]:
    """The names of all gauges and counters of an engine. Labels alone are no sample, and may lack that of the model."""
    return list(
        dict.fromkeys(
            name
            for quantity in (*GAUGES, *COUNTERS)
            for metric in scrapable_metrics(vocabulary, quantity)
            if not isinstance(metric, Info)
            for name in presence_names_of(metric)
        )
    )


def _of_copies(vocabulary: Vocabulary, scope: Scope) -> dict[QueryKey, str]:
    """What tells several series of the same process."""
    queries = {QueryKey(TARGETS): f"{scope.up()} or on () {_one_metric(vocabulary, scope)}"}
    if scope.worker_label != "instance":
        labels = ", ".join(dict.fromkeys((scope.worker_label, "instance", "pod")))
        queries[QueryKey(ADDRESSES)] = f"count by ({labels}) ({_one_metric(vocabulary, scope)})"
        queries[QueryKey(STARTS)] = scope.of_every_model().any_of(vocabulary.started_at)
    if scope.copies:
        labels = ", ".join(dict.fromkeys((scope.worker_label, "instance", *scope.copies)))
        queries[QueryKey(COPIES)] = f"count by ({labels}) ({_one_metric(vocabulary, scope)})"
    return queries


def _one_metric(vocabulary: Vocabulary, scope: Scope) -> str:
    """The series of the first gauge that can be scraped, with all of their labels."""
    gauges = (scrapable_metrics(vocabulary, quantity) for quantity in GAUGES)
    metrics = next((every for every in gauges if every), [])
    return scope.any_of(dict.fromkeys(name for metric in metrics for name in metric.samples()))


def _up(vocabulary: Vocabulary, scope: Scope) -> str:
    """Whether each worker can be scraped, of those that could be within ``LOST_FOR``."""
    lately = f"last_over_time({scope.any_of(_sampled(vocabulary))}[{LOST_FOR}])"
    return f"min by ({scope.worker_label}) ({scope.up()}) and count by ({scope.worker_label}) ({lately})"


Wrap = Callable[[str], str]
"""A function applied to the series of one name before they are summed."""


def _as_it_is(selector: str) -> str:
    return selector


def _gauge(metrics: Iterable[Gauge | Ratio | Product | Info], scope: Scope) -> str:
    """A gauge of each worker; of an ``Info`` how many series have which labels."""
    alternatives = []
    for metric in metrics:
        if isinstance(metric, Info):
            alternatives.append(_newest(metric.names, scope, keep=metric.labels))
        elif isinstance(metric, Ratio):
            alternatives.append(f"({_by_worker(metric.part, scope)}) / ({_by_worker(metric.whole, scope)})")
        elif isinstance(metric, Product):
            alternatives.append(" * ".join(f"({_by_worker(factor, scope)})" for factor in metric.factors))
        else:
            alternatives.append(_by_worker(metric, scope))
    return _any(alternatives)


def _distribution(metrics: Iterable[Metric], scope: Scope) -> dict[str, str]:
    """The count, the sum and, where there are any, the buckets of what was observed in the pool over the window.

    The sum is in the quantity's unit, the bounds of buckets in the metric's own.
    """
    counts, sums, buckets = [], [], []
    for metric in metrics:
        if isinstance(metric, Histogram):
            counts.append(_of_histogram(metric, "_count", scope))
            sums.append(_scaled(_of_histogram(metric, "_sum", scope), metric.scale))
            buckets.append(_of_histogram(metric, "_bucket", scope, keep=("le",)))
        elif isinstance(metric, Mean):
            counts.append(_by_worker(metric.count, scope, scope.increase))
            sums.append(_scaled(_by_worker(metric.total, scope, scope.increase), metric.scale))
    queries = {"count": f"sum({_any(counts)})", "sum": f"sum({_any(sums)})"} if counts else {}
    return {**queries, "bucket": f"sum by (le) ({_any(buckets)})"} if buckets else queries


def _of_histogram(metric: Histogram, suffix: str, scope: Scope, keep: tuple[str, ...] = ()) -> str:
    names = [name + suffix for name in metric.names]
    query = _newest(names, scope, scope.increase, where=metric.where, copies=metric.copies, keep=keep)
    if metric.unless:
        return f"({query}) unless on ({scope.worker_label}) {scope.any_of(metric.unless)}"
    return query


def _by_worker(metric: Gauge | Counter, scope: Scope, wrap: Wrap = _as_it_is) -> str:
    """A gauge or counter of each worker, in the quantity's unit."""
    across = "avg" if isinstance(metric, Gauge) and metric.across == "mean" else "sum"
    terms = [
        _newest(names, scope, wrap, across=across, where=metric.where, copies=metric.copies)
        for names in (metric.names, *metric.plus)
    ]
    query = _scaled(
        " + ".join(f"({term})" for term in terms) if len(terms) > 1 else terms[0], getattr(metric, "scale", 1)
    )
    if isinstance(metric, Counter):
        if metric.rare:  # none of what it picks, but others with these labels
            query = f"{query} or {_newest(metric.names, scope, wrap, having=metric.where)} * 0"
        if metric.unless:
            return f"({query}) unless on ({scope.worker_label}) {scope.any_of(metric.unless)}"
    return query


def _scaled(query: str, scale: float) -> str:
    return query if scale == 1 else f"({query}) * {scale:.15g}"


def _newest(
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
    return _any(alternatives)


def _inside(vocabulary: Vocabulary, scope: Scope, wrap: Wrap) -> str:
    """A function of the requests in a worker over the window; empty where the engine does not report them."""
    inside, running, waiting = (_gauges(vocabulary, each, scope, wrap) for each in ("inside", "running", "waiting"))
    return inside or (f"({running}) + ({waiting})" if running and waiting else "")


def _gauges(vocabulary: Vocabulary, quantity: Quantity, scope: Scope, wrap: Wrap) -> str:
    gauges = [metric for metric in scrapable_metrics(vocabulary, quantity) if isinstance(metric, Gauge)]
    return _any(_by_worker(metric, scope, wrap) for metric in gauges)


def _change(vocabulary: Vocabulary, scope: Scope) -> Wrap:
    """The change of gauges over the window, whose series may come while their worker lives: they began at zero."""
    counted = (metric for quantity in COUNTED for metric in scrapable_metrics(vocabulary, quantity))
    names = scope.any_of(dict.fromkeys(name for metric in counted for name in presence_names_of(metric)))
    before = f"offset {scope.duration()}"
    return lambda series: (
        f"(({series} unless {series} {before}) and on ({scope.worker_label}) {names} {before} or {scope.delta(series)})"
    )


def _of_processes(vocabulary: Vocabulary, scope: Scope) -> dict[QueryKey, str]:
    """What tells a restart from another process, and what counters have that came within the window."""
    starts = {
        STARTED: lambda series: _over_time("max", series, scope),
        OLDEST_START: lambda series: _over_time("min", series, scope),
        START_FELL: lambda series: f"resets({series}[{scope.duration()}])",
    }
    queries = {QueryKey(key): _newest(vocabulary.started_at, scope, wrap, across="max") for key, wrap in starts.items()}
    for quantity in dict.fromkeys((*WITNESSES, *COUNTED)):
        counters = scrapable_metrics(vocabulary, quantity)
        if quantity in WITNESSES:
            queries[QueryKey(FELL, quantity)] = _any(_by_worker(each, scope, starts[START_FELL]) for each in counters)
        if quantity in COUNTED:
            queries[QueryKey(FIRST_VALUE, quantity)] = _any(
                _by_worker(each, scope, lambda series: f"({_first_value(series, scope)})") for each in counters
            )
    return queries


def _first_value(series: str, scope: Scope) -> str:
    return f"{_over_time('min', series, scope)} unless {series} offset {scope.duration()}"


def _over_time(function: str, series: str, scope: Scope) -> str:
    return f"{function}_over_time({series}[{scope.duration()}])"
