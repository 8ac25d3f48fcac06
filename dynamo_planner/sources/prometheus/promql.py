"""A vocabulary as PromQL: what to ask a Prometheus server for each quantity of a pool.

Gauges and counters are asked by worker, histograms for the pool as a whole. Series are summed before anything is
divided or compared, and of several names of a metric each worker's newest one counts, so that a fleet in the midst of
an upgrade reads right.

>>> from dynamo_planner.engines.metric_kinds import Counter, Gauge
>>> from dynamo_planner.engines.vocabulary import Vocabulary
>>> mine = Vocabulary(engine="Mine", quantities={
...     "running": Gauge(names=("mine:running", "mine:active")), "completions": Counter(names=("mine:done_total",))
... })
>>> asked = queries_of(mine, Scope(labels={"job": "mine", "pod": "=~mine-.*"}, worker_label="pod", window_s=60))
>>> print(asked[Ask("running")])
sum by (pod) (mine:running{job="mine",pod=~"mine-.*"}) or sum by (pod) (mine:active{job="mine",pod=~"mine-.*"})
>>> print(asked[Ask("completions")])
sum by (pod) (increase(mine:done_total{job="mine",pod=~"mine-.*"}[60s]))
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field

from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.engines.metric_kinds import Counter, Gauge, Histogram, Info, Mean, Metric, Product, Ratio
from dynamo_planner.engines.vocabulary import COUNTERS, GAUGES, Quantity, Vocabulary

UP, OBSERVED_AT, NAMES, KNOWN_BEFORE, INSIDE_CHANGE = "up", "observed_at_s", "names", "known_before", "inside_change"
"""What is asked beside the quantities: which targets there are and whether they could be scraped, when each worker's
metrics were scraped, which metrics there are, how many series there were at the beginning of the window, and by how
much what is in a worker has changed over it."""

LOST_FOR = "10m"
"""For how long a worker that cannot be scraped any more still counts. One that never could be is starting."""

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_OPERATOR = re.compile(r"(=~|!~|!=|=)?(.*)", re.DOTALL)


def _label(name: str) -> str:
    if not _LABEL.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a label")
    return name


LabelName = Annotated[str, AfterValidator(_label)]

LabelMatchers = ReadOnly[LabelName, str]
"""What labels must be. A value may begin with an operator of PromQL: ``=~`` and ``!~`` for a regular expression that
matches all of the label, ``!=`` for another value, and ``=``, which may be left out."""


class Scope(Frozen):
    """Which series are those of a pool, and how they are read.

    ``labels`` are those of its scrape targets, which also ``up`` has (namespace, job, pod); ``metric_labels`` are those
    that only the engine's own metrics have, such as the model. ``worker_label`` tells workers from each other. Rates
    and means are over ``window_s``.
    """

    labels: LabelMatchers = Field(default_factory=FrozenMap)
    metric_labels: LabelMatchers = Field(default_factory=FrozenMap)
    worker_label: LabelName = "instance"
    window_s: float = Field(gt=0)

    def selector(self, name: str, where: Mapping[str, Iterable[str]] | None = None) -> str:
        """The series of a metric, as far as they are the pool's."""
        return _selector(name, [*_matchers(self.labels), *_matchers(self.metric_labels), *_where(where or {})])

    def any_of(self, names: Iterable[str]) -> str:
        """The series of any of these metrics."""
        every = [f"__name__=~{_quoted(_one_of(names))}", *_matchers(self.labels), *_matchers(self.metric_labels)]
        return f"{{{','.join(every)}}}"

    def described(self) -> str:
        """The labels, for a message."""
        return f"{{{','.join([*_matchers(self.labels), *_matchers(self.metric_labels)])}}}"

    def up(self) -> str:
        """Whether each of the pool's targets could be scraped."""
        return _selector("up", _matchers(self.labels))

    def increase(self, selector: str) -> str:
        """How much counters have grown over the window."""
        return f"increase({selector}[{self.duration()}])"

    def delta(self, selector: str) -> str:
        """How much gauges have changed over the window."""
        return f"delta({selector}[{self.duration()}])"

    def duration(self) -> str:
        """The window, as PromQL writes it."""
        whole = self.window_s == int(self.window_s)
        return f"{self.window_s:.0f}s" if whole else f"{self.window_s * 1000:.0f}ms"


class Ask(NamedTuple):
    """Which number a query gives; ``part`` is ``count``, ``sum`` or ``bucket`` of a distribution."""

    quantity: str
    part: str = ""


def queries_of(vocabulary: Vocabulary, scope: Scope) -> dict[Ask, str]:
    """All queries for a pool. What an engine tells only in JSON is not among them."""
    queries: dict[Ask, str] = {}
    for quantity in vocabulary.quantities:
        metrics = told_metrics(vocabulary, quantity)
        if quantity in GAUGES:
            queries[Ask(quantity)] = _gauge(metrics, scope)
        elif quantity in COUNTERS:
            queries[Ask(quantity)] = _any(_by_worker(metric, scope, scope.increase) for metric in metrics)
        else:
            queries[Ask(quantity)] = _gauge([metric for metric in metrics if isinstance(metric, Gauge)], scope)
            queries |= {Ask(quantity, part): query for part, query in _distribution(metrics, scope).items()}
    names = scope.any_of(sorted(presence_names(vocabulary)))
    queries |= {
        Ask(UP): _up(vocabulary, scope),
        Ask(OBSERVED_AT): _any(
            f"max by ({scope.worker_label}) (timestamp({scope.selector(name)}))" for name in _sampled(vocabulary)
        ),
        Ask(NAMES): f"count by (__name__) ({names})",
        Ask(KNOWN_BEFORE): f"count({names} offset {scope.duration()})",
        Ask(INSIDE_CHANGE): _inside_change(vocabulary, scope),
    }
    return {ask: query for ask, query in queries.items() if query}


