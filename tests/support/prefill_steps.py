"""An exact simulation of prefill replicas step by step, kept simple, that shares nothing with the formulas of the
package.

A replica works in steps, each of which takes up to ``chunk`` tokens from the prompts that it has, first come, first
served; what comes during a step waits for the next one. A step takes ``base_ms + token_ms * tokens`` and, of each part
of a prompt from token s to token e, ``attention_ms * (e**2 - s**2)``. A prompt goes to the replica with the fewest
tokens to compute, or to each in turn, or anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROUTINGS = ("least_loaded", "round_robin", "random")


@dataclass(frozen=True)
class PrefillEngine:
    """How long steps take, in ms, and how many tokens they hold."""

    base_ms: float
    token_ms: float
    attention_ms: float
    chunk: int

    def alone_ms(self, isl: npt.ArrayLike) -> Floats:
        """The TTFT of prompts that find their replica idle and stay alone."""
        tokens = np.asarray(isl, float)
        return self.base_ms * np.ceil(tokens / self.chunk) + self.token_ms * tokens + self.attention_ms * tokens**2


def ttft_ms(
    engine: PrefillEngine,
    replicas: int,
    arrival_s: Floats,
    isl: Ints,
    routing: Literal["least_loaded", "round_robin", "random"] = "least_loaded",
) -> Floats:
    """The TTFT of each prompt, in ms."""
    anywhere = np.random.default_rng(0).integers(0, replicas, len(isl))
    costs = (engine.base_ms, engine.token_ms, engine.attention_ms)
    return np.asarray(_run(arrival_s * 1000, isl, replicas, costs, engine.chunk, ROUTINGS.index(routing), anywhere))


@njit(cache=True)
def _run(arrival: Any, isl: Any, n: int, costs: Any, chunk: int, routing: int, anywhere: Any) -> Any:
    count = len(arrival)
    ttft, todo, behind = np.zeros(count), isl.copy(), np.full(count, -1)
    head, tail, first, done = np.full(n, -1), np.full(n, -1), np.full(n, -1), np.zeros(n, np.int64)
    end, held, step = np.full(n, np.inf), np.zeros(n, np.int64), np.zeros(n, np.int64)
    for i in range(count + 1):
        now = arrival[i] if i < count else np.inf
        for r in range(n):
            while end[r] <= now and end[r] < np.inf:
                t, k = end[r], first[r]
                for _ in range(done[r]):
                    ttft[k] = t - arrival[k]
                    k = behind[k]
                held[r] -= step[r]
                end[r] = np.inf
                if head[r] >= 0:
                    end[r] = t + _begin(r, isl, todo, behind, head, first, done, step, chunk, costs)
        if i == count:
            break
        r = i % n if routing == 1 else anywhere[i]
        if routing == 0:
            r = 0
            for s in range(1, n):
                if held[s] < held[r]:
                    r = s
        held[r] += isl[i]
        if head[r] < 0:
            head[r] = i
        if tail[r] >= 0:
            behind[tail[r]] = i
        tail[r] = i
        if end[r] == np.inf:
            end[r] = now + _begin(r, isl, todo, behind, head, first, done, step, chunk, costs)
    return ttft


@njit(cache=True)
def _begin(
    r: int, isl: Any, todo: Any, behind: Any, head: Any, first: Any, done: Any, step: Any, chunk: int, costs: Any
) -> Any:
    """Fill the step that begins now; how long it takes."""
    left, squares = chunk, 0.0
    first[r], done[r] = head[r], 0
    while head[r] >= 0 and left > 0:
        k = head[r]
        take, start = min(todo[k], left), isl[k] - todo[k]
        squares += float(start + take) ** 2 - float(start) ** 2
        todo[k] -= take
        left -= take
        if todo[k] > 0:
            break
        done[r] += 1
        head[r] = behind[k]
    step[r] = chunk - left
    return costs[0] + costs[1] * step[r] + costs[2] * squares
