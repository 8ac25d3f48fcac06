"""The answers of Prometheus about one pool at one moment, as histories of its workers.

Each worker has its gauges. What all of them did over the window is the interval of one more history, of a worker that
is not listed. From there on scraping and Prometheus are the same code (``aggregation``).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from dynamo_planner.engines.metric_kinds import Gauge, Histogram, Info
from dynamo_planner.engines.vocabulary import (
    COUNTERS,
    DISTRIBUTIONS,
    GAUGES,
    QUANTITIES,
    Quantity,
    Vocabulary,
    page_of_router,
)
from dynamo_planner.sources.aggregation.arrivals import Flow
from dynamo_planner.sources.aggregation.increase import WorkerInterval
from dynamo_planner.sources.aggregation.process import ANOTHER_PROCESS
from dynamo_planner.sources.aggregation.sample import (
    EMPTY_HISTOGRAM,
    HistogramData,
    WorkerSample,
    start_hint,
)
from dynamo_planner.sources.aggregation.selection import is_plausible
from dynamo_planner.sources.aggregation.window import WorkerHistory
from dynamo_planner.sources.prometheus.api import QueryError, Vector
from dynamo_planner.sources.prometheus.buckets import cumulative_buckets
from dynamo_planner.sources.prometheus.copies import describe_copies
from dynamo_planner.sources.prometheus.flows import WorkerAnswers
from dynamo_planner.sources.prometheus.pool_answers import (
    PoolAnswers,
    UnreadableError,
    absent_names,
    products_of,
    value_or_why,
    why_not_picked,
)
from dynamo_planner.sources.prometheus.query_keys import (
    COPIES,
    KNOWN_BEFORE,
    LABELS,
    NAMES,
    OBSERVED_AT,
    OF_ARRIVALS,
    OF_PROCESSES,
    TARGETS,
    UP,
    QueryKey,
    presence_names_of,
    scrapable_metrics,
)
from dynamo_planner.sources.prometheus.scope import Scope

Answers = Mapping[QueryKey, Vector | QueryError]

TOO_NEW = "Prometheus knows of {names}, but not yet for the {window_s:g} s of the window"
ONE_SAMPLE = "no worker has two samples of {names} within the {window_s:g} s of the window: is window_s too short?"

T = TypeVar("T")

MIN_COUNT = 1e-9
"""A smaller count is none, and no sum is divided by it; one observation is more, however it is extrapolated."""


def read_answers(
    answers: Answers, vocabulary: Vocabulary, scope: Scope, at_s: float, doubt: str | None = None
) -> PoolAnswers:
    """Read the answers about a pool at ``at_s``. Raises :class:`UnreadableError`.

    Args:
        answers: by what was queried.
        vocabulary: of the engine, for the role of the pool.
        scope: which series are the pool's.
        at_s: the moment that was queried, in Unix seconds.
        doubt: why what happened over the window is unknown; ``None`` where it is known.
    """
    return _PoolReader(answers, vocabulary, scope, at_s, doubt).read()


class _PoolReader:
    def __init__(self, answers: Answers, vocabulary: Vocabulary, scope: Scope, at_s: float, doubt: str | None) -> None:
        self._answers = answers
        self._vocabulary = vocabulary
        self._scope = scope
        self._at_s = at_s
        self._clock_doubt = doubt
        self._present: dict[str, set[str]] = {}
        for labels in self._vector(QueryKey(NAMES)):
            given = dict(labels)
            self._present.setdefault(given.get(scope.worker_label, ""), set()).add(given.get("__name__", ""))
        self._names = frozenset[str]().union(*self._present.values())
        self._values: dict[QueryKey, Mapping[str, float]] = {}
        self._unknown: dict[str, str] = {}
        self._remarks: dict[tuple[str, ...], str] = {}

    def read(self) -> PoolAnswers:
        oldest_s = self._at_s - self._scope.window_s
        if why := self._failed([OBSERVED_AT]):
            raise UnreadableError(f"when its workers were scraped is unknown: {why}")
        times_s = self._by_worker(QueryKey(OBSERVED_AT))
        sampled_s = {worker: time_s for worker, time_s in times_s.items() if oldest_s <= time_s < math.inf}
        if "" in sampled_s:
            raise UnreadableError(
                f"its series have no label {self._scope.worker_label!r} to distinguish workers by (worker_label)"
            )
        names_of = self._present.get
        routers = {each: why for each in sampled_s if (why := page_of_router(names_of(each, ()), [self._vocabulary]))}
        sampled_s = {worker: time_s for worker, time_s in sampled_s.items() if worker not in routers}
        self._workers = WorkerAnswers(
            self._by_worker, self._present, sampled_s.keys(), self._vocabulary, self._scope.window_s, self._at_s
        )
        up = {worker: value for worker, value in self._by_worker(QueryKey(UP)).items() if worker}
        doubts = self._workers.doubts()
        interval = self._interval()
        gauges = {quantity: self._gauges(quantity, sampled_s) for quantity in (*GAUGES, *self._shares())}
        workers, causes = [], {}
        for worker in sorted(up.keys() | sampled_s.keys() | routers.keys()):
            history = WorkerHistory(worker, self._scope.window_s)
            history.observed = worker in sampled_s
            if history.observed:
                history.last = self._sample(worker, sampled_s[worker], gauges)
                history.doubt = ANOTHER_PROCESS if doubts.get(worker) == ANOTHER_PROCESS else ""
            else:
                causes[worker] = routers.get(worker) or self._why_unobserved(up[worker])
            workers.append(history)
        doubt = self._clock_doubt or self._failed(OF_PROCESSES)
        doubt = doubt or next((f"{why} ({worker})" for worker, why in doubts.items()), "")
        if doubt:
            interval = replace(interval, flow=Flow(), counters={}, histograms={}, doubt=doubt)
        workers.append(WorkerHistory.unlisted("", self._scope.window_s, interval))
        self._tell_copies()
        no_coverage = "" if up else self._failed([UP]) or "Prometheus has no series 'up' with these labels"
        return PoolAnswers(workers, causes, no_coverage, self._remarks)

    def _tell_copies(self) -> None:
        copied = describe_copies(self._vector(QueryKey(COPIES)), self._scope.worker_label, self._scope.copies)
        self._remarks |= {("workers", worker): remark for worker, remark in copied.items()}
        if why := self._failed([TARGETS, COPIES]):
            self._remarks["workers",] = f"whether workers are scraped several times is unknown: {why}"

    def _why_unobserved(self, up: float) -> str:
        if up != 1:
            return "Prometheus could not scrape it (up is 0): its page of targets says why"
        return f"Prometheus has no recent sample of {self._vocabulary.engine} from it"

    def _failed(self, quantities: Collection[str]) -> str:
        """Why a query of one of these quantities failed; empty where none did."""
        errors = (
            answer
            for key, answer in self._answers.items()
            if isinstance(answer, QueryError) and key.quantity in quantities
        )
        return str(next(errors, ""))

    def _vector(self, key: QueryKey) -> Vector:
        answer = self._answers.get(key, {})
        return {} if isinstance(answer, QueryError) else answer

    def _by_worker(self, key: QueryKey) -> Mapping[str, float]:
        if key not in self._values:
            label, vector = self._scope.worker_label, self._vector(key)
            self._values[key] = {dict(labels).get(label, ""): value for labels, value in vector.items()}
        return self._values[key]

    # The gauges of each worker

    def _sample(
        self, worker: str, sampled_s: float, gauges: Mapping[Quantity, Mapping[str, float | str]]
    ) -> WorkerSample:
        sample = WorkerSample(at_s=sampled_s, started_s=None, unknown=dict(self._unknown))
        for quantity, values in gauges.items():
            value = values[worker] if worker in values else self._why_not(quantity)
            if isinstance(value, str):
                sample.unknown[quantity] = value
            else:
                sample.gauges[quantity] = value
                sample.unknown.pop(quantity, None)
        return sample

    def _gauges(self, quantity: Quantity, workers: Iterable[str]) -> dict[str, float | str]:
        """The value of each worker that reports one, or why it is implausible."""
        metrics = scrapable_metrics(self._vocabulary, quantity)
        key = QueryKey(quantity)
        values = self._by_worker(key)
        if any(isinstance(metric, Info) for metric in metrics):
            values = products_of(self._vector(key), metrics[0], self._scope.worker_label)
        return {worker: value_or_why(quantity, values[worker]) for worker in workers if worker in values}

    def _shares(self) -> Iterator[Quantity]:
        """Distributions that this engine reports as a gauge."""
        for quantity in DISTRIBUTIONS:
            if any(isinstance(metric, Gauge) for metric in scrapable_metrics(self._vocabulary, quantity)):
                yield quantity

    # What all of them did over the window

    def _interval(self) -> WorkerInterval:
        """What the workers did over the window, as far as it is known."""
        counters: dict[str, float] = {}
        histograms: dict[str, HistogramData] = {}
        no_means = self._workers.why_no_means()
        for quantity in QUANTITIES:
            if quantity not in self._vocabulary.quantities:
                self._unknown[quantity] = self._why_not(quantity)
            elif not self._vector(QueryKey(KNOWN_BEFORE)):
                self._unknown[quantity] = self._why_not(quantity, TOO_NEW)
            elif quantity in COUNTERS:
                self._set(counters, quantity, self._increase(quantity))
            elif quantity in DISTRIBUTIONS and no_means:
                self._unknown[quantity] = no_means
            elif quantity in DISTRIBUTIONS:
                self._set(histograms, quantity, self._observed(quantity))
        return WorkerInterval(
            start_s=self._at_s - self._scope.window_s,
            end_s=self._at_s,
            since_start=False,
            flow=self._arrivals() if self._vector(QueryKey(KNOWN_BEFORE)) else Flow(),
            counters=counters,
            histograms=histograms,
        )

    def _set(self, values: dict[str, T], quantity: Quantity, value: T | None) -> None:
        if value is None:
            self._unknown[quantity] = self._why_not(quantity)
        else:
            values[quantity] = value

    def _increase(self, quantity: Quantity) -> float | None:
        """The increase of a counter over all workers, with those that have gone since."""
        values = self._by_worker(QueryKey(quantity))
        if values and all(map(is_plausible, values.values())):
            return sum(values.values())
        return 0.0 if self._is_before_the_first_request(quantity) else None

    def _is_before_the_first_request(self, quantity: Quantity) -> bool:
        """Whether a metric is absent because it appears with the first request, and no worker had one."""
        if isinstance(self._answers.get(QueryKey(NAMES)), QueryError) or not self._workers.sampled:
            return False
        return all(self._workers.is_before_the_first_request(quantity, worker) for worker in self._workers.sampled)

    def _arrivals(self) -> Flow:
        """Arrivals; where they are unknown, which workers do not report what they take."""
        why = self._failed(OF_ARRIVALS)
        flow = Flow(why=why) if why else self._workers.flow()
        if flow.arrived is None and not flow.why:
            for quantity, worker in self._workers.lacking().items():
                self._unknown.setdefault(quantity, f"not all workers report it: {self._why_not(quantity)} ({worker})")
        return flow

    def _observed(self, quantity: Quantity) -> HistogramData | None:
        """What a distribution observed over the window, in all workers together."""
        count, total = (self._single(QueryKey(quantity, part)) for part in ("count", "sum"))
        if count is not None and total is not None:
            metrics = scrapable_metrics(self._vocabulary, quantity)
            scale = next((each.scale for each in metrics if isinstance(each, Histogram)), 1.0)
            if isinstance(why := self._answers.get(QueryKey(quantity, "bucket")), QueryError):
                self._remarks["traffic", quantity, "quantiles"] = str(why)
            buckets = cumulative_buckets(self._vector(QueryKey(quantity, "bucket")), count, scale)
            return HistogramData(count, total, buckets) if count > MIN_COUNT else EMPTY_HISTOGRAM
        return EMPTY_HISTOGRAM if self._is_before_the_first_request(quantity) else None

    def _single(self, key: QueryKey) -> float | None:
        values = list(self._vector(key).values())
        return values[0] if len(values) == 1 and is_plausible(values[0]) else None

    def _why_not(self, quantity: Quantity, otherwise: str = "") -> str:
        """Why there is no value of a quantity."""
        vocabulary = self._vocabulary
        if quantity not in vocabulary.quantities:
            return vocabulary.cannot_tell.get(quantity, f"{vocabulary.engine} has no metric for it")
        metrics = scrapable_metrics(vocabulary, quantity)
        if not metrics:
            return f"{vocabulary.engine} reports it only in JSON, which Prometheus does not scrape: scrape the workers"
        for key, answer in self._answers.items():
            if key.quantity == quantity and isinstance(answer, QueryError):
                return str(answer)
        names = list(dict.fromkeys(name for metric in metrics for name in presence_names_of(metric)))
        if not self._present and (error := self._failed([NAMES])):
            return f"whether Prometheus has {' or '.join(names)} is unknown: {error}"
        if absent := absent_names(metrics, self._names):
            how = start_hint(vocabulary.switches.get(quantity, ""))
            return f"Prometheus has no {' or '.join(absent)} with these labels{how}"
        if why := why_not_picked(metrics, self._vector(QueryKey(LABELS, quantity))):
            return why
        if quantity in GAUGES:
            return f"Prometheus has no {' or '.join(names)} of it"
        return (otherwise or ONE_SAMPLE).format(names=" or ".join(names), window_s=self._scope.window_s)
