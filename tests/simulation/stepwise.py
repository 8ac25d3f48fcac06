"""An engine that is simulated step by step and token by token, to hold the fast one against.

Written from the rules in the docstring of ``dynamo_planner.simulation.engine`` alone, with nothing shared: no runs, no
heaps, no running totals; every quantity is counted anew in every step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


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
