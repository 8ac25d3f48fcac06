"""The arrivals of a pool from the answers about each of its workers, and which workers' counters are believed.

Prometheus takes every counter that falls for a restart (``increase``). Whether it can have been one is asked of the
start time of the process: it has to lie within the window, and never goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from dynamo_planner.engines.vocabulary import Quantity, Vocabulary
from dynamo_planner.sources.aggregation.arrivals import Flow, UncountedError, add_up
from dynamo_planner.sources.aggregation.process import ANOTHER_PROCESS, CLOCK_SKEW_S, PERHAPS_ANOTHER
from dynamo_planner.sources.aggregation.selection import is_plausible
from dynamo_planner.sources.aggregation.window import arrivals_of_each
from dynamo_planner.sources.prometheus.query_keys import (
    FELL,
    FIRST_VALUE,
    INSIDE_CHANGE,
    INSIDE_PEAK,
    KNOWN_BEFORE,
    OLDEST_START,
    START_FELL,
    STARTED,
    WAITING_CHANGE,
    WITNESSES,
    QueryKey,
    presence_names_of,
    scrapable_metrics,
)

ByWorker = Callable[[QueryKey], dict[str, float]]
"""The answer to a query, by worker."""


@dataclass(frozen=True)
class WorkerAnswers:
    """The answers about the counters of each worker of a pool at one moment.

    Args:
        by_worker: the answer to each query.
        present: the names of the metrics that each worker has.
        sampled: the workers with a sample in the window.
        vocabulary: of their engine.
        window_s: the length of the window, in seconds.
        at_s: its end, in Unix seconds.
    """

    by_worker: ByWorker
    present: Mapping[str, Collection[str]]
    sampled: Collection[str]
    vocabulary: Vocabulary
    window_s: float
    at_s: float

    def doubts(self) -> dict[str, str]:
        """For each worker whose counters are not believed, why."""
        fell = {
            worker for part in WITNESSES for worker, count in self.by_worker(QueryKey(FELL, part)).items() if count > 0
        }
        went_back, oldest_s = self.by_worker(QueryKey(START_FELL)), self.by_worker(QueryKey(OLDEST_START))
        newest_s = self.by_worker(QueryKey(STARTED))
        doubts = {}
        for worker in fell | newest_s.keys():
            newest = newest_s.get(worker)
            if newest is None or newest > self.at_s + CLOCK_SKEW_S:
                doubts[worker] = PERHAPS_ANOTHER
            elif went_back.get(worker, 0.0) > 0 or (
                newest < self.at_s - self.window_s - CLOCK_SKEW_S
                and (worker in fell or oldest_s.get(worker, newest) != newest)
            ):
                doubts[worker] = ANOTHER_PROCESS
        return {worker: why for worker, why in doubts.items() if why == ANOTHER_PROCESS or worker in fell}

    def increase(self, quantity: Quantity, worker: str) -> float | None:
        """How much a counter of one worker grew; 0 before the first request."""
        grown = self.by_worker(QueryKey(quantity)).get(worker)
        first = self.by_worker(QueryKey(FIRST_VALUE, quantity)).get(worker)
        if first is not None and self.by_worker(QueryKey(KNOWN_BEFORE)).get(worker):
            grown = first + (grown or 0.0)  # its series came in the window, to a worker that was there before
        if grown is not None:
            return grown if is_plausible(grown) else None
        return 0.0 if self.is_before_the_first_request(quantity, worker) else None

    def is_before_the_first_request(self, quantity: Quantity, worker: str) -> bool:
        """Whether a worker lacks a metric because it appears with the first request, and there was none.

        Where the engine has to be told to report it, a worker that had requests inside is not before its first one.
        """
        late = self.vocabulary.with_first_request
        if quantity not in late or not self.present.get(worker):
            return False
        if self.vocabulary.switches.get(quantity) and self.by_worker(QueryKey(INSIDE_PEAK)).get(worker, 1.0) > 0:
            return False
        names = (name for other in late for name in self._names(other))
        return set(self.present[worker]).isdisjoint(names)

    def flow(self) -> Flow:
        """The requests of the pool. Where some are not counted, or a worker does not report them, it says why."""
        flows = {worker: flow for worker, flow in self._flows().items() if not self._is_partial(worker, flow)}
        try:
            arrivals = add_up(arrivals_of_each(list(flows), list(flows.values()))) if flows else None
        except UncountedError as error:
            return Flow(why=str(error))
        if arrivals is None:
            return Flow()
        return Flow(arrived=max(0.0, arrivals))

    def lacking(self) -> dict[Quantity, str]:
        """The quantities that arrivals take and some workers do not report, with such a worker."""
        lacking: dict[Quantity, str] = {}
        for worker, flow in self._flows().items():
            if flow.arrived is None and not self._is_partial(worker, flow):
                if flow.ended is None:
                    lacking.setdefault("completions", worker)
                if flow.inside is None:
                    lacking.setdefault("running", worker)
        return lacking

    def _flow(self, worker: str) -> Flow:
        running = self.by_worker(QueryKey("running")).get(worker, 0.0)
        return Flow(
            arrived=self.increase("arrivals", worker),
            ended=self.increase("completions", worker),
            aborted=self.increase("aborts", worker) or 0.0,
            inside=self.by_worker(QueryKey(INSIDE_CHANGE)).get(worker),
            first_tokens=self.increase("first_tokens", worker),
            waiting=self.by_worker(QueryKey(WAITING_CHANGE)).get(worker),
            preemptions=self.increase("preemptions", worker),
            running=running if is_plausible(running) else 0.0,
        )

    def _flows(self) -> dict[str, Flow]:
        """The flow of each worker, with those that have gone since."""
        keys = (QueryKey("arrivals"), QueryKey("completions"), QueryKey(INSIDE_CHANGE))
        workers = {worker for key in keys for worker in self.by_worker(key)} | set(self.sampled)
        return {worker: self._flow(worker) for worker in sorted(workers)}

    def _is_partial(self, worker: str, flow: Flow) -> bool:
        """Whether a worker came or went within the window, and has too few samples for a rate."""
        if flow.arrived is not None or (flow.ended is not None and flow.inside is not None):
            return False
        return worker not in self.sampled or not self.by_worker(QueryKey(KNOWN_BEFORE)).get(worker)

    def _names(self, quantity: Quantity) -> Iterator[str]:
        for metric in scrapable_metrics(self.vocabulary, quantity):
            yield from presence_names_of(metric)
