"""Two counts of the same requests, where the service is split: do they agree?

With prefill and decode apart, a request may pass both pools, or be served by decode alone (short and cached prompts
under conditional disaggregation). Each pool's own counters count; what they say of each other is compared. So are
frontends and workers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dynamo_planner.core.metrics import Traffic
from dynamo_planner.sources.aggregation.window import WindowTotals, WorkerHistory, window_totals


@dataclass(frozen=True)
class Witness:
    """What some workers say of how many requests came.

    Args:
        arrivals: requests that came in the window; ``None`` where unknown.
        ended: requests that ended in it, as far as they are counted.
        span_s: the length of the window, in seconds.
        sampled_s: when the workers were sampled, in Unix seconds.
    """

    arrivals: float | None
    ended: float | None
    span_s: float
    sampled_s: tuple[float, ...]


def witness(workers: Sequence[WorkerHistory], at_s: float) -> Witness | None:
    """The witness of these workers; ``None`` where none of them has been observed for two samples."""
    window = window_totals(workers, at_s)
    return None if window is None else witness_of(window, workers)


def witness_of(window: WindowTotals, workers: Sequence[WorkerHistory]) -> Witness:
    """As :func:`witness`, of a window that is known already."""
    rate = window.rates.get("arrivals")
    return Witness(
        arrivals=None if rate is None else rate * window.span_s,
        ended=window.counters.get("completions"),
        span_s=window.span_s,
        sampled_s=tuple(worker.last.at_s for worker in workers if worker.observed and worker.last),
    )


def excess(first: Witness, second: Witness) -> float:
    """How many requests more (or, negative, fewer) the second one counts, beyond what need not agree.

    Requests that are still in the first one have not come to the second. Counts may differ by their noise, a
    twentieth, and by what comes between two moments of sampling.

    >>> excess(Witness(150, 150, 30, (0,)), Witness(1500, 1480, 30, (0,))) > 1000, excess(
    ...     Witness(300, 100, 30, (0,)), Witness(110, 60, 30, (0,)))
    (True, 0.0)
    """
    if first.arrivals is None or second.arrivals is None:
        return 0.0
    most = max(first.arrivals, first.ended or 0.0)
    least = min(first.arrivals, first.arrivals if first.ended is None else first.ended)
    higher = max(most, second.arrivals)
    moments_s = (*first.sampled_s, *second.sampled_s)
    apart_s = max(moments_s) - min(moments_s) if moments_s else 0.0
    noise = 5 + 0.05 * higher + 3 * math.sqrt(higher) + higher * min(1.0, apart_s / max(first.span_s, second.span_s))
    if second.arrivals > most + noise:
        return second.arrivals - most
    return second.arrivals - least if second.arrivals < least - noise else 0.0


RATE = "requests_per_s"
AT_WORKERS = f"{RATE}.workers"
"""The field of what is said where frontends count more requests than reach the workers."""


def compare_with_frontends(frontends: Traffic, workers: Traffic) -> dict[str, str]:
    """Where frontends and workers count differently beyond the noise, what it may be, by the field it is about.

    Where workers count more, the arrivals that frontends count cannot be all, and are unknown (``requests_per_s``).
    Fewer at the workers are no contradiction: a frontend counts what it refuses, and what waits before them. They are
    known, and the difference is said (``AT_WORKERS``).
    """
    first, second = (
        Witness(
            arrivals=_count(each),
            ended=None,
            span_s=each.window_s or 1.0,
            sampled_s=() if each.observed_at_s is None else (each.observed_at_s,),
        )
        for each in (frontends, workers)
    )
    more = excess(first, second)
    if more == 0:
        return {}
    rates = (frontends.requests_per_s, workers.requests_per_s)
    counts = "the frontends count {:.3g} requests/s and the workers {:.3g}".format(*rates)
    if more > 0:
        why = "some come another way, not all frontends are listed, or requests ask for several answers (n)"
        return {RATE: f"{counts}: {why}"}
    why = "requests wait before them or are refused, not all workers are listed, or the frontends have other models too"
    return {AT_WORKERS: f"{counts}: {why}"}


def _count(traffic: Traffic) -> float | None:
    rate, span_s = traffic.requests_per_s, traffic.window_s
    return None if rate is None or span_s is None else rate * span_s
