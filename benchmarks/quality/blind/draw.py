"""A fixed, seeded and balanced draw of windows: every trace, profile, start-up time, need and mode equally often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.quality.blind.windows import Engine, Source, Window

SEED = 15
NEEDS = (4.0, 8.0, 16.0)
STARTUPS_S = (30.0, 120.0, 300.0)
MODES = (False, False, True)
"""One window of three is aggregated, as fewer profiles have the steps for it."""

MOST_REQUESTS = 3e6
"""More in a window would take minutes a run: short prompts on fast engines come with small fleets."""

LEAST_STARTUPS = 8.0
"""A window is at least this many start-up times long."""

PAST_HOUR = 0.5
"""Windows begin this long past an hour: clients of some traces all come anew with the hour."""

SWAPS = 20_000


def draw(
    count: int,
    sources: Sequence[Source],
    engines: Sequence[Engine],
    *,
    hours: float = 6.0,
    least_hours: float | None = None,
    most_requests: float = MOST_REQUESTS,
    group: str = "window",
) -> list[Window]:
    """So many windows. Each list is dealt out evenly, shuffled, and pairs are swapped until every window can be run.

    A window of more than ``most_requests`` is cut down to as few as ``least_hours``. Of few and short traces there are
    fewer windows, as each is only once among them.

    Raises ``ValueError`` where traces and profiles do not go together, or the traces are too short.
    """
    if max(source.duration_s for source in sources) < LEAST_STARTUPS * STARTUPS_S[0]:
        raise ValueError(
            f"the traces are too short: give one of {LEAST_STARTUPS * STARTUPS_S[0] / 60:g} minutes or more"
        )
    random = np.random.default_rng(SEED)
    longest_s = min(max(source.duration_s for source in sources), 3600 * hours)
    startups_s = [startup_s for startup_s in STARTUPS_S if LEAST_STARTUPS * startup_s <= longest_s]
    columns = [_dealt(values, count, random) for values in (sources, engines, NEEDS, startups_s, MODES)]
    least_s = 3600 * (hours if least_hours is None else least_hours)

    def fault(row: Sequence[Any]) -> int:
        return _fault(row, hours * 3600, least_s, most_requests)

    faults = [fault(row) for row in zip(*columns, strict=True)]
    for _ in range(SWAPS):
        if not any(faults):
            break
        one, other = random.choice(np.flatnonzero(faults)), random.integers(count)
        column = columns[random.integers(len(columns))]
        column[one], column[other] = column[other], column[one]
        now = [fault([part[row] for part in columns]) for row in (one, other)]
        if sum(now) <= faults[one] + faults[other]:
            faults[one], faults[other] = now
        else:
            column[one], column[other] = column[other], column[one]
    else:
        raise ValueError(
            "no draw in which every trace fits its profile: give more profiles, or traces with less in them"
        )
    rows = zip(*columns, strict=True)
    drawn = [_window(row, _seconds(row, hours * 3600, least_s, most_requests), random.random(), group) for row in rows]
    return list({window.name: window for window in drawn}.values())


def _dealt(values: Sequence[Any], count: int, random: np.random.Generator) -> list[Any]:
    dealt = [values[number % len(values)] for number in range(count)]
    return [dealt[number] for number in random.permutation(count)]


def _seconds(row: Sequence[Any], seconds: float, least_s: float, most_requests: float) -> float:
    """How long a window is: the whole trace, or as long as was said, or less where there are too many requests."""
    source, engine, need, *_ = row
    few_s = 600 * np.ceil(most_requests / engine.requests_per_s(source, need) / 600)
    return float(min(max(min(seconds, few_s), least_s), source.duration_s))


def _fault(row: Sequence[Any], seconds: float, least_s: float, most_requests: float) -> int:
    """How many reasons there are against a window."""
    source, engine, need, startup_s, aggregated = row
    length_s = _seconds(row, seconds, least_s, most_requests)
    many = engine.requests_per_s(source, need) * (length_s - 600) > most_requests
    short = length_s < LEAST_STARTUPS * startup_s
    return int(many) + int(short) + (not engine.fits(source, aggregated=aggregated))


def _window(row: Sequence[Any], seconds: float, where: float, group: str) -> Window:
    source, engine, need, startup_s, aggregated = row
    whole_hours = np.floor(where * (source.duration_s - seconds) / 3600)
    at_s = max(min(3600.0 * (whole_hours + PAST_HOUR), source.duration_s - seconds), 0.0)
    window: Window = engine.window(source, float(at_s), seconds, need, startup_s, aggregated=aggregated, group=group)
    return window
