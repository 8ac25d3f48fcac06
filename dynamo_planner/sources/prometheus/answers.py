"""What Prometheus answered about a pool at one moment, in the terms of a vocabulary.

Its workers become tracks, as those that are scraped have, and what all of them did over the window one more, of a
worker that is not listed; from there on both sources are the same code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from dynamo_planner.engines.metric_kinds import Gauge, Histogram, Info
from dynamo_planner.engines.vocabulary import COUNTERS, DISTRIBUTIONS, GAUGES, QUANTITIES, Quantity, Vocabulary
from dynamo_planner.sources.aggregation.increase import EMPTY_HISTOGRAM, Interval
from dynamo_planner.sources.aggregation.sample import SHARE_TOLERANCE, SHARES, HistogramData, WorkerSample, start_hint
from dynamo_planner.sources.aggregation.selection import MAX_PLAUSIBLE
from dynamo_planner.sources.aggregation.window import WorkerHistory
from dynamo_planner.sources.prometheus.api import QueryError, Vector
from dynamo_planner.sources.prometheus.promql import (
    INSIDE_CHANGE,
    KNOWN_BEFORE,
    NAMES,
    OBSERVED_AT,
    UP,
    Ask,
    Scope,
    presence_names_of,
    told_metrics,
)

Answers = Mapping[Ask, Vector | QueryError]

TOO_NEW = "Prometheus knows of {names}, but not yet for the {window_s:g} s of the window"
ONE_SAMPLE = "no worker has two samples of {names} within the {window_s:g} s of the window: is window_s too short?"

T = TypeVar("T")

NEXT_TO_NOTHING = 1e-9
"""A count by which no sum is to be divided; a single observation within a window is never so small a part."""

SAME = 0.01
"""Relative difference of two counts of the same things, up to which they are taken for the same."""


@dataclass(frozen=True)
class PoolAnswers:
    """A pool at one moment: its workers, those that could not be scraped included, and what they did over the window.

    ``causes`` says why those are not seen that are not. ``has_up`` says whether Prometheus knows of scrape targets, and
    so how many workers there should be.
    """

    tracks: list[WorkerHistory]
    causes: dict[str, str]
    has_up: bool

    @property
    def seen(self) -> list[WorkerHistory]:
        """The workers that Prometheus has recent samples of."""
        return [track for track in self.tracks if track.observed]

    @property
    def observed_at_s(self) -> float | None:
        """When the oldest of the samples was taken that count as recent; of each worker its newest one."""
        return min((track.last.at_s for track in self.seen if track.last), default=None)


class UnlabelledError(Exception):
    """The series do not have the label that tells workers from each other; the message says so."""


def read_answers(answers: Answers, vocabulary: Vocabulary, scope: Scope, at_s: float) -> PoolAnswers:
    """The pool at ``at_s``. Raises :class:`UnlabelledError`."""
    return _Reader(answers, vocabulary, scope, at_s).read()


class _Reader:
    def __init__(self, answers: Answers, vocabulary: Vocabulary, scope: Scope, at_s: float) -> None:
        self._answers = answers
        self._vocabulary = vocabulary
        self._scope = scope
        self._at_s = at_s
        self._there = {dict(labels).get("__name__", "") for labels in self._vector(Ask(NAMES))}
        self._unknown: dict[str, str] = {}

    def read(self) -> PoolAnswers:
        oldest_s = self._at_s - self._scope.window_s
        times_s = self._by_worker(Ask(OBSERVED_AT))
        seen_s = {worker: time_s for worker, time_s in times_s.items() if oldest_s <= time_s < math.inf}
        if "" in seen_s:
            raise UnlabelledError(
                f"its series have no label {self._scope.worker_label!r} to tell workers by (worker_label)"
            )
        up = {worker: value for worker, value in self._by_worker(Ask(UP)).items() if worker}
        did = self._did()
        gauges = {quantity: self._gauges(quantity, seen_s) for quantity in (*GAUGES, *self._shares())}
        tracks, causes = [], {}
        for worker in sorted(up.keys() | seen_s.keys()):
            track = WorkerHistory(worker, self._scope.window_s)
            track.observed = worker in seen_s
            if track.observed:
                track.last = self._reading(worker, seen_s[worker], gauges)
            else:
                causes[worker] = self._why_unseen(up[worker])
            tracks.append(track)
        tracks.append(WorkerHistory.unlisted("all workers", self._scope.window_s, did))
        return PoolAnswers(tracks, causes, has_up=bool(up))

    def _why_unseen(self, up: float) -> str:
        if up != 1:
            return "Prometheus could not scrape it (up is 0)"
        return f"Prometheus has no recent sample of {self._vocabulary.engine} from it"

    def _vector(self, ask: Ask) -> Vector:
        answer = self._answers.get(ask, {})
        return {} if isinstance(answer, QueryError) else answer

    def _by_worker(self, ask: Ask) -> dict[str, float]:
        return {dict(labels).get(self._scope.worker_label, ""): value for labels, value in self._vector(ask).items()}

    # The gauges of each worker

    def _reading(
        self, worker: str, seen_s: float, gauges: Mapping[Quantity, Mapping[str, float | str]]
    ) -> WorkerSample:
        reading = WorkerSample(at_s=seen_s, started_s=None, unknown=dict(self._unknown))
        for quantity, values in gauges.items():
            value = values.get(worker, self._why_not(quantity))
            if isinstance(value, str):
                reading.unknown[quantity] = value
            else:
                reading.gauges[quantity] = value
                reading.unknown.pop(quantity, None)
        return reading

    def _gauges(self, quantity: Quantity, workers: Iterable[str]) -> dict[str, float | str]:
        """The value at each worker that tells one, or why it is none."""
        metrics = told_metrics(self._vocabulary, quantity)
        ask = Ask(quantity)
        values = self._by_worker(ask)
        if any(isinstance(metric, Info) for metric in metrics):
            values = self._products(ask, metrics[0])
        return {worker: _possible(quantity, metrics, values[worker]) for worker in workers if worker in values}

    def _shares(self) -> Iterator[Quantity]:
        """Quantities that are distributions elsewhere, and that this engine tells as a gauge."""
        for quantity in DISTRIBUTIONS:
            if any(isinstance(metric, Gauge) for metric in told_metrics(self._vocabulary, quantity)):
                yield quantity

    def _products(self, ask: Ask, metric: Info) -> dict[str, float]:
        products: dict[str, float] = {}
        for labels, count in self._vector(ask).items():
            given = dict(labels)
            worker, product = given.get(self._scope.worker_label, ""), count
            for label in metric.labels:
                try:
                    product *= float(given[label])
                except (KeyError, ValueError):
                    product = math.nan
            products[worker] = products.get(worker, 0.0) + product
        return products

    # What they did over the window

    def _did(self) -> Interval:
        """What the workers did over the window, as far as it is known."""
        counters: dict[str, float] = {}
        histograms: dict[str, HistogramData] = {}
        for quantity in QUANTITIES:
            if quantity not in self._vocabulary.quantities:
                self._unknown[quantity] = self._why_not(quantity)
            elif not self._vector(Ask(KNOWN_BEFORE)):
                self._unknown[quantity] = self._why_not(quantity, TOO_NEW)
            elif quantity in COUNTERS:
                self._note(counters, quantity, self._increase(quantity))
            elif quantity in DISTRIBUTIONS:
                self._note(histograms, quantity, self._observed(quantity))
        return Interval(
            start_s=self._at_s - self._scope.window_s,
            end_s=self._at_s,
            since_start=False,
            arrivals=self._arrivals() if self._vector(Ask(KNOWN_BEFORE)) else None,
            counters=counters,
            histograms=histograms,
        )

    def _note(self, values: dict[str, T], quantity: Quantity, value: T | None) -> None:
        if value is None:
            self._unknown[quantity] = self._why_not(quantity)
        else:
            values[quantity] = value

    def _increase(self, quantity: Quantity) -> float | None:
        """How much a counter of all workers has grown, of those too that have gone since."""
        values = self._by_worker(Ask(quantity))
        if values and all(map(_is_possible, values.values())):
            return sum(values.values())
        return 0.0 if self._is_before_the_first_request(quantity) else None

    def _is_before_the_first_request(self, quantity: Quantity) -> bool:
        """Whether a metric is not there since it comes with the first request, and there was none."""
        late = self._vocabulary.with_first_request
        if quantity not in late or not self._there or isinstance(self._answers.get(Ask(NAMES)), QueryError):
            return False
        names = (
            name
            for other in late
            for metric in told_metrics(self._vocabulary, other)
            for name in presence_names_of(metric)
        )
        return self._there.isdisjoint(names)

    def _arrivals(self) -> float | None:
        """Arrivals; where the engine counts only completions, these and by how much what is in it has grown."""
        arrivals = self._by_worker(Ask("arrivals"))
        if arrivals and all(map(_is_possible, arrivals.values())):
            return sum(arrivals.values())
        done, grown = self._by_worker(Ask("completions")), self._by_worker(Ask(INSIDE_CHANGE))
        if not done and self._is_before_the_first_request("completions"):
            done = dict.fromkeys(grown, 0.0)
        total = sum(done.values()) + sum(grown.values())
        if done and done.keys() == grown.keys() and math.isfinite(total):
            return max(0.0, total)
        if done.keys() != grown.keys():
            lacking: Quantity = "completions" if grown.keys() - done.keys() else "running"
            self._unknown.setdefault(lacking, f"not all workers tell it: {self._why_not(lacking)}")
        return None

    def _observed(self, quantity: Quantity) -> HistogramData | None:
        """What a distribution observed over the window, in all workers together."""
        count, total = (self._single(Ask(quantity, part)) for part in ("count", "sum"))
        if count is not None and total is not None:
            return (
                HistogramData(count, total, self._buckets(quantity, count))
                if count > NEXT_TO_NOTHING
                else EMPTY_HISTOGRAM
            )
        return EMPTY_HISTOGRAM if self._is_before_the_first_request(quantity) else None

    def _single(self, ask: Ask) -> float | None:
        values = list(self._vector(ask).values())
        return values[0] if len(values) == 1 and _is_possible(values[0]) else None

    def _buckets(self, quantity: Quantity, count: float) -> dict[float, float]:
        """How many values were up to each bound; empty where buckets are not of the same values as the count."""
        histograms = [each for each in told_metrics(self._vocabulary, quantity) if isinstance(each, Histogram)]
        scale = histograms[0].scale if histograms else 1.0
        found: dict[float, float] = {}
        for labels, value in self._vector(Ask(quantity, "bucket")).items():
            try:
                found[float(dict(labels)["le"])] = value
            except (KeyError, ValueError):
                return {}
        if not math.isclose(found.pop(math.inf, math.nan), count, rel_tol=SAME, abs_tol=1e-9):
            return {}
        buckets: dict[float, float] = {}
        most = 0.0
        for bound, value in sorted(found.items()):
            if value >= most:  # fewer than at a lower bound: not all workers have this one
                buckets[bound * scale] = most = value
        return buckets

    def _why_not(self, quantity: Quantity, otherwise: str = "") -> str:
        """Why there is no value of a quantity."""
        vocabulary = self._vocabulary
        if quantity not in vocabulary.quantities:
            return vocabulary.cannot_tell.get(quantity, f"{vocabulary.engine} has no metric for it")
        metrics = told_metrics(vocabulary, quantity)
        if not metrics:
            return f"{vocabulary.engine} tells it only in JSON, which Prometheus does not scrape: scrape the workers"
        for ask, answer in self._answers.items():
            if ask.quantity == quantity and isinstance(answer, QueryError):
                return str(answer)
        names = list(dict.fromkeys(name for metric in metrics for name in presence_names_of(metric)))
        if self._there.isdisjoint(names):
            how = start_hint(vocabulary.switches.get(quantity, ""))
            return f"Prometheus has no {' or '.join(names)} with these labels{how}"
        if quantity in GAUGES:
            return f"Prometheus has no {' or '.join(names)} of it"
        return (otherwise or ONE_SAMPLE).format(names=" or ".join(names), window_s=self._scope.window_s)


def _is_possible(value: float) -> bool:
    return 0 <= value <= MAX_PLAUSIBLE


def _possible(quantity: Quantity, metrics: Iterable[object], value: float) -> float | str:
    """A value that can be, or why it cannot."""
    share = quantity in SHARES
    if share and 1 < value <= 1 + SHARE_TOLERANCE:
        return 1.0
    if _is_possible(value) and not (share and value > 1):
        return value
    return f"{quantity} is {value:g}, which it cannot be"
