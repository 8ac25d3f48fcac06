"""The log of what happens to requests; written like :mod:`~dynamo_planner.simulator.engine.scheduler`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FIRST_TOKEN, FINISHED, PREEMPTED, PREFILLED = 1, 2, 3, 4
"""The kinds of events."""


class EventLog:
    """Events that no one has read yet, as lists that grow.

    Attributes:
        size: the number of entries, in a list of one.
        at_s: the time of each.
        kind: one of ``FIRST_TOKEN``, ``FINISHED``, ``PREEMPTED``, ``PREFILLED``.
        request: the place of the request.
    """

    def __init__(self) -> None:
        self.size = [0]
        self.at_s: list[float] = []
        self.kind: list[int] = []
        self.request: list[int] = []


class ArrayEventLog(NamedTuple):
    """An :class:`EventLog` of numpy arrays with a fixed number of places, for compiled code."""

    size: np.ndarray
    at_s: np.ndarray
    kind: np.ndarray
    request: np.ndarray

    @classmethod
    def of(cls, capacity: int) -> ArrayEventLog:
        """An empty log with ``capacity`` places."""
        whole = np.int64
        return cls(np.zeros(1, whole), np.zeros(capacity), np.zeros(capacity, whole), np.zeros(capacity, whole))


def note(log: EventLog, at_s: float, kind: int, request: int) -> None:
    """Append an event."""
    size = log.size[0]
    if size == len(log.kind):
        lengthen(log)
    log.at_s[size] = at_s
    log.kind[size] = kind
    log.request[size] = request
    log.size[0] = size + 1


def lengthen(log: EventLog) -> None:
    """Make space for more entries."""
    more = len(log.kind) + 64
    log.at_s += [0.0] * more
    log.kind += [0] * more
    log.request += [0] * more
