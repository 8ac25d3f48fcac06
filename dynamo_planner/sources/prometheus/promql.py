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

from dynamo_planner.engines.metric_kinds import Gauge, Info
from dynamo_planner.engines.vocabulary import COUNTERS, GAUGES, Vocabulary
from dynamo_planner.sources.prometheus.expressions import (
    Wrap,
    by_worker,
    distribution_parts,
    first_of,
    gauge_by_worker,
    gauges_of,
    inside_of,
    newest,
    over_time,
    sum_by_worker,
)
from dynamo_planner.sources.prometheus.query_keys import (
    ADDRESSES,
    ANSWERED,
    COPIES,
    COUNTED,
    FELL,
    FELL_LATELY,
    FIRST_VALUE,
    HALF,
    INSIDE_BEFORE,
    INSIDE_CHANGE,
    INSIDE_PEAK,
    KNOWN_BEFORE,
    KNOWN_EARLIER,
    LABELS,
    NAMES,
    OBSERVED_AT,
    OLDEST_START,
    SAMPLED_BEFORE,
    START_FELL,
    STARTED,
    STARTS,
    SUM_OF_TTFT,
    TARGETS,
    TOTAL,
    TOTAL_BEFORE,
    UP,
    USUAL,
    WAITING_BEFORE,
    WAITING_CHANGE,
    WITNESSES,
    QueryKey,
    presence_names,
    presence_names_of,
    scrapable_metrics,
)
from dynamo_planner.sources.prometheus.scope import Scope

LATELY_WINDOWS = 10
"""Over how many windows falls are counted of workers without a start time."""

LOST_FOR = "10m"
"""For how long a worker that cannot be scraped any more still counts. One that never could be is starting."""


def queries_of(vocabulary: Vocabulary, scope: Scope) -> dict[QueryKey, str]:
    """All queries for a pool. What an engine reports only in JSON is not among them."""
    queries: dict[QueryKey, str] = {}
    for quantity in vocabulary.quantities:
        metrics = scrapable_metrics(vocabulary, quantity)
        if quantity in GAUGES:
            queries[QueryKey(quantity)] = gauge_by_worker(metrics, scope)
        elif quantity in COUNTERS:
            queries[QueryKey(quantity)] = first_of(by_worker(metric, scope, scope.increase) for metric in metrics)
        else:
            queries[QueryKey(quantity)] = gauge_by_worker(
                [metric for metric in metrics if isinstance(metric, Gauge)], scope
            )
            queries |= {QueryKey(quantity, part): query for part, query in distribution_parts(metrics, scope).items()}
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
        QueryKey(OBSERVED_AT): first_of(
            f"max by ({scope.worker_label}) (timestamp({scope.selector(name)}))" for name in _sampled(vocabulary)
        ),
        QueryKey(NAMES): f"count by (__name__, {scope.worker_label}) ({names})",
        QueryKey(KNOWN_BEFORE): f"count by ({scope.worker_label}) ({names} offset {scope.duration()})",
        QueryKey(INSIDE_CHANGE): inside_of(vocabulary, scope, change),
        QueryKey(WAITING_CHANGE): gauges_of(vocabulary, "waiting", scope, change),
    }
    queries[QueryKey(INSIDE_PEAK)] = inside_of(vocabulary, scope, lambda series: over_time("max", series, scope))
    queries |= _of_processes(vocabulary, scope) | _of_missed_scrapes(vocabulary, scope)
    queries |= _of_copies(vocabulary, scope)
    return {key: query for key, query in queries.items() if query}


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
    labels = ", ".join(dict.fromkeys((scope.worker_label, "instance", "pod", "namespace", "cluster")))
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
        STARTED: lambda series: over_time("max", series, scope),
        OLDEST_START: lambda series: over_time("min", series, scope),
        START_FELL: lambda series: f"resets({series}[{scope.duration()}])",
    }
    queries = {QueryKey(key): newest(vocabulary.started_at, scope, wrap, across="max") for key, wrap in starts.items()}
    for quantity in dict.fromkeys((*WITNESSES, *COUNTED)):
        counters = scrapable_metrics(vocabulary, quantity)
        if quantity in WITNESSES:
            queries[QueryKey(FELL, quantity)] = first_of(
                by_worker(each, scope, starts[START_FELL]) for each in counters
            )
        if quantity in COUNTED:
            queries[QueryKey(FIRST_VALUE, quantity)] = first_of(
                by_worker(each, scope, lambda series: f"({_first_value(series, scope)})") for each in counters
            )
    queries[QueryKey(SUM_OF_TTFT)] = sum_by_worker(scrapable_metrics(vocabulary, "ttft_ms"), scope)
    counting = next((each for each in WITNESSES if each in COUNTED and scrapable_metrics(vocabulary, each)), None)
    if counting is not None:
        metrics = scrapable_metrics(vocabulary, counting)
        lately, before = scope.longer(LATELY_WINDOWS), f"offset {scope.duration()}"
        names = dict.fromkeys(name for metric in metrics for name in metric.names)
        half = scope.longer(0.5)
        queries[QueryKey(HALF, counting)] = first_of(by_worker(each, half, half.increase) for each in metrics)
        queries[QueryKey(FELL_LATELY)] = newest(names, lately, _resets_of(lately), across="max")
        queries[QueryKey(USUAL, counting)] = first_of(
            by_worker(each, scope, lambda series: f"increase({series}[{scope.duration()}] {before})")
            for each in metrics
        )
    return queries


def _resets_of(scope: Scope) -> Wrap:
    return lambda series: f"resets({series}[{scope.duration()}])"


def _of_missed_scrapes(vocabulary: Vocabulary, scope: Scope) -> dict[QueryKey, str]:
    """What tells how much of the window a worker was seen in, and its values at both ends of that."""
    before, sampled = f"offset {scope.duration()}", scope.any_of(_sampled(vocabulary))

    def then(series: str) -> str:
        return f"{series} {before}"

    queries = {
        QueryKey(ANSWERED): f"min by ({scope.worker_label}) (avg_over_time({scope.up()}[{scope.duration()}]))",
        QueryKey(SAMPLED_BEFORE): first_of(
            f"max by ({scope.worker_label}) (timestamp({then(scope.selector(name))}))" for name in _sampled(vocabulary)
        ),
        QueryKey(KNOWN_EARLIER): f"count by ({scope.worker_label}) (last_over_time({sampled}[{LOST_FOR}] {before}))",
        QueryKey(INSIDE_BEFORE): inside_of(vocabulary, scope, then),
        QueryKey(WAITING_BEFORE): gauges_of(vocabulary, "waiting", scope, then),
    }
    for quantity in COUNTED:
        counters = scrapable_metrics(vocabulary, quantity)
        queries[QueryKey(TOTAL, quantity)] = first_of(by_worker(each, scope) for each in counters)
        queries[QueryKey(TOTAL_BEFORE, quantity)] = first_of(by_worker(each, scope, then) for each in counters)
    return queries


def _first_value(series: str, scope: Scope) -> str:
    return f"{over_time('min', series, scope)} unless {series} offset {scope.duration()}"
