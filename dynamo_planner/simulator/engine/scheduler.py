"""The rules of continuous batching: what an engine does from step to step, as functions of its state.

They are explained in :mod:`~dynamo_planner.simulator.engine.engine`, and run twice: as they stand, on Python objects,
and compiled by numba on arrays of records with the same fields (:mod:`~dynamo_planner.simulator.compiled`). So requests
are named by their place in ``requests``, queues are chained through ``Request.next``, and ``decode_heap`` holds those
that decode, the one with the next last step first. :mod:`~dynamo_planner.simulator.engine.step_runs` has the runs.
"""

from __future__ import annotations

import math
from typing import Any

from dynamo_planner.simulator.engine.event_log import FINISHED, FIRST_TOKEN, PREEMPTED, PREFILLED, note
from dynamo_planner.simulator.engine.queues import drop, enqueue, prompt_left, push, remove, remove_cancelled, requeue
from dynamo_planner.simulator.engine.request import NONE, NOWHERE
from dynamo_planner.simulator.engine.state import EngineView
from dynamo_planner.simulator.engine.step_runs import cut_run, done, plan_run

UNBOUNDED = 1 << 62


def line(timing: Any, prefill_tokens: int, num_decode: int, kv_tokens: int) -> tuple[float, float, float]:
    """How long a step takes; see :class:`~dynamo_planner.simulator.engine.step_time.StepTiming`."""
    ms, slope, until = timing.line(prefill_tokens, num_decode, kv_tokens)
    return ms, slope, until


# What a caller does.


def submit(engine: EngineView, request: int, at_s: float) -> None:
    """A request arrives; the engine has run up to ``at_s``."""
    e = engine.state
    enqueue(engine, request)
    if e.steps and e.waiting == 1 and _fits(engine, request):
        if at_s == e.start_s:  # the planned run begins just now: this one is in it
            _admit(engine)
            _measure(engine)
        else:
            cut(engine, at_s)


def run_to(engine: EngineView, to_s: float) -> None:
    """Advance the engine to ``to_s``; a step that would begin just then does not yet."""
    e = engine.state
    while True:
        if not e.steps:
            start_s = _next_start_s(engine)
            if start_s >= to_s:
                break
            _plan(engine, start_s)
        if e.joining != NONE and e.start_s + e.first_step_s <= to_s:
            _join(engine)
        if e.end_s > to_s:
            break
        finish(engine)
    e.now_s = to_s


def plan_if_due(engine: EngineView) -> None:
    """Plan the run that begins now, if one does."""
    e = engine.state
    if not e.steps and _next_start_s(engine) <= e.now_s:
        _plan(engine, e.now_s)


def next_event_s(engine: EngineView) -> float:
    """Until this time nothing happens by itself to any request; infinity where nothing will."""
    e = engine.state
    plan_if_due(engine)
    if not e.steps:
        return math.inf
    return e.start_s + e.first_step_s if e.joining != NONE else e.end_s


def kv_used(engine: EngineView) -> int:
    """KV tokens held by the step in progress; between two steps, what the last one left."""
    e = engine.state
    return e.kv + e.decoding * (done(e, e.now_s) if e.steps else -1)


def cut(engine: EngineView, at_s: float) -> None:
    """Let the run end with the step in progress, because the next one is to be planned again."""
    e = engine.state
    cut_run(e, at_s)
    if e.end_s == at_s:
        finish(engine)


# From run to run.


def _next_start_s(engine: EngineView) -> float:
    e = engine.state
    if e.running:
        return e.end_s
    return max(e.end_s, engine.requests[e.head].queued_s) if e.head != NONE else math.inf


def _plan(engine: EngineView, start_s: float) -> None:
    """Choose the batch of the step that begins now, and for how long it goes on like that."""
    e = engine.state
    e.start_s = start_s
    while e.kv > e.kv_tokens:
        _preempt(engine)
    e.budget = max(e.max_num_batched_tokens - e.decoding, 0)
    e.prefill_tokens = 0
    if e.partial != NONE:
        request = e.partial
        e.partial = NONE
        _compute(engine, request)
    if e.head != NONE:
        _admit(engine)
    _measure(engine)


def _fits(engine: EngineView, request: int) -> bool:
    e = engine.state
    q = engine.requests[request]
    return e.budget > 0 and e.running < e.max_num_seqs and e.kv + q.isl + q.generated <= e.kv_tokens


def _admit(engine: EngineView) -> None:
    e, requests = engine.state, engine.requests
    while e.head != NONE and _fits(engine, e.head):
        request = e.head
        q = requests[request]
        e.head = q.next
        if e.head == NONE:
            e.tail = NONE
        e.waiting -= 1
        e.waiting_tokens -= prompt_left(q)
        held = q.isl + q.generated
        e.running += 1
        e.kv += held
        e.admitted += 1
        q.admission = e.admitted
        if math.isnan(q.scheduled_s):
            q.scheduled_s = e.start_s
        if math.isnan(q.started_s):
            q.started_s = e.start_s
        if q.todo > 1 or e.prefill_only:
            _compute(engine, request)
            continue
        e.budget -= 1
        _decode(engine, request, held)
        if math.isnan(q.first_token_s):
            q.next = NONE
            if e.joining == NONE:
                e.joining = request
            else:
                requests[e.last_joining].next = request
            e.last_joining = request


