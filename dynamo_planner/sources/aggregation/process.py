"""Which process answered: the one of the sample before, one that began since, or another one altogether.

A counter is believed only for the time that it can have counted. Where a counter fell, a series is gone or the process
has another start time, a restart is concluded only if there can have been one: the process says that it began since
the sample before, and the requests that it has seen lasted no longer than it lives. Otherwise several processes answer
at one address (a load balancer, a Service, a proxy), and what they counted is of no known time.

Without a start time on the page a fall may be either, and what was counted meanwhile is unknown. The process from
before the fall is remembered: where its counters go on, it was no restart.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from enum import Enum, auto
from typing import TypeVar

from dynamo_planner.sources.aggregation.sample import EMPTY_HISTOGRAM, HistogramData, WorkerSample
from dynamo_planner.sources.series import Labels, Series

T = TypeVar("T")

ANOTHER_PROCESS = (
    "another process answers at this address: its counters are not those of the scrape before; "
    "list each process by an address of its own"
)
PERHAPS_ANOTHER = (
    "its counters are not those of the scrape before, and without a start time on its page nothing shows whether it "
    "restarted or another process answers at this address"
)

CLOCK_SKEW_S = 2.0
"""By how much the clocks of a worker and of the planner may differ where a start time is compared with a scrape."""

JUMP = 1.5
"""How many times as much as before counters have to grow for it to be odd, where a process seemed to have ended."""

REQUESTS = ("arrivals", "completions", "first_tokens")
MANY_REQUESTS = 1000
SURGE = 30
"""Without a start time, more requests than this in an interval, and this many times those of the one before, are taken
for those of another process, for a window; a surge as large becomes known after it."""

OUTNUMBERED = 10
"""How many times as many requests as are inside have to have been there at a time for those to be another process's."""

DURATIONS = {"ttft_ms": 0.001, "request_duration_s": 1.0}
"""Histograms of times within the life of a process, and seconds per unit."""


class Continuity(Enum):
    """How a sample continues the one before."""

    SAME = auto()
    RESTARTED = auto()
    UNCLEAR = auto()
    OTHER = auto()


WHY = {Continuity.UNCLEAR: PERHAPS_ANOTHER, Continuity.OTHER: ANOTHER_PROCESS}


def continuity(before: WorkerSample, after: WorkerSample, *, fallen: bool) -> Continuity:
    """Compare two samples from one address, the second of them later, between which counters have fallen or not."""
    then_s, now_s = before.started_s, _start(after)
    if now_s is None:
        return _without_start(before, after, fallen=fallen)
    began_since = now_s >= before.at_s - CLOCK_SKEW_S
    if now_s == then_s:
        return Continuity.OTHER if fallen else Continuity.SAME
    if then_s is None and not began_since and not fallen:
        return Continuity.UNCLEAR
    if not began_since or _outlasts(after, after.at_s - now_s + CLOCK_SKEW_S):
        return Continuity.OTHER
    return Continuity.RESTARTED


def goes_on(earlier: WorkerSample, last: WorkerSample, now: WorkerSample, usual: Mapping[str, float] | None) -> bool:
    """Whether a sample continues the process of an earlier one, and not that of the last one.

    Args:
        earlier: the last sample of a process that seemed to have ended.
        last: the sample before.
        now: the sample.
        usual: how fast each counter grew before, per second, where it is known.
    """
    if has_fallen(earlier, now):
        return False
    if has_fallen(last, now):
        return True
    since_last = sum(_counted(last, now).values())
    is_a_jump = usual is None or since_last > JUMP * sum(usual.values()) * (now.at_s - last.at_s)
    return is_a_jump and since_last > 2 * sum(_counted(earlier, now).values())


def is_beyond_belief(last: WorkerSample, now: WorkerSample, usual: Mapping[str, float] | None) -> bool:
    """Whether so many requests came since the last sample that they are more likely those of another process."""
    return any(
        increase > MANY_REQUESTS
        and (usual is None or increase > SURGE * usual.get(quantity, 0.0) * (now.at_s - last.at_s))
        for quantity, increase in _counted(last, now).items()
        if quantity in REQUESTS
    )


