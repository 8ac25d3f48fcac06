"""The log of what happens to requests; written like :mod:`~dynamo_planner.simulator.engine.scheduler`."""

from __future__ import annotations

from dynamo_planner.simulator.state import Log

FIRST_TOKEN, FINISHED, PREEMPTED, PREFILLED = 1, 2, 3, 4
"""What can happen to a request."""


def note(log: Log, at_s: float, kind: int, request: int) -> None:
    """Something happened to a request."""
    size = log.size[0]
    if size == len(log.kind):
        lengthen(log)
    log.at_s[size] = at_s
    log.kind[size] = kind
    log.request[size] = request
    log.size[0] = size + 1


def lengthen(log: Log) -> None:
    """Make room for more entries."""
    more = len(log.kind) + 64
    log.at_s += [0.0] * more
    log.kind += [0] * more
    log.request += [0] * more
