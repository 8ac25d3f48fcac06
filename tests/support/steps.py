"""An exact simulation of engines step by step, kept simple, that shares nothing with the formulas of the package.

Every request goes to the replica with the fewest requests. A replica works in steps: every decoding request gets one
token, and prompts get what is left of ``chunk`` tokens, first come, first served. A step takes ``base + request_ms *
decoding + kv_ms * KV tokens + prompt_ms * prompt tokens``. Whoever comes during a step waits for the next one, and
nobody begins while the KV cache has no room for its prompt. A cache that overflows as contexts grow preempts nobody:
the youngest of its requests is counted as one that waited for room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST = 4096
"""Requests that a replica decodes at once at most."""


@dataclass(frozen=True)
class Engine:
    """How long steps take, in ms, and what they hold; ``chunk`` 0: prompts were computed elsewhere."""

    base_ms: float
    request_ms: float
    kv_ms: float
    kv_tokens: float
    prompt_ms: float = 0.0
    chunk: int = 0


@dataclass(frozen=True)
class Served:
    """Per request: the time to the first token, the time per token after it (0 with one token), and whether there was
    no room for it when it came."""

    ttft_ms: Floats
    itl_ms: Floats
    waited: npt.NDArray[np.bool_]


def serve(engine: Engine, replicas: int, arrival_s: Floats, isl: Ints, osl: Ints) -> Served:
    """What becomes of the requests."""
    costs = (engine.base_ms, engine.request_ms, engine.kv_ms, engine.prompt_ms)
    first, last, waited = _run(arrival_s * 1000, isl, osl, replicas, costs, engine.kv_tokens, engine.chunk)
    return Served(first - arrival_s * 1000, (last - first) / np.maximum(osl - 1, 1), waited)


@njit(cache=True)
def _run(arrival: Any, isl: Any, osl: Any, n: int, costs: Any, room: float, chunk: int) -> Any:  # noqa: PLR0912, PLR0915
    count = len(arrival)
    first, last = np.zeros(count), np.zeros(count)
    waited = np.zeros(count, np.bool_)
    todo, behind = isl.copy(), np.full(count, -1)
    head, tail, held = np.full(n, -1), np.full(n, -1), np.zeros(n, np.int64)
    end, step, kv, latest = np.full(n, np.inf), np.zeros(n, np.int64), np.zeros(n), np.full(n, -1)
    batch, done = np.zeros(n, np.int64), np.zeros(n, np.int64)
    heap, who = np.zeros((n, MOST), np.int64), np.zeros((n, MOST), np.int64)
    joining = np.zeros((n, MOST), np.int64)
    for i in range(count + 1):
        now = arrival[i] if i < count else np.inf
        for r in range(n):
            while end[r] <= now and end[r] < np.inf:
                t = end[r]
                # The step is over: a token for everybody, and whoever is complete leaves.
                step[r] += 1
                kv[r] += batch[r]
                while batch[r] and heap[r, 0] == step[r]:
                    k = who[r, 0]
                    last[k] = t
                    kv[r] -= isl[k] + osl[k]
                    held[r] -= 1
                    batch[r] -= 1
                    f, w, at = heap[r, batch[r]], who[r, batch[r]], 0
                    while 2 * at + 1 < batch[r]:
                        c = 2 * at + 1
                        if c + 1 < batch[r] and heap[r, c + 1] < heap[r, c]:
                            c += 1
                        if heap[r, c] >= f:
                            break
                        heap[r, at], who[r, at] = heap[r, c], who[r, c]
                        at = c
                    heap[r, at], who[r, at] = f, w
                for j in range(done[r]):
                    k = joining[r, j]
                    first[k] = t
                    kv[r] += 1
                    if osl[k] == 1:
                        last[k] = t
                        kv[r] -= isl[k] + 1
                        held[r] -= 1
                        continue
                    f, at = step[r] + osl[k] - 1, batch[r]
                    batch[r] += 1
                    while at and heap[r, (at - 1) // 2] > f:
                        heap[r, at], who[r, at] = heap[r, (at - 1) // 2], who[r, (at - 1) // 2]
                        at = (at - 1) // 2
                    heap[r, at], who[r, at] = f, k
                done[r] = 0
                end[r] = np.inf
                if held[r]:
                    end[r] = t + _begin(
                        r, isl, todo, behind, head, kv, latest, batch, done, joining, waited, room, chunk, costs
                    )
        if i == count:
            break
        r = 0
        for s in range(1, n):
            if held[s] < held[r]:
                r = s
        held[r] += 1
        if head[r] < 0:
            head[r] = i
        else:
            behind[tail[r]] = i
        tail[r] = i
        if end[r] == np.inf:
            end[r] = now + _begin(
                r, isl, todo, behind, head, kv, latest, batch, done, joining, waited, room, chunk, costs
            )
    return first, last, waited


@njit(cache=True)
def _begin(
    r: int, isl: Any, todo: Any, behind: Any, head: Any, kv: Any, latest: Any, batch: Any, done: Any, joining: Any,
    waited: Any, room: float, chunk: int, costs: Any,
) -> Any:  # fmt: skip
    """Choose who is in the step that begins now; how long it takes."""
    base, per_request, per_kv, per_prompt = costs
    prompts, decoding = 0, batch[r]
    left = chunk - decoding
    if kv[r] > room and latest[r] >= 0:
        waited[latest[r]] = True
    while head[r] >= 0 and decoding + done[r] < MOST - 1 and (chunk == 0 or left > 0):
        k = head[r]
        if todo[k] == isl[k]:
            if kv[r] + isl[k] > room and kv[r] > 0:
                waited[k] = True
                break
            kv[r] += isl[k]
            latest[r] = k
        if chunk:
            take = min(todo[k], left)
            todo[k] -= take
            left -= take
            prompts += take
            if todo[k]:
                break
        else:
            decoding += 1
        joining[r, done[r]] = k
        done[r] += 1
        head[r] = behind[k]
    return base + per_request * decoding + per_kv * kv[r] + per_prompt * prompts