def _compute(engine: EngineView, request: int) -> None:
    """Give a prompt the tokens of the step that it takes, or all that are left."""
    e, requests = engine.state, engine.requests
    q = requests[request]
    if q.todo <= e.budget:
        e.prefill_tokens += q.todo
        e.budget -= q.todo
        q.next = NONE
        if e.completing == NONE:
            e.completing = request
        else:
            requests[e.last_completing].next = request
        e.last_completing = request
    else:
        e.partial = request
        e.chunk = e.budget
        e.prefill_tokens += e.budget
        e.budget = 0


def _decode(engine: EngineView, request: int, held: int) -> None:
    e = engine.state
    q = engine.requests[request]
    q.last_step = e.step + q.osl - q.generated
    e.kv_decoding += held
    push(engine, request)


def _measure(engine: EngineView) -> None:
    """How many steps are alike, and how long they last."""
    e, requests = engine.state, engine.requests
    decoding = e.decoding
    ms, ms_per_kv_token, until_kv = line(engine.timing, e.prefill_tokens, decoding, e.kv_decoding)
    steps = UNBOUNDED
    if e.completing != NONE:
        steps = 1
    else:
        if e.partial != NONE and e.chunk > 0:
            steps = (requests[e.partial].todo - 1) // e.chunk
        if decoding:
            steps = min(steps, requests[engine.decode_heap[0]].last_step - e.step)
            steps = min(steps, (e.kv_tokens - e.kv) // decoding + 1)
            if until_kv < UNBOUNDED:
                steps = min(steps, max(math.ceil((until_kv - e.kv_decoding) / decoding), 1))
    plan_run(e, steps, ms * e.slowness / 1000, ms_per_kv_token * decoding * e.slowness / 1000)


# What a run leads to.


def _join(engine: EngineView) -> None:
    """Those that decode from their first step on have their first token, one step into the run."""
    e = engine.state
    first_token_s = e.start_s + e.first_step_s
    while e.joining != NONE:
        request = e.joining
        q = engine.requests[request]
        e.joining = q.next
        q.next = NONE
        if not q.cancelled:
            q.first_token_s = first_token_s
            note(engine.log, first_token_s, FIRST_TOKEN, request)


def finish(engine: EngineView) -> None:
    """The run is over: its tokens are there, some requests are done, and the next step is not planned yet."""
    e, requests, heap = engine.state, engine.requests, engine.decode_heap
    steps = e.steps
    e.steps = 0
    e.step += steps
    grown = steps * e.decoding
    e.kv += grown
    e.kv_decoding += grown
    e.tokens += grown
    e.token_time_s += e.decoding * (e.end_s - e.start_s)
    e.busy_s += e.end_s - e.start_s
    if e.partial != NONE:
        requests[e.partial].todo -= e.chunk * steps
    if e.cancelled:
        remove_cancelled(engine)
    while e.decoding and requests[heap[0]].last_step == e.step:
        request = heap[0]
        drop(engine, 0)
        q = requests[request]
        held = q.isl + q.osl
        e.kv_decoding -= held
        _finished(engine, request, held)
    request = e.completing
    e.completing = NONE
    while request != NONE:
        following = requests[request].next
        _prompt_done(engine, request)
        request = following


def _prompt_done(engine: EngineView, request: int) -> None:
    e = engine.state
    q = engine.requests[request]
    held = q.isl + q.generated
    if e.prefill_only:
        e.kv -= held
        e.running -= 1
        q.admission = NOWHERE
        note(engine.log, e.end_s, PREFILLED, request)
        return
    q.generated += 1
    if math.isnan(q.first_token_s):
        q.first_token_s = e.end_s
        note(engine.log, e.end_s, FIRST_TOKEN, request)
    if q.generated == q.osl:
        _finished(engine, request, held)
    else:
        e.kv += 1
        _decode(engine, request, held + 1)


def _finished(engine: EngineView, request: int, held: int) -> None:
    e = engine.state
    q = engine.requests[request]
    e.kv -= held
    e.running -= 1
    q.generated = q.osl
    q.last_step = NOWHERE
    q.finished_s = e.end_s
    note(engine.log, e.end_s, FINISHED, request)


def _preempt(engine: EngineView) -> None:
    """Send the request that was admitted last back to the head of the queue; later it computes everything again."""
    e, requests, heap = engine.state, engine.requests, engine.decode_heap
    request = e.partial
    if request == NONE:
        request = heap[0]
        for place in range(1, e.decoding):
            if requests[heap[place]].admission > requests[request].admission:
                request = heap[place]
    q = requests[request]
    e.preemptions += 1
    e.recomputed_tokens += remove(engine, request)
    q.preemptions += 1
    q.todo = q.isl + q.generated
    requeue(engine, request)
    note(engine.log, e.start_s, PREEMPTED, request)