def told_metrics(vocabulary: Vocabulary, quantity: Quantity) -> list[Any]:
    """The metrics of a quantity that Prometheus can have: not what stands in JSON."""
    metrics = vocabulary.quantities.get(quantity, ())
    return [metric for metric in metrics if not any(name.startswith("/") for name in metric.samples())]


def presence_names(vocabulary: Vocabulary) -> frozenset[str]:
    """The sample names that tell which metrics there are: of a histogram that of its count."""
    metrics = [metric for quantity in vocabulary.quantities for metric in told_metrics(vocabulary, quantity)]
    return frozenset(name for metric in metrics for name in presence_names_of(metric))


def presence_names_of(metric: Metric) -> Iterable[str]:
    """As :func:`presence_names`, of one metric."""
    return [f"{name}_count" for name in metric.names] if isinstance(metric, Histogram) else metric.samples()


def _matchers(labels: Mapping[str, str]) -> Iterator[str]:
    for label, text in labels.items():
        operator, value = _OPERATOR.fullmatch(text).groups()  # type: ignore[union-attr]  # it matches everything
        yield f"{label}{operator or '='}{_quoted(value)}"


def _where(where: Mapping[str, Iterable[str]]) -> Iterator[str]:
    for label, values in where.items():
        texts = list(values)
        yield f"{label}={_quoted(texts[0])}" if len(texts) == 1 else f"{label}=~{_quoted(_one_of(texts))}"


def _one_of(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, texts))


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _selector(name: str, matchers: Iterable[str]) -> str:
    every = list(matchers)
    if not _NAME.fullmatch(name):
        every.insert(0, f"__name__={_quoted(name)}")
        name = ""
    return f"{name}{{{','.join(every)}}}" if every else name


def _any(queries: Iterable[str]) -> str:
    """Of each worker what the first of these queries gives."""
    return " or ".join(queries)


def _sampled(vocabulary: Vocabulary) -> list[str]:
    """The names of all gauges and counters of an engine. Labels alone are no sample, and may lack that of the model."""
    return list(
        dict.fromkeys(
            name
            for quantity in (*GAUGES, *COUNTERS)
            for metric in told_metrics(vocabulary, quantity)
            if not isinstance(metric, Info)
            for name in metric.samples()
        )
    )


def _up(vocabulary: Vocabulary, scope: Scope) -> str:
    """Whether each worker can be scraped, of those that could be lately."""
    lately = f"last_over_time({scope.any_of(_sampled(vocabulary))}[{LOST_FOR}])"
    return f"min by ({scope.worker_label}) ({scope.up()}) and count by ({scope.worker_label}) ({lately})"


Wrap = Callable[[str], str]
"""What is done to the series of one name before they are summed."""


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
    return {**queries, "bucket": f"sum by (le) ({buckets[0]})"} if buckets else queries


def _of_histogram(metric: Histogram, suffix: str, scope: Scope, keep: tuple[str, ...] = ()) -> str:
    names = [name + suffix for name in metric.names]
    return _newest(names, scope, scope.increase, where=metric.where, copies=metric.copies, keep=keep)


def _by_worker(metric: Gauge | Counter, scope: Scope, wrap: Wrap = _as_it_is) -> str:
    """A gauge or counter of each worker, in the quantity's unit."""
    across = "avg" if isinstance(metric, Gauge) and metric.across == "mean" else "sum"
    terms = [
        _newest(names, scope, wrap, across=across, where=metric.where, copies=metric.copies)
        for names in (metric.names, *metric.plus)
    ]
    if len(terms) > 1:
        return _scaled(" + ".join(f"({term})" for term in terms), getattr(metric, "scale", 1))
    return _scaled(terms[0], getattr(metric, "scale", 1))


def _scaled(query: str, scale: float) -> str:
    return query if scale == 1 else f"({query}) * {scale:.15g}"


def _newest(
    names: Iterable[str],
    scope: Scope,
    wrap: Wrap = _as_it_is,
    *,
    across: str = "sum",
    where: Mapping[str, Iterable[str]] | None = None,
    copies: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> str:
    """The series of a metric, of each worker those of the newest name that it has, aggregated by worker."""
    labels = ", ".join((scope.worker_label, *keep))
    alternatives = []
    for name in names:
        series = wrap(scope.selector(name, where))
        if copies:
            series = f"max without ({', '.join(copies)}) ({series})"
        alternatives.append(f"{across} by ({labels}) ({series})")
    return _any(alternatives)


def _inside_change(vocabulary: Vocabulary, scope: Scope) -> str:
    """By how much what is in a worker has grown over the window; empty where the engine does not tell what is in it."""

    def of(quantity: Quantity) -> str:
        gauges = [metric for metric in told_metrics(vocabulary, quantity) if isinstance(metric, Gauge)]
        return _any(_by_worker(metric, scope, scope.delta) for metric in gauges)

    inside, running, waiting = of("inside"), of("running"), of("waiting")
    if inside:
        return inside
    return f"({running}) + ({waiting})" if running and waiting else ""
