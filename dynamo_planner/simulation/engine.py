"""One worker's engine with continuous batching, as a pure function of what is submitted to it and when.

It follows the scheduler of vLLM V1 (``vllm/v1/core/sched/scheduler.py``). The engine runs in steps. In each step every
decoding request gets one token, and what remains of ``max_num_batched_tokens`` goes to prompts, first come first
served, in chunks where they do not fit (chunked prefill). A prompt gives its first token at the end of the step that
computes the last of it. Whoever arrives during a step waits for the next one. A request holds the KV cache of its
prompt from its first step on, and one token more per token that it gets; when that no longer fits, the request that was
let in last is preempted: it goes back to the head of the queue and later computes everything again.

There are no roles here. A prefill worker is an engine whose requests want a single token; a decode worker is one whose
requests come with the KV cache of their prompt already computed (``cached``); an aggregated one is neither.

The engine plans *runs*: steps that are all alike, until a request finishes, a prompt is done, the KV cache is full or
somebody arrives who can be let in. How long a run lasts is one formula, so a request costs a few events, however many
tokens it makes. When and how often the caller looks changes nothing.

Left out: KV blocks (the cache is counted in tokens), speculative decoding, priorities, and idle time between steps.

>>> from dynamo_planner.simulation.timing import LinearTiming
>>> timing = LinearTiming(base_ms=10, prefill_ms_per_token=0.1, kv_ms_per_token=0)
>>> engine = Engine(EngineLimits(max_num_seqs=8, max_num_batched_tokens=512, kv_tokens=10_000), timing)
>>> request = engine.submit(isl=400, osl=3, at_s=0.0)
>>> [(round(event.at_s, 6), event.kind) for event in engine.advance(1.0)]
[(0.05, 'first_token'), (0.07, 'finished')]
"""

from __future__ import annotations

import heapq
import math
from collections import deque

from pydantic import Field, model_validator

from dynamo_planner.frozen import Frozen
from dynamo_planner.simulation.request import NOWHERE, Event, Request
from dynamo_planner.simulation.run import Run
from dynamo_planner.simulation.timing import StepTiming

UNBOUNDED = 1 << 62


