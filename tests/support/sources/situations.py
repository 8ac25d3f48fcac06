"""Situations in which metrics lie, drawn over a service whose truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dynamo_planner.engines.sglang import SGLANG
from dynamo_planner.engines.vllm import VLLM
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.sources.series import Page
from tests.support.sources.true_service import Process, serve, sglang_page, vllm_page

BEGIN_S, EVERY_S, TURNS, WINDOW_S = 1_000_000.0, 10.0, 10, 30.0
FIRST_JUDGED = 4
"""Before that turn a window is not full."""

QUANTITIES = ("requests_per_s", "isl", "ttft_ms", "running", "queued", "kv_usage")
EVERYTHING = frozenset(QUANTITIES)
END_S = BEGIN_S + EVERY_S * TURNS
LONG_AGO_S = BEGIN_S - 90_000


@dataclass
class Worker:
    """A worker: which process shows which page at a time, and all processes that there are in truth."""

    page: Callable[[float], Page | None]
    processes: list[Process]
    loses_s: tuple[float, ...] = ()
    """Times of restarts: what a process did since the last scrape is lost with it."""
    pool: str = "aggregated"
    counts: bool = True
    """Whether its requests are the service's; those of prefill are decode's as well."""
    asleep: bool = False


@dataclass
class Situation:
    """Workers by name, and what is known of how they are read."""

    workers: dict[str, Worker]
    vocabulary: Vocabulary = VLLM
    alternatives: list[dict[str, list[Process]]] = field(default_factory=list)
    """Sets of processes, of which one may be told of as well as all: behind one address nobody sees the others."""
    touches: frozenset[str] = frozenset()
    """The quantities that the fault touches: the others have to be known."""
    until_s: float = math.inf
    """When what is touched was last to be seen."""
    jobs: tuple[str, ...] = ("llm",)
    """By which jobs each worker is scraped: more than one makes copies."""
    partial: float = 0.0
    """The share of answers that lack a worker, and say so."""


def plain(draw: random.Random, *, nameless: bool = False, sglang: bool = False) -> Worker:
    """A worker at a steady load, a rising one or a burst."""
    base, slots = draw.choice([0.2, 2.0, 8.0]), draw.choice([4, 40])
    shape = draw.choice(
        [lambda _: base, lambda s: base * (1 + (s - BEGIN_S) / 50), lambda s: base * (4 if s % 60 > 45 else 1)]
    )
    began_s = BEGIN_S - 20 if sglang else LONG_AGO_S + draw.random()
    requests = serve(draw, shape, BEGIN_S - 20, END_S, slots=slots)
    process = Process(began_s, requests, not nameless, 0 if sglang else draw.choice([0, 500, 80_000]))
    return Worker(lambda at_s: (sglang_page if sglang else vllm_page)(process, at_s), [process])


def no_fault(draw: random.Random) -> Situation:
    sglang = draw.random() < 0.3
    workers = {f"w{n}": plain(draw, nameless=draw.random() < 0.3, sglang=sglang) for n in range(draw.randint(1, 3))}
    return Situation(workers, SGLANG if sglang else VLLM)


def restart(draw: random.Random) -> Situation:
    """One worker dies and begins anew, with or without a start time on its page."""
    old = plain(draw, nameless=draw.random() < 0.5)
    (first,) = old.processes
    died_s = BEGIN_S + draw.uniform(12, END_S - BEGIN_S - 12)
    began_s = died_s + draw.uniform(0, 25)
    second = Process(began_s, serve(draw, lambda _: 2.0, began_s, END_S, slots=40), first.shows_start)
    had = [
        r if r.left_s <= died_s else replace(r, left_s=math.inf, first_s=r.first_s if r.first_s <= died_s else math.inf)
        for r in first.requests
        if r.arrived_s <= died_s
    ]
    kept = replace(first, requests=had)

    def page(at_s: float) -> Page | None:
        return vllm_page(kept, at_s) if at_s < died_s else vllm_page(second, at_s) if at_s >= began_s else None

    return Situation({"w0": Worker(page, [kept, second], (died_s,)), "w1": plain(draw)}, touches=EVERYTHING)


def two_processes(draw: random.Random) -> Situation:
    """Two processes behind one address, in turn, at random, or each for a while."""
    nameless = draw.random() < 0.5
    both = [plain(draw, nameless=nameless).processes[0] for _ in range(2)]
    if nameless:  # without a start time, counters that are alike cannot be told apart
        both = [replace(process, before=before) for process, before in zip(both, (500, 80_000), strict=True)]
    sticks = draw.choice([0.0, 0.5, 0.9])
    who, choices = 0, []
    for _ in range(TURNS + 1):
        who = who if draw.random() < sticks else 1 - who
        choices.append(both[who])
    worker = Worker(lambda at_s: vllm_page(choices[turn_of(at_s)], at_s), both)
    return Situation({"w0": worker}, alternatives=[{"w0": [both[0]]}, {"w0": [both[1]]}], touches=EVERYTHING)


def given_up(draw: random.Random) -> Situation:
    """Clients give up, after the first token or also while they wait.

    vLLM counts neither. Where none of its clients gives up after the first token, nothing on its page tells.
    """
    sglang, share, waiting = draw.random() < 0.5, draw.random(), draw.random() < 0.5
    share = 0.5 + share / 2 if waiting and not sglang else share
    how = ["running", "waiting"] if sglang or waiting else ["running"]
    requests = serve(
        draw,
        lambda _: 6.0,
        BEGIN_S - 20,
        END_S,
        slots=draw.choice([5, 60]),
        gives_up=lambda d: d.choice(how) if d.random() < share else "",
    )
    process = Process(BEGIN_S - 20, requests)
    worker = Worker(lambda at_s: (sglang_page if sglang else vllm_page)(process, at_s), [process])
    return Situation({"w0": worker}, SGLANG if sglang else VLLM, touches=frozenset({"requests_per_s", "isl"}))


def skips_prefill(draw: random.Random) -> Situation:
    """Some requests are served by decode alone."""
    share, per_s = draw.random(), draw.choice([1.0, 5.0, 20.0])
    decode = Process(LONG_AGO_S, serve(draw, lambda _: per_s, BEGIN_S - 20, END_S, slots=500), before=300)
    through = [each for each in decode.requests if draw.random() > share]
    prefill = Process(LONG_AGO_S, through, before=100)
    return Situation(
        {
            "p": Worker(lambda at_s: vllm_page(prefill, at_s), [prefill], pool="prefill", counts=False),
            "d": Worker(lambda at_s: vllm_page(decode, at_s), [decode], pool="decode"),
        },
        touches=frozenset({"requests_per_s", "isl", "ttft_ms"}),
    )


def does_not_answer(draw: random.Random) -> Situation:
    """A worker misses scrapes."""
    worker, silent = plain(draw), {draw.randint(1, TURNS) for _ in range(2)}
    show = worker.page
    worker.page = lambda at_s: None if turn_of(at_s) in silent else show(at_s)
    touches = frozenset({"requests_per_s", "running", "queued", "kv_usage"})
    return Situation({"w0": worker, "w1": plain(draw)}, touches=touches)


def sleeps(draw: random.Random) -> Situation:
    """A worker sleeps beside one that serves."""
    idle = Process(LONG_AGO_S, [], before=70)
    return Situation(
        {"w0": plain(draw), "w1": Worker(lambda at_s: vllm_page(idle, at_s, asleep=True), [idle], asleep=True)}
    )


RENAMED: Mapping[str, frozenset[str]] = {
    "vllm:request_success_total": frozenset({"requests_per_s"}),
    "vllm:num_requests_running": frozenset({"requests_per_s", "running"}),
    "vllm:num_requests_waiting": frozenset({"requests_per_s", "queued"}),
    "vllm:kv_cache_usage_perc": frozenset({"kv_usage"}),
    "vllm:request_prompt_tokens": frozenset({"isl"}),
    "vllm:time_to_first_token_seconds": frozenset({"ttft_ms"}),
    "vllm:num_preemptions_total": frozenset(),
    "vllm:engine_sleep_state": frozenset(),
}
"""What each metric of a page is needed for."""


def renamed(draw: random.Random) -> Situation:
    """A release calls a metric something else: all along, or from a moment on, when all workers are upgraded."""
    name, touches = draw.choice(list(RENAMED.items()))
    since_s = draw.choice([-math.inf, BEGIN_S + draw.uniform(30, END_S - BEGIN_S)])
    situation = Situation({f"w{n}": plain(draw) for n in range(draw.randint(1, 3))}, touches=touches, until_s=since_s)

    def upgraded(show: Callable[[float], Page | None]) -> Callable[[float], Page | None]:
        def page(at_s: float) -> Page | None:
            then = show(at_s)
            if then is None or at_s < since_s:
                return then
            return {
                each.replace(name, f"{name}_v2") if each.startswith(name) else each: of for each, of in then.items()
            }

        return page

    for worker in situation.workers.values():
        worker.page = upgraded(worker.page)
    return situation


def copies(draw: random.Random) -> Situation:
    """Each worker is scraped twice, by two jobs."""
    return replace(no_fault(draw), jobs=("llm", "pods"))


def partial_answers(draw: random.Random) -> Situation:
    """A part of the storage does not answer, so that some answers lack a worker, and say that they are partial."""
    return replace(no_fault(draw), partial=draw.choice([0.05, 0.3, 1.0]), touches=EVERYTHING)


def turn_of(at_s: float) -> int:
    return int((at_s - BEGIN_S) / EVERY_S)


KINDS: Mapping[str, Callable[[random.Random], Situation]] = {
    "no fault": no_fault,
    "restart": restart,
    "two processes": two_processes,
    "given up": given_up,
    "skips prefill": skips_prefill,
    "does not answer": does_not_answer,
    "sleeps": sleeps,
    "renamed": renamed,
}
THROUGH_PROMETHEUS: Mapping[str, Callable[[random.Random], Situation]] = {
    **KINDS,
    "copies": copies,
    "partial answers": partial_answers,
}
