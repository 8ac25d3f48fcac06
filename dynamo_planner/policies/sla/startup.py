"""How long a start takes: the spec's word for it, until enough starts were seen."""

from __future__ import annotations

from typing import NamedTuple

from dynamo_planner.core.snapshot import STUCK_AFTER_STARTUPS, Replicas

PRIOR_STARTS = 2.0
"""The spec counts as so many starts."""

MOST_STARTS = 20.0
"""Of more starts than this the older ones fade."""

MOST_WATCHED = 256


class Startup(NamedTuple):
    """Starts that were seen to end: how many, how long they took on average, and how far off that is; and since when
    those run that were seen at the last tick, and how many replicas were ready then."""

    starts: float = 0.0
    mean_s: float = 0.0
    deviation_s: float = 0.0
    since_s: tuple[float, ...] = ()
    ready: int = 0

    def planned_s(self, prior_s: float) -> float:
        """What to plan with: the average, with the spec as a prior, and a mean deviation, which few starts exceed."""
        mean_s = (PRIOR_STARTS * prior_s + self.starts * self.mean_s) / (PRIOR_STARTS + self.starts)
        return mean_s + self.deviation_s


def watched(startup: Startup, replicas: Replicas, at_s: float) -> Startup:
    """With the starts that have ended since the last tick: the oldest, as many as there are more ready ones.

    They ended between the two ticks; that they took until the later one is the safe side.
    """
    since_s = (replicas.starting_since_s or ())[:MOST_WATCHED]
    starts, mean_s, deviation_s = startup.starts, startup.mean_s, startup.deviation_s
    running = list(since_s)
    ended = []
    for start_s in startup.since_s:
        if start_s in running:
            running.remove(start_s)
        else:
            ended.append(start_s)
    for start_s in ended[: max(replicas.ready - startup.ready, 0)]:
        took_s = max(at_s - start_s, 0.0)
        starts = min(starts + 1, MOST_STARTS)
        off_s = took_s - mean_s
        mean_s += off_s / starts
        deviation_s += (abs(off_s) * (starts > 1) - deviation_s) / starts
    return Startup(starts, mean_s, deviation_s, since_s, replicas.ready)


def coming(replicas: Replicas, at_s: float, startup_s: float) -> tuple[list[float], int]:
    """In how many seconds each start should be ready, and how many are too old to be counted on."""
    if replicas.starting_since_s is None:
        return [startup_s] * replicas.starting, 0
    ages_s = [at_s - since_s for since_s in replicas.starting_since_s]
    in_time = [age_s for age_s in ages_s if age_s <= STUCK_AFTER_STARTUPS * startup_s]
    return [max(startup_s - age_s, 0.0) for age_s in in_time], len(ages_s) - len(in_time)