def were_elsewhere(last: WorkerSample, now: WorkerSample) -> bool:
    """Whether many requests since the last sample took more time together than they can have had inside.

    By Little's law, of 90,000 first tokens within 10 s that took 0.2 s each, 1,800 requests waited for theirs at a
    time: not in a process that has 5 requests inside before and after.
    """
    if last.inside is None or now.inside is None:
        return False
    most = max(last.inside, now.inside)
    for quantity, unit_s in DURATIONS.items():
        (then, then_s), (count, total_s) = (_observed(each, quantity, unit_s) for each in (last, now))
        if count - then > MANY_REQUESTS and total_s - then_s > OUTNUMBERED * (1 + most) * (now.at_s - last.at_s):
            return True
    return False


def has_fallen(before: WorkerSample, after: WorkerSample) -> bool:
    """Whether a counter or histogram is lower than before, or one of its series is gone that stays with its process."""
    passing = after.transient
    return any(
        _series_fell(then, now, passing) for then, now in _both(before, after, before.counters, after.counters)
    ) or any(
        _histograms_fell(then, now, passing) for then, now in _both(before, after, before.histograms, after.histograms)
    )


def _both(
    before: WorkerSample, after: WorkerSample, then: Mapping[str, T], now: Mapping[str, T]
) -> Sequence[tuple[T, T]]:
    """What both report, of those quantities that both read under the same name."""
    names, names_now = before.metric_names, after.metric_names
    return [
        (then[quantity], value)
        for quantity, value in now.items()
        if quantity in then and names.get(quantity) == names_now.get(quantity)
    ]


def _start(sample: WorkerSample) -> float | None:
    """When its process began; unknown where it cannot have, since its clock is another one."""
    started_s = sample.started_s
    return None if started_s is None or started_s > sample.at_s + CLOCK_SKEW_S else started_s


def _without_start(before: WorkerSample, after: WorkerSample, *, fallen: bool) -> Continuity:
    """By numbered items, of which a new process begins with the first; or else by counters that fell."""
    for quantity, now in after.read_once.items():
        then = before.read_once.get(quantity)
        if then is not None and now.first <= then.last:
            return Continuity.RESTARTED if now.first <= 1 else Continuity.OTHER
    moved = before.started_s != after.started_s
    return Continuity.UNCLEAR if moved or fallen else Continuity.SAME


def _outlasts(sample: WorkerSample, age_s: float) -> bool:
    """Whether what requests took is longer, in the mean, than their process lives."""
    observed = (_observed(sample, quantity, unit_s) for quantity, unit_s in DURATIONS.items())
    return any(total_s > age_s * count > 0 for count, total_s in observed)


def _observed(sample: WorkerSample, quantity: str, unit_s: float) -> tuple[float, float]:
    """How many requests a histogram of times has, and their sum in seconds."""
    parts = sample.histograms.get(quantity, {}).values()
    return sum(part.count for part in parts), unit_s * sum(part.total for part in parts)


def _series_fell(then: Series, now: Series, passing: Container[str]) -> bool:
    for labels, value in then.items():
        if value > now.get(labels, 0.0) and not _may_be_gone(labels, now, passing):
            return True
    return False


def _may_be_gone(labels: Labels, now: Container[Labels], passing: Container[str]) -> bool:
    """Whether a series is not there any more that goes while its process lives: of a user, of one process of many."""
    return labels not in now and any(name in passing for name, _ in labels)


def _histograms_fell(
    then: Mapping[Labels, HistogramData], now: Mapping[Labels, HistogramData], passing: Container[str]
) -> bool:
    for labels, earlier in then.items():
        if _may_be_gone(labels, now, passing):
            continue
        later = now.get(labels, EMPTY_HISTOGRAM)
        if later.count < earlier.count:
            return True
        before = earlier.buckets
        for bound, count in later.buckets.items():
            if bound in before and count < before[bound]:
                return True
    return False


def growth(before: WorkerSample, after: WorkerSample) -> dict[str, float]:
    """How fast each counter grew from one sample to the other, per second."""
    return {quantity: count / (after.at_s - before.at_s) for quantity, count in _counted(before, after).items()}


def _counted(before: WorkerSample, after: WorkerSample) -> dict[str, float]:
    """What each counter counted from one sample to the other."""
    return {
        quantity: sum(now.values()) - sum(before.counters[quantity].values())
        for quantity, now in after.counters.items()
        if quantity in before.counters
    }
