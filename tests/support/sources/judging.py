"""Whether what is told of a situation is right within its stated error, unknown, or wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from dynamo_planner.core.metrics import Dist
from dynamo_planner.engines.sglang import SGLANG
from tests.support.sources.situations import Situation, Worker
from tests.support.sources.true_service import Process, Request
from tests.support.sources.views import View, main_pool

YOUNG = 0.75
"""By which factor a mean may be off whose counters began within the window or shortly before."""

COPIED = 0.75
"""By which factor a mean may be off whose count is of one copy and whose sum is of another, taken at another moment."""

Option = Mapping[str, Sequence[Process]]
"""For each worker, the processes that may be told of."""


def judged(situation: Situation, view: View) -> dict[str, str]:
    """For each quantity ``known``, ``unknown`` or ``wrong``."""
    return {
        "requests_per_s": _arrivals(situation, view),
        "isl": _mean(situation, view, view.traffic.isl, "isl"),
        "ttft_ms": _mean(situation, view, view.traffic.ttft_ms, "ttft_ms"),
        **_gauges(situation, view),
    }


def _arrivals(situation: Situation, view: View) -> str:
    """Within the stated error (noise, what may be counted twice, what is lost with a process), or a lower bound."""
    told = view.traffic.requests_per_s
    if told is None:
        return "unknown"
    counting = {name: worker for name, worker in situation.workers.items() if worker.counts and name in view.spans}
    split = any(worker.pool == "prefill" for worker in situation.workers.values())
    for option in ({name: worker.processes for name, worker in counting.items()}, *situation.alternatives):
        least = most = 0.0
        for name, processes in option.items():
            bounds = [
                _bounds_of_rate(situation, name, processes, span, view, split=split)
                for span in (view.spans[name], *view.other_spans.get(name, ()))
            ]
            least, most = least + min(low for low, _ in bounds), most + max(high for _, high in bounds)
        if (view.at_least or least <= told) and told <= most:
            return "known"
    return "wrong"


def _bounds_of_rate(
    situation: Situation,
    name: str,
    processes: Sequence[Process],
    span: tuple[float, float],
    view: View,
    *,
    split: bool,
) -> tuple[float, float]:
    """Three requests, a twentieth, and a fifth of the most that ran at a sample; a tenth where SGLang's are given up.

    Pools that count the same requests may differ by their own noise besides.
    """
    from_s, to_s = span
    true = sum(process.arrived(from_s, to_s) for process in processes)
    moments_s = {from_s, to_s, *(at_s for at_s in view.sampled_s[name] if from_s <= at_s <= to_s)}
    running = max(sum(process.running(at_s) for process in processes) for at_s in moments_s)
    twice = situation.vocabulary is SGLANG and "requests_per_s" in situation.touches
    error = 3 + (0.1 if twice else 0.05) * true + 0.2 * running + (3 * math.sqrt(true) if split else 0)
    if len(situation.jobs) > 1:  # what ended is of one copy and what is inside of another, at another moment
        error += sum(process.arrived(to_s - view.every_s, to_s) for process in processes)
    lost = _lost(situation.workers[name], from_s, view.every_s)
    return (true - error - lost) / (to_s - from_s), (true + error) / (to_s - from_s)


def _lost(worker: Worker, from_s: float, every_s: float) -> int:
    """What came to processes that have died since, and nobody saw: since the last scrape, or inside."""
    return sum(
        sum(each.arrived_s <= died_s and each.left_s > died_s - every_s for each in process.requests)
        for process in worker.processes
        for died_s in worker.loses_s
        if died_s > from_s - every_s and process.began_s < died_s
    ) + _overtaken(worker)


def _overtaken(worker: Worker) -> int:
    """What a process had counted that died, where the next one counts more and no start time tells the two apart."""
    if not worker.loses_s or worker.processes[0].shows_start:
        return 0
    old, new = (process.before + len(process.requests) for process in worker.processes)
    return old if old <= new else 0


def _mean(situation: Situation, view: View, told: Dist | None, quantity: str) -> str:
    """The mean over the requests that were observed, but for what is lost with a process that dies."""
    if told is None and view.believed != frozenset(view.spans):
        return "unknown"
    wrong = "wrong"
    for option in _options_of_means(situation, view):
        seen = {name: _values(situation, view, name, processes, quantity) for name, processes in option.items()}
        lost = sum(_lost(situation.workers[name], view.spans[name][0], view.every_s) for name in option)
        if told is None:
            return "unknown" if any(seen.values()) else "known"
        lowest, highest = _bounds([values for values in seen.values() if values], view.weights)
        number = sum(map(len, seen.values()))
        if view.weights > 1 and any(
            _is_young(situation, view, name, option[name], seen[name], quantity) for name in seen
        ):
            lowest, highest = lowest * YOUNG, highest / YOUNG
        if len(situation.jobs) > 1:
            lowest, highest = lowest * COPIED, highest / COPIED
        spread = (1980 if quantity == "isl" else 1000 * 100) * lost / (lost + number) if number else math.inf
        if lowest - spread - 1e-6 <= told.mean <= highest + spread + 1e-6:
            return "known"
    return wrong


def _options_of_means(situation: Situation, view: View) -> Iterator[Option]:
    counting = {name: worker.processes for name, worker in situation.workers.items() if worker.counts}
    others = {name: worker.processes for name, worker in situation.workers.items() if not worker.counts}
    for option in (counting, *situation.alternatives, *([others] if others else [])):
        yield {name: processes for name, processes in option.items() if name in view.spans and name in view.believed}


def _values(situation: Situation, view: View, name: str, processes: Sequence[Process], quantity: str) -> list[float]:
    """What was observed of a quantity, up to the last sample in which it was to be seen."""
    from_s, to_s = view.spans[name]
    if quantity in situation.touches and situation.until_s < math.inf:
        to_s = max((at_s for at_s in view.sampled_s[name] if at_s < situation.until_s), default=-math.inf)
    return _observed(situation, processes, from_s, to_s, quantity)


def _is_young(
    situation: Situation, view: View, name: str, processes: Sequence[Process], seen: Sequence[float], quantity: str
) -> bool:
    """Whether counters began so lately that Prometheus extrapolates count and sum differently, up to a quarter."""
    from_s = view.spans[name][0]
    for process in processes:
        before = _observed(situation, [process], process.began_s, from_s, quantity)
        usual = 900 if quantity == "isl" else 200
        counted, summed = len(before) + process.before, sum(before) + usual * process.before
        if counted < 1.2 * len(seen) or summed < 1.2 * sum(seen):
            return True
    return False


def _observed(
    situation: Situation, processes: Sequence[Process], from_s: float, to_s: float, quantity: str
) -> list[float]:
    if quantity == "ttft_ms":
        return [1000 * each.ttft_s for process in processes for each in process.first_tokens(from_s, to_s)]
    ended = [each for process in processes for each in process.left(from_s, to_s)]
    return [each.isl for each in ended if _is_counted(situation, each)]


def _is_counted(situation: Situation, request: Request) -> bool:
    return request.first_s < math.inf and (situation.vocabulary is SGLANG or not request.given_up)


def _bounds(groups: Sequence[Sequence[float]], weights: float) -> tuple[float, float]:
    """The lowest and the highest mean of all values, where groups may weigh more or less than their size."""
    means = []
    for factors in itertools.product(*([(1.0, weights)] * len(groups))) if weights > 1 else [(1.0,) * len(groups)]:
        size = sum(factor * len(group) for factor, group in zip(factors, groups, strict=True))
        total = sum(factor * math.fsum(group) for factor, group in zip(factors, groups, strict=True))
        means += [total / size] if size else []
    return (min(means), max(means)) if means else (math.inf, -math.inf)


def _gauges(situation: Situation, view: View) -> dict[str, str]:
    """Sums over the workers that answered, or of one of the processes behind an address; the mean of the awake."""
    pool = main_pool(situation)
    shown = {name: situation.workers[name] for name in view.seen_s if situation.workers[name].pool == pool}
    outcomes = {}
    for quantity, of in (("running", Process.running), ("queued", Process.waiting)):
        value = getattr(view.pool, quantity)
        sums = [
            sum(
                max(sum(of(p, at_s) for p in _alive(w, at_s)) for at_s in view.seen_s[name])
                for name, w in shown.items()
            )
        ]
        sums += [sum(of(p, view.seen_s["w0"][-1]) for p in each["w0"]) for each in situation.alternatives if shown]
        outcomes[quantity] = "unknown" if value is None else "known" if value in sums else "wrong"
    usages = [
        max(_usage(_alive(w, at_s), at_s) for at_s in view.seen_s[name])
        for name, w in shown.items()
        if name in view.sure and not w.asleep
    ]
    choices = [sum(usages) / max(1, len(usages))]
    choices += [_usage(each["w0"], view.seen_s["w0"][-1]) for each in situation.alternatives if shown]
    right = view.pool.kv_usage is not None and any(
        math.isclose(view.pool.kv_usage, each, abs_tol=1e-9) for each in choices
    )
    outcomes["kv_usage"] = "unknown" if view.pool.kv_usage is None else "known" if right else "wrong"
    return outcomes


def _usage(processes: Sequence[Process], at_s: float) -> float:
    return min(1.0, sum(process.running(at_s) for process in processes) / 100)


def _alive(worker: Worker, at_s: float) -> list[Process]:
    """The processes of a worker that have begun and not died."""
    dead = worker.processes[0] if any(died_s <= at_s for died_s in worker.loses_s) else None
    return [process for process in worker.processes if process is not dead and process.began_s <= at_s]
