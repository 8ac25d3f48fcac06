"""What the sources make of situations in which metrics lie.

    python -m tests.support.sources.lies [--situations 10000]

prints how often each quantity is known, unknown and wrong in each kind of situation, and fails where one is wrong.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections import Counter
from collections.abc import Mapping

from dynamo_planner.core.metrics import PoolMetrics, Traffic
from dynamo_planner.engines.sglang import SGLANG
from dynamo_planner.sources.aggregation.pools import pool_metrics
from dynamo_planner.sources.aggregation.sample import read_page
from dynamo_planner.sources.aggregation.traffic import service_traffic
from dynamo_planner.sources.aggregation.window import WorkerHistory
from tests.support.sources.situations import BEGIN_S, EVERY_S, FIRST_JUDGED, KINDS, TURNS, WINDOW_S, Situation, Worker
from tests.support.sources.true_service import Process, mean_isl

TOUCHED: Mapping[str, frozenset[str]] = {
    "no fault": frozenset(),
    "restart": frozenset({"requests_per_s", "isl", "running", "queued", "kv_usage"}),
    "two processes": frozenset({"requests_per_s", "isl", "running", "queued", "kv_usage"}),
    "given up": frozenset({"requests_per_s", "isl"}),
    "skips prefill": frozenset({"requests_per_s", "isl"}),
    "does not answer": frozenset({"running", "queued", "kv_usage"}),
    "sleeps": frozenset(),
}
"""The quantities that each kind of situation touches: the others have to be known."""

Spans = Mapping[str, tuple[float, float]]
"""For each worker, from when to when it is known what it did, in Unix seconds."""

Table = Counter[tuple[str, str, str]]
"""How often, by kind of situation, quantity and outcome: ``known``, ``unknown`` or ``wrong``."""


def judge(kind: str, seed: int) -> Table:
    """Draw one situation, observe it turn by turn, and judge each quantity."""
    situation = KINDS[kind](random.Random(f"{kind} {seed}"))
    histories = {name: WorkerHistory(name, WINDOW_S) for name in situation.workers}
    table: Table = Counter()
    previous_s = None
    for turn in range(TURNS + 1):
        at_s = BEGIN_S + EVERY_S * turn
        for name, worker in situation.workers.items():
            page = worker.page(at_s)
            histories[name].observed = page is not None
            if page is not None:
                histories[name].add(read_page(page, situation.vocabulary, at_s), previous_s)
        previous_s = at_s
        if turn >= FIRST_JUDGED and any(history.observed for history in histories.values()):
            for quantity, outcome in _outcomes(situation, histories, at_s).items():
                table[kind, quantity, outcome] += 1
    return table


def _outcomes(situation: Situation, histories: Mapping[str, WorkerHistory], at_s: float) -> dict[str, str]:
    workers = situation.workers
    pools = {
        worker.pool: [histories[n] for n, w in workers.items() if w.pool == worker.pool] for worker in workers.values()
    }
    traffic = service_traffic(pools, {pool: pool for pool in pools}, at_s).as_traffic(at_s)  # type: ignore[misc]
    spans = {
        name: (
            at_s - (traffic.window_s or 0) if intervals[0].since_start else intervals[0].start_s,
            intervals[-1].end_s,
        )
        for name, history in histories.items()
        if (intervals := history.recent(at_s))
    }
    believed = {name: span for name, span in spans.items() if not any(i.doubt for i in histories[name].recent(at_s))}
    isl = "unknown" if traffic.isl is None and believed != spans else _isl(situation, believed, traffic)
    outcomes = {"requests_per_s": _arrivals(situation, spans, traffic), "isl": isl}
    main = "decode" if "decode" in pools else "aggregated"
    metrics, _ = pool_metrics(pools[main], at_s)
    return outcomes | _gauges(situation, histories, metrics, main, at_s)


def _arrivals(situation: Situation, spans: Spans, traffic: Traffic) -> str:
    """Within the stated error: noise, what may be counted twice, and what is lost with a process that dies."""
    if traffic.requests_per_s is None:
        return "unknown"
    counting = {name: worker for name, worker in situation.workers.items() if worker.counts and name in spans}
    for option in ({name: worker.processes for name, worker in counting.items()}, *situation.alternatives):
        least = most = 0.0
        for name, processes in option.items():
            from_s, to_s = spans[name]
            true = sum(process.arrived(from_s, to_s) for process in processes)
            running = sum(process.running(to_s) + process.running(from_s) for process in processes)
            error = 6 + 0.1 * true + 0.2 * running + (3 * math.sqrt(true) if _is_split(situation) else 0)
            most += (true + error) / (to_s - from_s)
            least += (true - error - _lost(situation.workers[name], from_s)) / (to_s - from_s)
        if least <= traffic.requests_per_s <= most:
            return "known"
    return "wrong"


def _lost(worker: Worker, from_s: float) -> int:
    """What came to processes that have died since, and nobody saw: since the last scrape, or inside."""
    return sum(
        sum(each.arrived_s <= died_s and each.left_s > died_s - EVERY_S for each in process.requests)
        for process in worker.processes
        for died_s in worker.loses_s
        if died_s > from_s - EVERY_S and process.began_s < died_s
    )


def _is_split(situation: Situation) -> bool:
    return any(worker.pool == "prefill" for worker in situation.workers.values())


def _isl(situation: Situation, spans: Spans, traffic: Traffic) -> str:
    """Of those that ended in the window, but for what is lost with a process that dies."""
    options = [
        {n: w.processes for n, w in situation.workers.items() if w.counts and n in spans},
        *situation.alternatives,
    ]
    if _is_split(situation):
        options.append({n: w.processes for n, w in situation.workers.items() if not w.counts})
    for option in options:
        believed = {name: processes for name, processes in option.items() if name in spans}
        ended = [r for name, processes in believed.items() for p in processes for r in p.left(*spans[name])]
        counted = [r for r in ended if r.first_s < math.inf and (situation.vocabulary is SGLANG or not r.given_up)]
        lost = sum(_lost(situation.workers[name], spans[name][0]) for name in believed)
        true = mean_isl(counted)
        if traffic.isl is None:
            return "unknown" if true is not None else "known"
        if true is not None and abs(true - traffic.isl.mean) <= 1e-6 + 1980 * lost / (lost + len(counted)):
            return "known"
    return "wrong"


def _gauges(
    situation: Situation, histories: Mapping[str, WorkerHistory], metrics: PoolMetrics, pool: str, at_s: float
) -> dict[str, str]:
    """Sums over the workers that answered, or of one of the processes behind an address; the mean of the awake."""
    shown = [w for name, w in situation.workers.items() if w.pool == pool and histories[name].observed]
    options = [
        [p for w in shown for p in w.processes if p.began_s <= at_s],
        *(option["w0"] for option in situation.alternatives),
    ]
    outcomes = {}
    for quantity, of in (("running", Process.running), ("queued", Process.waiting)):
        value = getattr(metrics, quantity)
        right = any(value == sum(of(p, at_s) for p in _alive(processes, shown, at_s)) for processes in options)
        outcomes[quantity] = "unknown" if value is None else "known" if right else "wrong"
    sure = [w for name, w in situation.workers.items() if w in shown and not histories[name].doubt]
    awake = [[p for p in _alive(w.processes, [w], at_s) if p.began_s <= at_s] for w in sure if not w.asleep]
    choices = [[min(1.0, sum(p.running(at_s) for p in own) / 100) for own in awake]]
    choices += [[min(1.0, p.running(at_s) / 100) for p in option["w0"]] for option in situation.alternatives]
    right = metrics.kv_usage is not None and any(
        math.isclose(metrics.kv_usage, sum(usages) / max(1, len(usages)), abs_tol=1e-9) for usages in choices
    )
    outcomes["kv_usage"] = "unknown" if metrics.kv_usage is None else "known" if right else "wrong"
    return outcomes


def _alive(processes: list[Process], shown: list[Worker], at_s: float) -> list[Process]:
    """Without those that have died."""
    dead = {id(w.processes[0]) for w in shown for died_s in w.loses_s if died_s <= at_s}
    return [process for process in processes if id(process) not in dead]


def show(table: Table) -> str:
    """The table as text."""
    lines = [f"{'situation':17}{'quantity':17}{'known':>9}{'unknown':>9}{'wrong':>9}"]
    for kind, quantity in sorted({(kind, quantity) for kind, quantity, _ in table}):
        counts = [table[kind, quantity, outcome] for outcome in ("known", "unknown", "wrong")]
        lines.append(f"{kind:17}{quantity:17}" + "".join(f"{count:9}" for count in counts))
    return "\n".join(lines)


def main() -> None:
    """Judge as many situations as asked for, evenly of all kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--situations", type=int, default=10_000)
    table: Table = Counter()
    for number in range(parser.parse_args().situations):
        table += judge(list(KINDS)[number % len(KINDS)], number)
    sys.stdout.write(f"{show(table)}\n")
    sys.exit(any(outcome == "wrong" for _, _, outcome in table))


if __name__ == "__main__":
    main()
