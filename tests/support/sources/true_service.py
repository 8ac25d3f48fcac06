"""A service whose truth is known: requests with their times, and the pages that its processes show of them."""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from dynamo_planner.sources.series import Page

VLLM_LABELS = (("engine", "0"), ("model_name", "tiny"))


@dataclass(frozen=True)
class Request:
    """One request: when it came, was taken up, had its first token and left, in Unix seconds.

    ``first_s`` is infinite for one that left before. ``given_up`` says that its client left.
    """

    arrived_s: float
    taken_s: float
    first_s: float
    left_s: float
    isl: int
    given_up: bool = False

    @property
    def ttft_s(self) -> float:
        return self.first_s - self.arrived_s


@dataclass(frozen=True)
class Process:
    """One process of a worker, from its beginning on, with all requests that it ever has."""

    began_s: float
    requests: Sequence[Request]
    shows_start: bool = True
    before: int = 0
    """Requests that it had ended before the situation begins."""

    def arrived(self, from_s: float, to_s: float) -> int:
        return self._times("arrived", to_s) - self._times("arrived", from_s)

    def waiting(self, at_s: float) -> int:
        return self._times("arrived", at_s) - self._times("waited", at_s)

    def running(self, at_s: float) -> int:
        return self._times("taken", at_s) - self._times("ran", at_s)

    def left(self, from_s: float, to_s: float) -> list[Request]:
        return self._by_end[self._times("left", from_s) : self._times("left", to_s)]

    def first_tokens(self, from_s: float, to_s: float) -> list[Request]:
        return self._by_first_token[self._times("first", from_s) : self._times("first", to_s)]

    def _times(self, what: str, until_s: float) -> int:
        """How many of these times there are up to then."""
        return bisect_right(self._sorted[what], until_s)

    @cached_property
    def _by_end(self) -> list[Request]:
        return sorted(self.requests, key=lambda each: each.left_s)

    @cached_property
    def _by_first_token(self) -> list[Request]:
        return sorted(self.requests, key=lambda each: each.first_s)

    @cached_property
    def _sorted(self) -> dict[str, list[float]]:
        ran = [each for each in self.requests if each.taken_s < each.left_s]
        return {
            "arrived": sorted(each.arrived_s for each in self.requests),
            "waited": sorted(min(each.taken_s, each.left_s) for each in self.requests),
            "taken": sorted(each.taken_s for each in ran),
            "ran": sorted(each.left_s for each in ran),
            "left": [each.left_s for each in self._by_end],
            "first": [each.first_s for each in self._by_first_token],
        }


def serve(
    draw: random.Random,
    per_s: Callable[[float], float],
    from_s: float,
    to_s: float,
    *,
    slots: int,
    gives_up: Callable[[random.Random], str] = lambda _: "",
) -> list[Request]:
    """Poisson arrivals at one worker that serves in order, in so many slots.

    ``gives_up`` says whether a client leaves ``"waiting"``, ``"running"`` or, with an empty text, not at all.
    """
    free_s = [from_s] * slots
    heapq.heapify(free_s)
    served: list[Request] = []
    at_s = from_s
    while True:
        at_s += draw.expovariate(max(per_s(at_s), 0.05))
        if at_s > to_s:
            return served
        isl, how = draw.randint(20, 2000), gives_up(draw)
        taken_s = max(at_s, free_s[0])
        if how == "waiting" and taken_s - at_s > 0.5:
            served.append(
                Request(at_s, taken_s, float("inf"), at_s + draw.uniform(0, taken_s - at_s), isl, given_up=True)
            )
            continue
        first_s = taken_s + 0.05 + isl / 20_000
        whole_s = draw.uniform(0.5, 8)
        left_s = first_s + whole_s * (draw.random() if how == "running" else 1)
        heapq.heapreplace(free_s, left_s)
        served.append(Request(at_s, taken_s, first_s, left_s, isl, given_up=how == "running"))


def vllm_page(process: Process, at_s: float, asleep: bool = False) -> Page:
    """What a vLLM process shows: requests that are given up are in no counter but that of first tokens."""
    ended = [each for each in process.left(process.began_s, at_s) if not each.given_up]
    first = len(process.first_tokens(-math.inf, at_s)) + process.before
    page: Page = {
        "vllm:num_requests_running": {VLLM_LABELS: process.running(at_s)},
        "vllm:num_requests_waiting": {VLLM_LABELS: process.waiting(at_s)},
        "vllm:kv_cache_usage_perc": {VLLM_LABELS: min(1.0, process.running(at_s) / 100)},
        "vllm:engine_sleep_state": {(*VLLM_LABELS, ("sleep_state", "awake")): 0.0 if asleep else 1.0},
        "vllm:request_success_total": {(*VLLM_LABELS, ("finished_reason", "stop")): len(ended) + process.before},
        "vllm:num_preemptions_total": {VLLM_LABELS: 0.0},
        "vllm:time_to_first_token_seconds_count": {VLLM_LABELS: first},
        "vllm:time_to_first_token_seconds_sum": {VLLM_LABELS: _ttft(process, at_s) + 0.2 * process.before},
        "vllm:request_prompt_tokens_count": {VLLM_LABELS: len(ended) + process.before},
        "vllm:request_prompt_tokens_sum": {VLLM_LABELS: sum(each.isl for each in ended) + 900 * process.before},
    }
    return page | ({"process_start_time_seconds": {(): process.began_s}} if process.shows_start else {})


def sglang_page(process: Process, at_s: float) -> Page:
    """What an SGLang process shows: those that are given up while they wait are counted apart; series come with use."""
    left = process.left(process.began_s, at_s)
    ended = [each for each in left if each.first_s < float("inf")]
    aborted = sum(each.given_up for each in left)
    first = len(process.first_tokens(-math.inf, at_s))
    page: Page = {
        "sglang:num_running_reqs": {(): process.running(at_s)},
        "sglang:num_queue_reqs": {(): process.waiting(at_s)},
        "sglang:token_usage": {(): min(1.0, process.running(at_s) / 100)},
    }
    if first:
        page["sglang:time_to_first_token_seconds_count"] = {(): first}
        page["sglang:time_to_first_token_seconds_sum"] = {(): _ttft(process, at_s)}
    if ended:
        page["sglang:num_requests_total"] = {(): len(ended)}
        page["sglang:prompt_tokens_total"] = {(): sum(each.isl for each in ended)}
    if aborted:
        page["sglang:num_aborted_requests_total"] = {(): aborted}
    return page


def _ttft(process: Process, at_s: float) -> float:
    return sum(each.ttft_s for each in process.first_tokens(-math.inf, at_s))
