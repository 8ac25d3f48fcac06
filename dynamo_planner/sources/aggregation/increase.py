"""What happened between two readings of a worker: increases of counters and histograms, with resets handled.

A counter that fell was reset, so that all of its value is new, as Prometheus has it (``increase``); a histogram is
reset as a whole. A process that began since the last reading began at zero, whether or not its counters have already
overtaken the old ones.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from dynamo_planner.sources.aggregation.sample import Observed, Reading
from dynamo_planner.sources.series import Series

T = TypeVar("T")

NOTHING = Observed(count=0.0, total=0.0, up_to={})


@dataclass(frozen=True, slots=True)
class Interval:
    """What one worker did between two readings, or since its process began (``since_birth``).

    ``arrivals`` are as the worker counts them, or else the completions and the change of what is in the worker;
    ``None`` where neither is known, as are the counters and histograms that are not there.
    """

    start_s: float
    end_s: float
    since_birth: bool
    arrivals: float | None
    counters: Mapping[str, float]
    histograms: Mapping[str, Observed]


def interval_between(before: Reading, after: Reading) -> Interval:
    """The interval from one reading of a worker to the next."""
    if _restarted(before, after):
        before = _at_birth(after, before.at_s)
    return _interval(before, after, since_birth=False)


def interval_since_birth(first: Reading, birth_s: float) -> Interval:
    """The interval from the beginning of a process to its first reading: all that it has counted."""
    return _interval(_at_birth(first, birth_s), first, since_birth=True)


def carried_over(before: Reading, after: Reading) -> Reading:
    """The later reading with what is as it was, because nothing has happened that would have been told.

    Where a reading between them went to somebody else, the later one says so.
    """
    gauges = {quantity: before.gauges[quantity] for quantity in after.unchanged if quantity in before.gauges}
    none_since = {
        quantity: replace(then, count=0.0, first=then.last + 1)
        for quantity, then in before.since_read.items()
        if quantity in after.unchanged
    }
    unknown = {quantity: why for quantity, why in after.unknown.items() if quantity not in gauges | none_since}
    for quantity, now in after.since_read.items():
        then = before.since_read.get(quantity)
        if then is not None and now.first > then.last + 1:
            unknown[quantity] = f"{now.name}: another reader was told {then.last + 1:g} to {now.first - 1:g}"
    return replace(
        after, gauges={**after.gauges, **gauges}, since_read={**after.since_read, **none_since}, unknown=unknown
    )


def _restarted(before: Reading, after: Reading) -> bool:
    """Whether another process answered: by its start, or where that is unknown by a counter that fell."""
    if before.started_s is not None and after.started_s is not None:
        return after.started_s != before.started_s
    if any(now.first <= then.last for then, now in _both(before.since_read, after.since_read)):
        return True
    return any(
        value < before.counters.get(quantity, {}).get(labels, 0.0)
        for quantity, series in after.counters.items()
        for labels, value in series.items()
    )


def _at_birth(reading: Reading, at_s: float) -> Reading:
    """What the page would have told when the process began: nothing in it, and nothing counted."""
    return Reading(
        at_s=at_s,
        started_s=reading.started_s,
        gauges={"running": 0.0, "waiting": 0.0, "inside": 0.0},
        counters={quantity: {} for quantity in reading.counters},
        histograms={quantity: {} for quantity in reading.histograms},
    )


def _interval(before: Reading, after: Reading, *, since_birth: bool) -> Interval:
    counters = {
        quantity: _increase(before.counters.get(quantity, {}), series)
        for quantity, series in after.counters.items()
        if _comparable(before, after, quantity, before.counters)
    }
    counters |= {quantity: now.count for quantity, now in after.since_read.items() if quantity not in after.unknown}
    histograms = {
        quantity: total(
            _new_in(before.histograms.get(quantity, {}).get(labels, NOTHING), now) for labels, now in series.items()
        )
        for quantity, series in after.histograms.items()
        if _comparable(before, after, quantity, before.histograms)
    }
    return Interval(
        start_s=before.at_s,
        end_s=after.at_s,
        since_birth=since_birth,
        arrivals=counters.get("arrivals", _arrivals(counters.get("completions"), _inside(before), _inside(after))),
        counters=counters,
        histograms=histograms,
    )


def _comparable(before: Reading, after: Reading, quantity: str, known: Container[str]) -> bool:
    """Whether both tell the same metric. One that was not on the page before began at zero since."""
    if quantity in before.absent and quantity not in known:
        return True
    by_names = before.via.get(quantity), after.via.get(quantity)
    return quantity in known and (None in by_names or by_names[0] == by_names[1])


def _both(before: Mapping[str, T], after: Mapping[str, T]) -> list[tuple[T, T]]:
    return [(before[quantity], now) for quantity, now in after.items() if quantity in before]


def _inside(reading: Reading) -> float | None:
    if "inside" in reading.gauges:
        return reading.gauges["inside"]
    running, waiting = reading.gauges.get("running"), reading.gauges.get("waiting")
    return None if running is None or waiting is None else running + waiting


def _arrivals(completions: float | None, before: float | None, after: float | None) -> float | None:
    return None if completions is None or before is None or after is None else completions + after - before


def _increase(before: Series, after: Series) -> float:
    """The increase over all label sets; one that was not there before began at zero since."""
    increase = 0.0
    for labels, value in after.items():
        earlier = before.get(labels, 0.0)
        increase += value - earlier if value >= earlier else value
    return increase


def _new_in(before: Observed, now: Observed) -> Observed:
    """What a histogram has observed since; all of it, if it was reset."""
    if now.count < before.count or any(count < before.up_to.get(bound, 0.0) for bound, count in now.up_to.items()):
        return now
    return Observed(
        count=now.count - before.count,
        total=max(0.0, now.total - before.total),
        up_to={
            bound: count - before.up_to.get(bound, 0.0)
            for bound, count in now.up_to.items()
            if bound in before.up_to or before.count == 0
        },
    )


def total(parts: Iterable[Observed]) -> Observed:
    """Several histograms as one, at the bounds that all of them have; those that observed nothing do not matter.

    >>> total([Observed(2, 6.0, {1: 0, 5: 2}), Observed(1, 4.0, {5: 1, 10: 1}), NOTHING])
    Observed(count=3.0, total=10.0, up_to={5: 3.0})
    """
    full = [part for part in parts if part.count > 0]
    bounds = set.intersection(*(set(part.up_to) for part in full)) if full else set()
    return Observed(
        count=sum((part.count for part in full), 0.0),
        total=sum((part.total for part in full), 0.0),
        up_to={bound: sum((part.up_to[bound] for part in full), 0.0) for bound in sorted(bounds)},
    )
