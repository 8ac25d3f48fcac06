"""What goes into an engine and what comes out: requests, and the events of their lives."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

NONE = -1
"""The place of no request."""

NOWHERE = 0
"""The admission number of a request that is not in the batch, and the last step of one that does not decode."""


class Request:
    """One request in an engine, and what became of it: times in seconds on the caller's clock, NaN until then.

    ``arrival_s`` is when the client sent it and ``queued_s`` when it came to the engine that has it now. ``cached``
    prompt tokens need no computing. ``scheduled_s`` is the start of the first step that it was in, and ``preemptions``
    counts how often it lost its KV cache. ``generated`` counts its tokens; while it decodes, those when that began.
    ``todo`` are the tokens to compute before the next one is generated, ``last_step`` the step that ends with its last
    token while it decodes, ``admission`` its number in the order of those let in, and ``next`` who follows it in the
    chain that it is in. In a cluster it is with ``worker`` of ``pool``, as ``cost`` of its load; a prefill worker was
    done with it at ``prefilled_s``, and workers that crashed have sent it back ``retries`` times.
    """

    __slots__ = (
        "admission",
        "arrival_s",
        "cached",
        "cancelled",
        "cost",
        "finished_s",
        "first_token_s",
        "generated",
        "isl",
        "last_step",
        "next",
        "osl",
        "place",
        "pool",
        "preemptions",
        "prefilled_s",
        "queued_s",
        "retries",
        "scheduled_s",
        "todo",
        "worker",
    )

    arrival_s: float
    queued_s: float
    scheduled_s: float
    first_token_s: float
    finished_s: float
    isl: int
    osl: int
    cached: int
    generated: int
    todo: int
    last_step: int
    admission: int
    next: int
    place: int
    preemptions: int
    prefilled_s: float
    pool: int
    worker: int
    cost: int
    retries: int
    cancelled: bool

    def __init__(self, isl: int, osl: int, arrival_s: float, cached: int = 0, place: int = 0) -> None:
        self.isl = isl
        self.osl = osl
        self.cached = cached
        self.arrival_s = self.queued_s = arrival_s
        self.scheduled_s = self.prefilled_s = self.first_token_s = self.finished_s = math.nan
        self.generated = 0
        self.todo = max(isl - cached, 1)
        self.last_step = self.admission = NOWHERE
        self.next = self.pool = self.worker = NONE
        self.place = place
        self.preemptions = self.retries = self.cost = 0
        self.cancelled = False

    def __repr__(self) -> str:
        return f"Request(isl={self.isl}, osl={self.osl}, arrival_s={self.arrival_s}, finished_s={self.finished_s})"


class Event(NamedTuple):
    """Something that happened to a request."""

    at_s: float
    kind: Literal["first_token", "finished", "preempted"]
    request: Request