class EngineLimits(Frozen):
    """What bounds a batch: names and meaning as in vLLM, the KV cache in tokens."""

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
    """An engine; see the module. Its clock is the latest time that it was given, and only goes forward.

    ``running`` counts the requests in the batch, ``preemptions`` and ``recomputed_tokens`` what preempting has cost.
    """

    def __init__(self, limits: EngineLimits, timing: StepTiming) -> None:
        self.limits = limits
        self.running = 0
        self.preemptions = 0
        self.recomputed_tokens = 0
        self._timing = timing
        self._now_s = -math.inf
        self._events: list[Event] = []
        # Where requests are: queued, decoding (by the step of their last token), or a prompt that is cut in chunks.
        self._waiting: deque[Request] = deque()
        self._decoding: list[tuple[int, int, Request]] = []
        self._partial: Request | None = None
        self._admitted = NOWHERE
        # KV tokens that the first step of the run (or the next one) holds: of all requests, and of those decoding.
        self._kv = 0
        self._kv_decoding = 0
        # The run, how many steps there were before it, and what its steps do beside decoding.
        self._run = Run()
        self._step = 0
        self._budget = 0
        self._chunk = 0
        self._prefill_tokens = 0
        self._completing: list[Request] = []
        self._joining: list[Request] = []
        self._leaving: list[Request] = []

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
        request = Request(isl, osl, at_s, cached)
        self._waiting.append(request)
        if self._run.steps and len(self._waiting) == 1 and self._fits(request):
            if at_s == self._run.start_s:  # the planned run begins just now: this one is in it
                self._admit()
                self._measure()
            else:
                self._cut()
        return request

    def cancel(self, request: Request, at_s: float) -> None:
        """The client is gone: a queued request leaves at once, a running one with the step in progress, and there is no
        event of it after ``at_s``. Nothing happens if it is finished or cancelled already.
        """
        self._run_to(at_s)
        if request.cancelled or request.finished_s is not None:
            return
        request.cancelled = True
        if request._admission == NOWHERE:
            self._waiting.remove(request)
        elif self._run.steps:
            self._leaving.append(request)
        else:
            self._remove(request)
        if self._run.steps:
            self._cut()

    def advance(self, to_s: float) -> list[Event]:
        """Go on to ``to_s`` (infinity: until all is done), and return what happened since the last call, in order.

        A step that would begin at ``to_s`` does not yet, so that whoever arrives at ``to_s`` is in it.
        """
        self._run_to(to_s)
        events, self._events = self._events, []
        return events

    def next_event_s(self) -> float:
        """Until this time nothing happens by itself that :meth:`advance` would return; infinity where nothing will."""
        self._plan_if_due()
        run = self._run
        if not run.steps:
            return math.inf
        return run.start_s + run.first_step_s if self._joining else run.end_s

    def next_step_s(self) -> float:
        """When the step in progress ends, and with it the next tokens come; infinity where there is none."""
        self._plan_if_due()
        run = self._run
        return run.end_of(min(run.done(self._now_s) + 1, run.steps)) if run.steps else math.inf

    def generated(self, request: Request) -> int:
        """The tokens that a request has by now."""
        if request._last_step == NOWHERE:
            return request._generated
        return request.osl - (request._last_step - self._step - self._run.done(self._now_s))

    @property
    def waiting(self) -> int:
        """Requests in the queue, preempted ones included."""
        return len(self._waiting)

    @property
    def kv_used_tokens(self) -> int:
        """KV tokens held by the step in progress; between two steps, what the last one left."""
        return self._kv + len(self._decoding) * (self._run.done(self._now_s) if self._run.steps else -1)

    # From run to run.

    def _run_to(self, to_s: float) -> None:
        if not to_s >= self._now_s:
            raise ValueError(f"time only goes forward: {to_s} is before {self._now_s}")
        run = self._run
        while True:
            if not run.steps:
                start_s = self._next_start_s()
                if start_s >= to_s:
                    break
                self._plan(start_s)
            if self._joining and run.start_s + run.first_step_s <= to_s:
                self._join()
            if run.end_s > to_s:
                break
            self._finish()
        self._now_s = to_s

    def _next_start_s(self) -> float:
        if self.running:
            return self._run.end_s
        return max(self._run.end_s, self._waiting[0].arrival_s) if self._waiting else math.inf

    def _plan_if_due(self) -> None:
        if not self._run.steps and self._next_start_s() <= self._now_s:
            self._plan(self._now_s)

    def _cut(self) -> None:
        """Let the run end with the step in progress, because the next one is to be planned anew."""
        self._run.cut(self._now_s)
        if self._run.end_s == self._now_s:
            self._finish()

    def _plan(self, start_s: float) -> None:
        """Choose the batch of the step that begins now, and for how long it goes on like that."""
        self._run.start_s = start_s
        while self._kv > self.limits.kv_tokens:
            self._preempt()
        self._budget = self.limits.max_num_batched_tokens - len(self._decoding)
        self._prefill_tokens = 0
        if self._partial is not None:
            request, self._partial = self._partial, None
            self._compute(request)
        if self._waiting:
            self._admit()
        self._measure()

    def _fits(self, request: Request) -> bool:
        return (
            self._budget > 0
            and self.running < self.limits.max_num_seqs
            and self._kv + request.isl + request._generated <= self.limits.kv_tokens
        )

    def _admit(self) -> None:
        waiting = self._waiting
        while waiting and self._fits(waiting[0]):
            request = waiting.popleft()
            held = request.isl + request._generated
            self.running += 1
            self._kv += held
            self._admitted += 1
            request._admission = self._admitted
            if request.scheduled_s is None:
                request.scheduled_s = self._run.start_s
            if request._todo > 1:
                self._compute(request)
                continue
            self._budget -= 1
            self._decode(request, held)
            if request.first_token_s is None:
                self._joining.append(request)

    def _compute(self, request: Request) -> None:
        """Give a prompt what it needs of the step's tokens, or all that are left."""
        if request._todo <= self._budget:
            self._prefill_tokens += request._todo
            self._budget -= request._todo
            self._completing.append(request)
        else:
            self._partial = request
            self._chunk = self._budget
            self._prefill_tokens += self._budget
            self._budget = 0

    def _decode(self, request: Request, held: int) -> None:
        request._last_step = self._step + request.osl - request._generated
        self._kv_decoding += held
        heapq.heappush(self._decoding, (request._last_step, request._admission, request))

    def _measure(self) -> None:
        """How many steps are alike, and how long they last."""
        decoding = len(self._decoding)
        ms, ms_per_kv_token, until_kv = self._timing.line(self._prefill_tokens, decoding, self._kv_decoding)
        if self._completing:
            steps = 1
        else:
            steps = (self._partial._todo - 1) // self._chunk if self._partial is not None else UNBOUNDED
            if decoding:
                spare = self.limits.kv_tokens - self._kv
                steps = min(steps, self._decoding[0][0] - self._step, spare // decoding + 1)
                if until_kv < UNBOUNDED:
                    steps = min(steps, max(math.ceil((until_kv - self._kv_decoding) / decoding), 1))
        self._run.plan(self._run.start_s, steps, ms / 1000, ms_per_kv_token * decoding / 1000)

    # What a run leads to.

    def _join(self) -> None:
        """Those that decode from their first step on have their first token, one step into the run."""
        first_token_s = self._run.start_s + self._run.first_step_s
        for request in self._joining:
            if not request.cancelled:
                request.first_token_s = first_token_s
                self._events.append(Event(first_token_s, "first_token", request))
        self._joining.clear()

    def _finish(self) -> None:
        """The run is over: its tokens are there, some requests are done, and the next step is not planned yet."""
        steps, self._run.steps = self._run.steps, 0
        self._step += steps
        decoding = self._decoding
        grown = steps * len(decoding)
        self._kv += grown
        self._kv_decoding += grown
        if self._partial is not None:
            self._partial._todo -= self._chunk * steps
        while self._leaving:
            self._remove(self._leaving.pop())
        while decoding and decoding[0][0] == self._step:
            request = heapq.heappop(decoding)[2]
            held = request.isl + request.osl
            self._kv_decoding -= held
            self._done(request, held)
        for request in self._completing:
            self._prompt_done(request)
        self._completing.clear()

    def _prompt_done(self, request: Request) -> None:
        held = request.isl + request._generated
        request._generated += 1
        if request.first_token_s is None:
            request.first_token_s = self._run.end_s
            self._events.append(Event(self._run.end_s, "first_token", request))
        if request._generated == request.osl:
            self._done(request, held)
        else:
            self._kv += 1
            self._decode(request, held + 1)

    def _done(self, request: Request, held: int) -> None:
        self._kv -= held
        self.running -= 1
        request._generated = request.osl
        request._last_step = NOWHERE
        request.finished_s = self._run.end_s
        self._events.append(Event(self._run.end_s, "finished", request))

    def _preempt(self) -> None:
        request = self._partial or max(self._decoding, key=lambda entry: entry[1])[2]
        self.preemptions += 1
        self.recomputed_tokens += self._remove(request)
        request.preemptions += 1
        request._todo = request.isl + request._generated
        self._waiting.appendleft(request)
        self._events.append(Event(self._run.start_s, "preempted", request))

    def _remove(self, request: Request) -> int:
        """Take a request out of the batch between two steps; returns how much of its context had been computed."""
        request._generated = self.generated(request)
        held = request.isl + request._generated
        self._kv -= held
        self.running -= 1
        request._admission = NOWHERE
        if request._last_step != NOWHERE:
            request._last_step = NOWHERE
            self._kv_decoding -= held
            self._decoding[:] = [entry for entry in self._decoding if entry[2] is not request]
            heapq.heapify(self._decoding)
            return held - 1
        if request is self._partial:
            self._partial = None
        else:
            self._completing.remove(request)
        return held - request._todo
