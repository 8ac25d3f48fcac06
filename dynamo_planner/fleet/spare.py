"""Spare capacity: the part of a pool that is free for deferrable requests, and the part that their deadlines take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dynamo_planner.core.metrics import Deferred

SIZED_COUNTS = 8
"""Replicas up to which the rate that a pool serves in time is worked out; more serve in proportion."""


class Capacity(NamedTuple):
    """What the replicas of a role serve: rates of 0, 1, 2, ... of them, of interactive requests and of each class."""

    interactive: Sequence[float]
    classes: Mapping[str, Sequence[float]]

    def free(self, requests_per_s: float, count: int, reserve: float) -> float:
        """The part of the replicas that is free for deferrable requests."""
        most = rate_of(self.interactive, count)
        return max(1 - reserve - requests_per_s / most, 0.0) if most else 0.0

    def due(self, classes: Mapping[str, Deferred], count: int, left_s: Mapping[float, float]) -> float:
        """The part of the replicas that the deferrable requests need up to their deadlines; ``left_s`` has the time
        for each deadline, soonest first."""
        work = most = 0.0
        for due_s, left in left_s.items():
            for name, own in classes.items():
                rate = rate_of(self.classes[name], count)
                work += own.due.get(due_s, 0.0) / rate if rate else 0.0  # what can never be in time adds nothing
            most = max(most, work / left)
        return most


def rate_of(rates: Sequence[float], count: int) -> float:
    """The rate of a number of replicas, beyond those that were sized in proportion."""
    most = len(rates) - 1
    return rates[count] if count <= most else rates[most] * count / most
