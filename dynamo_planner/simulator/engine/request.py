"""What goes into an engine and what comes out: requests, and the events of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

NONE = -1
"""The place of no request."""

NOWHERE = 0
"""The admission number of a request that is not in the batch, and the last step of one that does not decode."""


@dataclass(slots=True, eq=False, repr=False)
class Request:
    """One request in an engine, and what became of it; times are seconds on the caller's clock, NaN until then.

    Attributes:
        isl: prompt tokens.
        osl: tokens to generate.
        arrival_s: when the client sent it.
        cached: prompt tokens that need no computing; 0 by default.
        place: its place among the requests of its engine or cluster; 0 by default.
        queued_s: when it came to the engine that has it now.
        scheduled_s: the start of the first step that it was in.
        started_s: the start of the first step that it was in at the engine that has it now.
        prefilled_s: when a prefill worker was done with it.
        first_token_s: when its first token came.
        finished_s: when its last token came.
        todo: tokens to compute before the next one is generated.
        generated: the tokens it has; while it decodes, those it had when that began.
        last_step: while it decodes, the step that ends with its last token.
        admission: its number in the order of admission to the batch.
        next: the request after it in the chain that it is in.
        pool: the pool that it is in, in a cluster.
        worker: the worker that has it, in a cluster.
        cost: its part of that worker's load.
        preemptions: how often it lost its KV cache to others.
        retries: how often a worker that crashed sent it back.
        cancelled: whether its client has gone.
    """

    isl: int
    osl: int
    arrival_s: float
    cached: int = 0
    place: int = 0
    queued_s: float = field(init=False)
    scheduled_s: float = field(init=False, default=math.nan)
    started_s: float = field(init=False, default=math.nan)
    prefilled_s: float = field(init=False, default=math.nan)
    first_token_s: float = field(init=False, default=math.nan)
    finished_s: float = field(init=False, default=math.nan)
    todo: int = field(init=False)
    generated: int = field(init=False, default=0)
    last_step: int = field(init=False, default=NOWHERE)
    admission: int = field(init=False, default=NOWHERE)
    next: int = field(init=False, default=NONE)
    pool: int = field(init=False, default=NONE)
    worker: int = field(init=False, default=NONE)
    cost: int = field(init=False, default=0)
    preemptions: int = field(init=False, default=0)
    retries: int = field(init=False, default=0)
    cancelled: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.queued_s = self.arrival_s
        self.todo = max(self.isl - self.cached, 1)

    def __repr__(self) -> str:
        return f"Request(isl={self.isl}, osl={self.osl}, arrival_s={self.arrival_s}, finished_s={self.finished_s})"


class Event(NamedTuple):
    """An event of a request.

    Args:
        at_s: when it happened, on the caller's clock.
        kind: its first token came, its last one did, or it lost its KV cache.
        request: the request.
    """

    at_s: float
    kind: Literal["first_token", "finished", "preempted"]
    request: Request
