"""The engine against a simulation of every step and every token.

The simulation is written from the rules in the docstring of ``dynamo_planner.simulator.engine.engine`` alone, with
nothing shared: no runs, no heaps, no running totals; every quantity is counted anew in every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_planner.simulator.engine import step_runs as runs
from dynamo_planner.simulator.engine.engine import Engine, EngineLimits
from dynamo_planner.simulator.engine.request import Request
from dynamo_planner.simulator.engine.state import EngineState
from dynamo_planner.simulator.engine.step_time import GridTiming, LinearTiming
from tests.support.laws import examples

EXACT = LinearTiming(base_ms=125, prefill_ms_per_token=62.5, kv_ms_per_token=31.25)  # all sums exact in binary


@dataclass
class Job:
    """A request to be served, and what came of it."""

    arrival_s: float
    isl: int
    osl: int
    cached: int = 0
    cancel_s: float = math.inf
    events: list[tuple[float, str]] = field(default_factory=list)
    computed: int = 0
    tokens: int = 0
    times: list[float] = field(default_factory=list)
    decodes: bool = False

    def held(self) -> int:
        return self.isl + self.tokens


def serve(  # noqa: PLR0912 - one loop, so that it can be read against the rules from top to bottom
    jobs: Sequence[Job],
    *,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    kv_tokens: int,
    step_ms: Callable[[int, int, int], float],
) -> int:
    """Serve all jobs (in the order of their arrival); returns the number of preemptions."""
    coming, waiting, running = list(jobs), list[Job](), list[Job]()
    preemptions, now = 0, 0.0
    for job in jobs:
        job.computed = min(job.cached, job.isl - 1)
    while coming or waiting or running:
        if not waiting and not running:
            now = max(now, coming[0].arrival_s)
        while coming and coming[0].arrival_s <= now:
            waiting.append(coming.pop(0))
        waiting = [job for job in waiting if job.cancel_s > now]
        running = [job for job in running if job.cancel_s > now]

        while sum(job.held() for job in running) > kv_tokens:
            victim = running.pop()
            victim.computed = 0
            victim.events.append((now, "preempted"))
            waiting.insert(0, victim)
            preemptions += 1
        budget = max_num_batched_tokens
        work: dict[int, int] = {}
        for job in sorted(running, key=lambda job: not job.decodes):
            work[id(job)] = min(job.held() - job.computed, budget)
            budget -= work[id(job)]
        while waiting and budget > 0 and len(running) < max_num_seqs:
            if sum(job.held() for job in running) + waiting[0].held() > kv_tokens:
                break
            job = waiting.pop(0)
            running.append(job)
            job.decodes = job.held() - job.computed == 1
            work[id(job)] = min(job.held() - job.computed, budget)
            budget -= work[id(job)]
        if not running:
            continue

        assert sum(job.held() for job in running) <= kv_tokens
        decoding = [job for job in running if job.decodes]
        prompts = sum(work[id(job)] for job in running if not job.decodes)
        now += step_ms(prompts, len(decoding), sum(job.held() for job in decoding)) / 1000
        for job in list(running):
            job.computed += work[id(job)]
            if job.computed < job.held():
                continue
            job.tokens += 1
            job.decodes = True
            if job.cancel_s >= now:
                job.times.append(now)
                if job.tokens == 1:
                    job.events.append((now, "first_token"))
                if job.tokens == job.osl:
                    job.events.append((now, "finished"))
            if job.tokens == job.osl:
                running.remove(job)
    return preemptions


@st.composite
def limits(draw: st.DrawFn) -> EngineLimits:
    seqs = draw(st.integers(1, 6))
    tokens = draw(st.integers(seqs, 24))
    return EngineLimits(max_num_seqs=seqs, max_num_batched_tokens=tokens, kv_tokens=draw(st.integers(12, 60)))


@st.composite
def jobs(draw: st.DrawFn, kv_tokens: int, times: st.SearchStrategy[float]) -> list[Job]:
    arrivals = sorted(draw(st.lists(times, min_size=1, max_size=12)))
    made = []
    for arrival in arrivals:
        isl = draw(st.integers(1, kv_tokens))
        osl = draw(st.integers(1, kv_tokens - isl + 1))
        cached = draw(st.sampled_from([0, 0, isl, isl // 2]))
        made.append(Job(arrival, isl, osl, cached))
    return made


EXACT_TIMES = st.integers(0, 80).map(lambda n: n * 0.125)
ANY_TIMES = st.floats(0, 10)


def served(made: Engine, work: list[Job], looks: list[float], plan: bool) -> list[list[tuple[float, str]]]:
    """What becomes of each job, looking at the engine at these times too."""
    happened: dict[int, list[tuple[float, str]]] = {}
    requests: dict[int, Request] = {}
    actions: list[tuple[float, int, int]] = [(job.arrival_s, 1, index) for index, job in enumerate(work)]
    actions += [(job.cancel_s, 2, index) for index, job in enumerate(work) if job.cancel_s < math.inf]
    actions += [(at_s, 0, 0) for at_s in looks]
    order: dict[int, int] = {}

    def look(to_s: float) -> None:
        for event in made.advance(to_s):
            happened.setdefault(order[id(event.request)], []).append((event.at_s, event.kind))

    for at_s, what, index in sorted(actions):
        if what == 0:
            look(at_s)
            if plan:
                made.next_event_s()
                made.next_step_s()
        elif what == 1:
            job = work[index]
            requests[index] = made.submit(job.isl, job.osl, at_s, job.cached)
            order[id(requests[index])] = index
        else:
            made.cancel(requests[index], at_s)
        assert made.kv_used_tokens <= made.limits.kv_tokens
        assert made.running <= made.limits.max_num_seqs
    look(math.inf)
    assert (made.running, made.waiting, made.kv_used_tokens) == (0, 0, 0)
    return [happened.get(index, []) for index in range(len(work))]


def expected(made: Engine, work: list[Job], step_ms: Callable[[int, int, int], float]) -> int:
    return serve(
        work,
        max_num_seqs=made.limits.max_num_seqs,
        max_num_batched_tokens=made.limits.max_num_batched_tokens,
        kv_tokens=made.limits.kv_tokens,
        step_ms=step_ms,
    )


def linear(timing: LinearTiming) -> Callable[[int, int, int], float]:
    return lambda prompts, _, kv: timing.base_ms + timing.prefill_ms_per_token * prompts + timing.kv_ms_per_token * kv


@examples(400)
@given(st.data())
def test_agrees_with_a_simulation_of_every_step_and_token(data: st.DataObject) -> None:
    bounds = data.draw(limits())
    exact = data.draw(st.booleans())
    coefficient = st.floats(0.1, 100)
    timing = (
        EXACT
        if exact
        else LinearTiming(
            base_ms=data.draw(coefficient),
            prefill_ms_per_token=data.draw(coefficient),
            kv_ms_per_token=data.draw(coefficient),
        )
    )
    work = data.draw(jobs(bounds.kv_tokens, EXACT_TIMES if exact else ANY_TIMES))
    looks = data.draw(st.lists(EXACT_TIMES if exact else ANY_TIMES, max_size=10))
    made = Engine(bounds, timing)
    happened = served(made, work, looks, plan=data.draw(st.booleans()))
    preemptions = expected(made, work, linear(timing))
    assert made.preemptions == preemptions
    for job, events in zip(work, happened, strict=True):
        assert [kind for _, kind in events] == [kind for _, kind in job.events]
        assert [at_s for at_s, _ in events] == pytest.approx([at_s for at_s, _ in job.events], abs=1e-9)


@examples(300)
@given(st.data())
def test_cancelled_requests_leave_with_the_step_in_progress(data: st.DataObject) -> None:
    bounds = data.draw(limits())
    work = data.draw(jobs(bounds.kv_tokens, EXACT_TIMES))
    for job in work:
        if data.draw(st.booleans()):
            job.cancel_s = job.arrival_s + data.draw(EXACT_TIMES)
    made = Engine(bounds, EXACT)
    happened = served(made, work, data.draw(st.lists(EXACT_TIMES, max_size=10)), plan=False)
    expected(made, work, linear(EXACT))
    assert happened == [job.events for job in work]


@examples(150)
@given(st.data())
def test_a_profile_is_followed_between_its_grid_points(data: st.DataObject) -> None:
    bounds = data.draw(limits())
    work = data.draw(jobs(bounds.kv_tokens, EXACT_TIMES))
    kv_cell, prefill_cell = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 10))
    levels = data.draw(st.lists(st.integers(1, 40), min_size=70, max_size=70))

    def profile(prompts: int, decoding: int, kv: int) -> float:
        return 125.0 * (levels[min(kv, 69)] + levels[min(prompts, 69)] + 2 * decoding)

    def between(prompts: int, decoding: int, kv: int) -> float:
        rows, cells = (
            [value // cell * cell, value // cell * cell + cell]
            for value, cell in ((prompts, prefill_cell), (kv, kv_cell))
        )
        ends = [np.interp(kv, cells, [profile(row, decoding, level) for level in cells]) for row in rows]
        return float(np.interp(prompts, rows, ends))

    made = Engine(bounds, GridTiming(profile, kv_cell, prefill_cell))
    happened = served(made, work, [], plan=True)
    expected(made, work, between)
    for job, events in zip(work, happened, strict=True):
        assert [at_s for at_s, _ in events] == pytest.approx([at_s for at_s, _ in job.events], abs=1e-9)


@examples(150)
@given(st.data())
def test_tokens_come_when_the_steps_end(data: st.DataObject) -> None:
    bounds = data.draw(limits())
    work = data.draw(jobs(bounds.kv_tokens, EXACT_TIMES))
    made = Engine(bounds, EXACT)
    expected(made, work, linear(EXACT))
    requests: list[Request] = []
    pending = list(work)
    for at_s in (n * 0.125 for n in range(400)):
        while pending and pending[0].arrival_s <= at_s:
            job = pending.pop(0)
            requests.append(made.submit(job.isl, job.osl, job.arrival_s, job.cached))
        made.advance(at_s)
        for job, request in zip(work, requests, strict=False):
            assert made.generated(request) == sum(time <= at_s for time in job.times)
        ends = [time for job in work for time in job.times if time > at_s]
        if requests and len(requests) == len(work) and ends:
            assert at_s < made.next_step_s() <= min(ends)


@examples(300)
@given(
    start_s=st.floats(0, 1e10),
    first_step_s=st.floats(1e-3, 10),
    growth=st.floats(-0.99, 2),
    steps=st.integers(1, 5000),
    data=st.data(),
)
def test_a_run_knows_its_steps_in_spite_of_rounding(
    start_s: float, first_step_s: float, growth: float, steps: int, data: st.DataObject
) -> None:
    run = EngineState(1, 1, 1)
    run.start_s = start_s
    runs.plan_run(run, steps, first_step_s, growth * first_step_s / (steps if growth < 0 else 1))
    step = data.draw(st.integers(1, steps))
    end_s = runs.end_of(run, step)
    assert runs.done(run, end_s) == step
    assert runs.done(run, math.nextafter(end_s, -math.inf)) == step - 1


@examples(100)
@given(st.floats(0, 1e10), st.lists(st.tuples(st.floats(0, 20), st.integers(1, 50), st.integers(1, 30)), min_size=1))
def test_going_from_step_to_step_gets_everywhere(start_s: float, arrivals: list[tuple[float, int, int]]) -> None:
    """Whatever the size of the clock's numbers, the next step is in the future, until there is none."""
    made = Engine(EngineLimits(max_num_seqs=4, max_num_batched_tokens=20, kv_tokens=100), LinearTiming(base_ms=7))
    for at_s, isl, osl in sorted(arrivals):
        made.submit(isl, osl, start_s + at_s)
    while (next_s := made.next_step_s()) < math.inf:
        made.advance(next_s)
        assert made.next_step_s() > next_s
    assert (made.running, made.waiting) == (0, 0)
