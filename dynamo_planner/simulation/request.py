"""What goes into an engine and what comes out: requests, and the events of their lives."""

from __future__ import annotations

from typing import Literal, NamedTuple

NOWHERE = 0
"""The admission number of a request that is not in the batch, and the last step of one that does not decode."""


class Request:
    """One request in an engine, and what became of it: times in seconds on the caller's clock, ``None`` until then.

    ``cached`` prompt tokens need no computing. ``scheduled_s`` is the start of the first step that it was in, and
    ``preemptions`` counts how often it lost its KV cache. What begins with an underscore belongs to the engine.
    """

    __slots__ = (
        "_admission",
        "_generated",
        "_last_step",
        "_todo",
        "arrival_s",
        "cached",
        "cancelled",
        "finished_s",
        "first_token_s",
        "isl",
        "osl",
        "preemptions",
        "scheduled_s",
    )

    def __init__(self, isl: int, osl: int, arrival_s: float, cached: int) -> None:
        self.isl = isl
        self.osl = osl
        self.cached = cached
        self.arrival_s = arrival_s
        self.scheduled_s: float | None = None
        self.first_token_s: float | None = None
        self.finished_s: float | None = None
        self.preemptions = 0
        self.cancelled = False
        self._admission = NOWHERE
        self._generated = 0  # tokens that it has; while it decodes, that it had when that began
        self._todo = max(isl - cached, 1)  # tokens to compute before the next one is generated
        self._last_step = NOWHERE  # while it decodes: the step that ends with its last token

    def __repr__(self) -> str:
        return f"Request(isl={self.isl}, osl={self.osl}, arrival_s={self.arrival_s}, finished_s={self.finished_s})"


class Event(NamedTuple):
    """Something that happened to a request."""

    at_s: float
    kind: Literal["first_token", "finished", "preempted"]
    request: Request
