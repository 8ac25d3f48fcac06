"""The arrivals of a pool from the answers about each of its workers, and which workers' counters are believed.

Prometheus takes every counter that falls for a restart (``increase``). Whether it can have been one is asked of the
start time of the process: it has to lie within the window, and never goes back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from dynamo_planner.engines.vocabulary import Quantity, Vocabulary
from dynamo_planner.sources.aggregation.arrivals import Flow, UncountedError, add_up, lower_bound
from dynamo_planner.sources.aggregation.process import (
    ANOTHER_PROCESS,
    CLOCK_SKEW_S,
    MANY_REQUESTS,
    OUTNUMBERED,
    PERHAPS_ANOTHER,
    REQUESTS,
    SURGE,
)
from dynamo_planner.sources.aggregation.selection import is_plausible
from dynamo_planner.sources.aggregation.window import arrivals_of_each
from dynamo_planner.sources.prometheus.query_keys import (
    ANSWERED,
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
    OBSERVED_AT,
    OLDEST_START,
    SAMPLED_BEFORE,
    START_FELL,
    STARTED,
    SUM_OF_TTFT,
    TOTAL,
    TOTAL_BEFORE,
    UP,
    USUAL,
    WAITING_BEFORE,
    WAITING_CHANGE,
    WITNESSES,
    QueryKey,
    presence_names_of,
    scrapable_metrics,
)

MANY_TIMES = 10
"""By how much more a process has to have counted than the one after it, for both to be told apart in each series."""

FEW = 3
"""Up to this many requests a worker is taken for new that Prometheus has just begun to scrape."""

ByWorker = Callable[[QueryKey], Mapping[str, float]]
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
        doubts = dict.fromkeys(self._elsewhere(), ANOTHER_PROCESS)
        for worker in fell | newest_s.keys():
            newest = newest_s.get(worker)
            if newest is None or newest > self.at_s + CLOCK_SKEW_S:
                doubts[worker] = PERHAPS_ANOTHER
            elif went_back.get(worker, 0.0) > 0 or (
                newest < self.at_s - self.window_s - CLOCK_SKEW_S
                and (worker in fell or oldest_s.get(worker, newest) != newest)
            ):
                doubts[worker] = ANOTHER_PROCESS
        doubts = {worker: why for worker, why in doubts.items() if why == ANOTHER_PROCESS or worker in fell}
        return doubts | {worker: PERHAPS_ANOTHER for worker in self._in_turn() if worker not in newest_s}

    def why_no_means(self) -> str:
        """Why distributions are unknown, where a worker restarted that had counted little; empty where none did.

        Prometheus takes the count and the sum of a distribution for restarted where each is lower than before, and of a
        process that soon has as much as the one before only one of the two may be.
        """
        newest_s, oldest_s = self.by_worker(QueryKey(STARTED)), self.by_worker(QueryKey(OLDEST_START))
        for worker in newest_s:
            now, then = (self._total(each, worker) for each in (TOTAL, TOTAL_BEFORE))
            began = newest_s[worker] != oldest_s.get(worker, newest_s[worker])
            if began and worker not in self.doubts() and then < MANY_TIMES * now:
                return f"{worker} restarted soon after it had begun, and Prometheus adds up what both processes counted"
        return ""

    def _total(self, key: str, worker: str) -> float:
        """The requests that one worker has counted."""
        return max((self.by_worker(QueryKey(key, quantity)).get(worker, 0.0) for quantity in COUNTED), default=0.0)

    def _elsewhere(self) -> Iterator[str]:
        """Workers whose requests took more time than they can have had inside (:func:`were_elsewhere`)."""
        peaks = self.by_worker(QueryKey(INSIDE_PEAK))
        for worker, total_ms in self.by_worker(QueryKey(SUM_OF_TTFT)).items():
            count = max(self.by_worker(QueryKey(quantity)).get(worker, 0.0) for quantity in REQUESTS)
            most_s = OUTNUMBERED * (1 + peaks.get(worker, math.inf)) * self.window_s
            if count > MANY_REQUESTS and total_ms / 1000 > most_s:
                yield worker

    def _in_turn(self) -> Iterator[str]:
        """Workers whose counters fall again and again, or grow beyond belief, as those of two processes in turn do."""
        yield from (worker for worker, count in self.by_worker(QueryKey(FELL_LATELY)).items() if count > 1)
        for quantity in REQUESTS:
            usual, halves = (self.by_worker(QueryKey(each, quantity)) for each in (USUAL, HALF))
            for worker, grown in self.by_worker(QueryKey(quantity)).items() if usual or halves else ():
                half = halves.get(worker, 0.0)
                least = min(usual.get(worker, 0.0), half, grown - half)
                if grown > max(MANY_REQUESTS, SURGE * least):
                    yield worker

    def increase(self, quantity: Quantity, worker: str) -> float | None:
        """How much a counter of one worker grew; 0 before the first request."""
        if self._is_gone(quantity, worker):
            return None
        grown = self.by_worker(QueryKey(quantity)).get(worker)
        first = self.by_worker(QueryKey(FIRST_VALUE, quantity)).get(worker)
        if first is not None and self.by_worker(QueryKey(KNOWN_BEFORE)).get(worker):
            grown = first + (grown or 0.0)  # its series came in the window, to a worker that was there before
        if grown is not None:
            return grown if is_plausible(grown) else None
        return 0.0 if self.is_before_the_first_request(quantity, worker) else None

    def _is_gone(self, quantity: Quantity, worker: str) -> bool:
        """Whether a worker that is there has a counter no more, so that what it grew is of a part of the window."""
        there = self.present.get(worker) if worker in self.sampled else None
        grown = self.by_worker(QueryKey(quantity)).get(worker)
        return bool(there) and grown is not None and set(there or ()).isdisjoint(self._names(quantity))

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
        return Flow(arrived=max(0.0, arrivals), at_least=lower_bound(flows.values()))

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
        running, *waiting = (self._value(each, worker) or 0.0 for each in ("running", "waiting", WAITING_BEFORE))
        flow = Flow(
            arrived=self.increase("arrivals", worker),
            ended=self.increase("completions", worker),
            aborted=self.increase("aborts", worker) or 0.0,
            inside=self._change(INSIDE_CHANGE, worker),
            first_tokens=self.increase("first_tokens", worker),
            waiting=self._change(WAITING_CHANGE, worker),
            preemptions=self.increase("preemptions", worker),
            running=running if is_plausible(running) else 0.0,
            waited=max(filter(is_plausible, waiting), default=0.0),
        )
        if self._came_late(worker):
            return Flow(why=f"Prometheus has scraped {worker} for a part of the window only")
        answered = self._value(ANSWERED, worker)
        return flow if answered is None or answered >= 1 else self._of_seen_span(flow, worker)

    def _came_late(self, worker: str) -> bool:
        """Whether what a worker did at the beginning of the window is unknown: it was there, and has no sample then."""
        if self._value(OBSERVED_AT, worker) is None or self._value(SAMPLED_BEFORE, worker) is not None:
            return False
        started_s = self._value(STARTED, worker)
        if started_s is None or started_s > self.at_s - self.window_s:
            return False
        firsts = (self.by_worker(QueryKey(FIRST_VALUE, quantity)).get(worker, 0.0) for quantity in COUNTED)
        return max(firsts, default=0.0) > FEW

    def _of_seen_span(self, flow: Flow, worker: str) -> Flow:
        """The flow from the values at both ends: what grew between some of the samples is of a part of the window.

        A process that began in between began with nothing. The flow is as it was where one of the values is not there
        or a counter fell; unknown of a worker of before that did not answer at the beginning of the window, or does not
        now, and where a counter is lower than before and no start time says that it is another process's.
        """
        to_s, from_s = (self._value(each, worker) for each in (OBSERVED_AT, SAMPLED_BEFORE))
        if to_s is None and self._value(UP, worker) == 0:
            return Flow(why=f"Prometheus cannot scrape {worker} (up is 0), and what came to it since is unknown")
        if to_s is not None and from_s is None and self._value(KNOWN_EARLIER, worker):
            return Flow(why=f"Prometheus could not scrape {worker} at the beginning of the window")
        if to_s is None or from_s is None or to_s <= from_s or self._fell(worker):
            return flow
        began_s = max(from_s, self._value(STARTED, worker) or 0.0)
        anew = began_s > from_s
        if not anew and any(self._grown(quantity, worker) < 0 for quantity in COUNTED):
            return Flow(why=f"{PERHAPS_ANOTHER} ({worker})")
        scale = self.window_s / max(to_s - began_s, self.window_s if anew else 0.0)
        inside = self._value("inside", worker)
        if inside is None:
            inside = add_up(self._value(each, worker) for each in ("running", "waiting"))

        def changed(now: float | None, before: float | None, otherwise: float | None) -> float | None:
            then = 0.0 if anew else before
            return otherwise if now is None or then is None or otherwise is None else scale * (now - then)

        def grown(quantity: Quantity, otherwise: float | None) -> float | None:
            now, then = (self.by_worker(QueryKey(each, quantity)).get(worker) for each in (TOTAL, TOTAL_BEFORE))
            return changed(now, then, otherwise)

        return replace(
            flow,
            arrived=grown("arrivals", flow.arrived),
            ended=grown("completions", flow.ended),
            aborted=grown("aborts", flow.aborted) or 0.0,
            inside=changed(inside, self._value(INSIDE_BEFORE, worker), flow.inside),
            first_tokens=grown("first_tokens", flow.first_tokens),
            waiting=changed(self._value("waiting", worker), self._value(WAITING_BEFORE, worker), flow.waiting),
        )

    def _grown(self, quantity: Quantity, worker: str) -> float:
        """By how much a counter is higher than before the window; 0 where that is not known."""
        now, then = (self.by_worker(QueryKey(each, quantity)).get(worker) for each in (TOTAL, TOTAL_BEFORE))
        return 0.0 if now is None or then is None else now - then

    def _fell(self, worker: str) -> bool:
        return any(self.by_worker(QueryKey(FELL, part)).get(worker, 0.0) > 0 for part in WITNESSES)

    def _change(self, key: str, worker: str) -> float | None:
        """The change of a queue; unknown of a worker that is there and has its gauge no more."""
        there = self.present.get(worker) if worker in self.sampled else None
        of: tuple[Quantity, ...] = ("waiting",) if key == WAITING_CHANGE else ("inside", "running", "waiting")
        for each in of if there else ():
            if each in self.vocabulary.quantities and set(there or ()).isdisjoint(self._names(each)):
                return None
        return self._value(key, worker)

    def _value(self, quantity: str, worker: str) -> float | None:
        return self.by_worker(QueryKey(quantity)).get(worker)

    def _flows(self) -> dict[str, Flow]:
        """The flow of each worker, with those that have gone since."""
        keys = (QueryKey("arrivals"), QueryKey("completions"), QueryKey(INSIDE_CHANGE))
        workers = {worker for key in keys for worker in self.by_worker(key)} | set(self.sampled)
        return {worker: self._flow(worker) for worker in sorted(workers)}

    def _is_partial(self, worker: str, flow: Flow) -> bool:
        """Whether a worker came or went within the window, and has too few samples for a rate."""
        if flow.why or flow.arrived is not None or (flow.ended is not None and flow.inside is not None):
            return False
        return worker not in self.sampled or not self.by_worker(QueryKey(KNOWN_BEFORE)).get(worker)

    def _names(self, quantity: Quantity) -> Iterator[str]:
        for metric in scrapable_metrics(self.vocabulary, quantity):
            yield from presence_names_of(metric)
