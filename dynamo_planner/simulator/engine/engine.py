"""One worker's engine with continuous batching, as a pure function of what is submitted to it and when.

It follows the scheduler of vLLM V1 (``vllm/v1/core/sched/scheduler.py``). The engine runs in steps. In each step every
decoding request gets one token, and what remains of ``max_num_batched_tokens`` goes to prompts, first come first
served, in chunks where they do not fit (chunked prefill). A prompt gives its first token at the end of the step that
computes the last of it. A request that arrives during a step waits for the next one. A request holds the KV cache of
its prompt from its first step on, and one token more per token that it gets; when that no longer fits, the request that
was admitted last is preempted: it goes back to the head of the queue and later computes everything again.

There are no roles here. A prefill worker is an engine whose requests want a single token; a decode worker is one whose
requests come with the KV cache of their prompt already computed (``cached``); an aggregated one is neither.

The engine plans *runs*: steps that are all alike, until a request finishes, a prompt is done, the KV cache is full or
a request arrives that can be admitted. The duration of a run is one formula, so a request costs a few events, however
many tokens it generates. When and how often the caller advances the engine changes nothing.

Left out: KV blocks (the cache is counted in tokens), speculative decoding, priorities, and idle time between steps.

>>> from dynamo_planner.simulator.engine.step_time import LinearTiming
>>> timing = LinearTiming(base_ms=10, prefill_ms_per_token=0.1, kv_ms_per_token=0)
>>> engine = Engine(EngineLimits(max_num_seqs=8, max_num_batched_tokens=512, kv_tokens=10_000), timing)
>>> request = engine.submit(isl=400, osl=3, at_s=0.0)
>>> [(round(event.at_s, 6), event.kind) for event in engine.advance(1.0)]
[(0.05, 'first_token'), (0.07, 'finished')]
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from dynamo_planner.core.values import Frozen
from dynamo_planner.simulator.engine import event_log, queues, scheduler, step_runs
from dynamo_planner.simulator.engine.request import NOWHERE, Event, Request
from dynamo_planner.simulator.engine.state import EngineState, EngineView
from dynamo_planner.simulator.engine.step_time import StepTiming

KINDS: dict[int, Literal["first_token", "finished", "preempted"]] = {
    event_log.FIRST_TOKEN: "first_token",
    event_log.FINISHED: "finished",
    event_log.PREEMPTED: "preempted",
}


class EngineLimits(Frozen):
    """Limits of a batch, with names and meanings as in vLLM.

    Args:
        max_num_seqs: the most requests in a batch; 256 by default.
        max_num_batched_tokens: the most tokens that a step computes; 2048 by default.
        kv_tokens: the tokens that the KV cache holds; 400,000 by default.
    """

    max_num_seqs: int = Field(default=256, ge=1, description="the most requests in a batch")
    max_num_batched_tokens: int = Field(default=2048, ge=1, description="the most tokens that a step computes")
    kv_tokens: int = Field(default=400_000, ge=1, description="the tokens that the KV cache holds")

    @model_validator(mode="after")
    def _a_token_for_each_request(self) -> EngineLimits:
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens ({self.max_num_batched_tokens}) must be at least max_num_seqs "
                f"({self.max_num_seqs}), so that a step has a token for each request"
            )
        return self


class Engine:
    """One engine; its clock is the latest time that it was given, and only goes forward.

    The rules are in :mod:`~dynamo_planner.simulator.engine.scheduler`; this is one engine under them, with
    its requests.
    """

    def __init__(self, limits: EngineLimits, timing: StepTiming) -> None:
        self._limits = limits
        self._state = EngineState(limits.max_num_seqs, limits.max_num_batched_tokens, limits.kv_tokens)
        self._requests: list[Request] = []
        self._decode_heap = [0] * limits.max_num_seqs
        self._log = event_log.EventLog()
        self._view = EngineView(self._state, self._requests, self._decode_heap, timing, self._log)
        self._free: list[int] = []
        self._cancelled: list[int] = []
        self._events: list[Event] = []

    @property
    def limits(self) -> EngineLimits:
        """Limits of a batch. They may be set at any time and hold from the next step on, but for the KV cache, which
        keeps its size."""
        return self._limits

    @limits.setter
    def limits(self, limits: EngineLimits) -> None:
        if limits.kv_tokens != self._limits.kv_tokens:
            raise ValueError(f"kv_tokens is fixed at {self._limits.kv_tokens}, it cannot become {limits.kv_tokens}")
        self._limits = limits
        self._decode_heap += [0] * (limits.max_num_seqs - len(self._decode_heap))
        state = self._state
        state.max_num_seqs, state.max_num_batched_tokens = limits.max_num_seqs, limits.max_num_batched_tokens
        if state.steps:
            scheduler.cut(self._view, state.now_s)
            self._collect()

    # What a caller does.

    def submit(self, isl: int, osl: int, at_s: float, cached: int = 0) -> Request:
        """A request arrives at ``at_s`` with ``isl`` prompt tokens, ``cached`` of them computed already, and wants
        ``osl`` tokens. One that was prefilled elsewhere has ``cached=isl``, and decodes from its first step on.

        Raises ``ValueError`` where it can never be served: a length below 1, more tokens than the KV cache holds, or a
        time before the engine's clock.
        """
        if isl < 1 or osl < 1 or not 0 <= cached <= isl:
            raise ValueError(f"isl ({isl}) and osl ({osl}) must be at least 1, and cached ({cached}) from 0 to isl")
        if isl + osl - 1 > self.limits.kv_tokens:
            raise ValueError(f"isl ({isl}) + osl ({osl}) - 1 is more than the KV cache holds ({self.limits.kv_tokens})")
        self._run_to(at_s)
        place = self._free.pop() if self._free else len(self._requests)
        request = Request(isl, osl, at_s, cached, place)
        self._requests[place : place + 1] = [request]
        scheduler.submit(self._view, place, at_s)
        self._collect()
        return request

    def cancel(self, request: Request, at_s: float) -> None:
        """Cancel a request, as its client is gone: a queued one leaves at once, a running one with the step in
        progress, and there is no event of it after ``at_s``. One that is finished or cancelled already stays as it is.
        """
        self._run_to(at_s)
        state = self._state
        if request.cancelled or not math.isnan(request.finished_s):
            return
        request.cancelled = True
        if request.admission == NOWHERE:
            queues.unqueue(self._view, request.place)
        elif state.steps:
            state.cancelled += 1
        else:
            queues.remove(self._view, request.place)
        self._cancelled.append(request.place)
        if state.steps:
            scheduler.cut(self._view, at_s)
            self._collect()

    def advance(self, to_s: float) -> list[Event]:
        """Advance to ``to_s`` (infinity: until all is done), and return the events since the last call, in order.

        A step that would begin at ``to_s`` does not yet, so that a request that arrives at ``to_s`` is in it.
        """
        self._run_to(to_s)
        events, self._events = self._events, []
        return events

    def next_event_s(self) -> float:
        """Until this time nothing happens by itself that :meth:`advance` would return; infinity where nothing will."""
        next_s = scheduler.next_event_s(self._view)
        self._collect()
        return next_s

    def next_step_s(self) -> float:
        """When the step in progress ends, and with it the next tokens come; infinity where there is none."""
        state = self._state
        scheduler.plan_if_due(self._view)
        self._collect()
        if not state.steps:
            return math.inf
        return step_runs.end_of(state, min(step_runs.done(state, state.now_s) + 1, state.steps))

    def generated(self, request: Request) -> int:
        """The tokens that a request has by now."""
        return queues.generated(self._state, request, self._state.now_s)

    @property
    def running(self) -> int:
        """Requests in the batch."""
        return self._state.running

    @property
    def waiting(self) -> int:
        """Requests in the queue, preempted ones included."""
        return self._state.waiting

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens that the requests in the queue have to compute."""
        return self._state.waiting_tokens

    @property
    def kv_used_tokens(self) -> int:
        """KV tokens held by the step in progress; between two steps, what the last one left."""
        return scheduler.kv_used(self._view)

    @property
    def preemptions(self) -> int:
        """How often a request lost its KV cache."""
        return self._state.preemptions

    @property
    def recomputed_tokens(self) -> int:
        """How many tokens were lost by that."""
        return self._state.recomputed_tokens

    def _run_to(self, to_s: float) -> None:
        if not to_s >= self._state.now_s:
            raise ValueError(f"time only goes forward: {to_s} is before {self._state.now_s}")
        scheduler.run_to(self._view, to_s)
        self._collect()

    def _collect(self) -> None:
        """Make events of what the rules have noted, and give the places of finished requests away again."""
        log = self._log
        for k in range(log.size[0]):
            place = log.request[k]
            self._events.append(Event(log.at_s[k], KINDS[log.kind[k]], self._requests[place]))
            if log.kind[k] == event_log.FINISHED:
                self._free.append(place)
        log.size[0] = 0
        if self._cancelled and not self._state.cancelled:
            self._free += self._cancelled
            self._cancelled.clear()
