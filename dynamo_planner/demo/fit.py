"""Simulated engines that fit a replay: their speed and memory are such that its peak needs a few workers.

A trace of a large service would drown one simulated engine, and a quiet one never need a second; on a real cluster one
would choose the hardware. The peak is the busiest :data:`PEAK_WINDOW_S` of the replay.

- *Steps* last so long that about :data:`IN_FLIGHT` requests are being decoded at the peak: by Little's law that is the
  output tokens that arrive per second times the time that a token takes.
- *Decoding*: a step is :data:`SLOWDOWN` times as long with the load of the peak on :data:`PEAK_WORKERS` workers as
  without any. A request holds its prompt, and on average half of its output, for as long as it decodes (Little's law
  again). The KV cache has :data:`KV_ROOM` times the room for that.
- *Prompts* are computed at a speed at which the peak keeps :data:`PEAK_WORKERS` prefill workers busy. An aggregated
  worker computes them beside decoding, in the same steps, which then last longer: there the peak keeps only
  :data:`PREFILL_SHARE` of them busy.

The targets leave room for the peak on about this many workers. A request that would decode for too long, or hold too
much of a cache, is cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.demo.load import TraceRequest
from dynamo_planner.simulator.engine.engine import EngineLimits
from dynamo_planner.simulator.engine.step_time import LinearTiming

PEAK_WINDOW_S = 10.0
PEAK_WORKERS = 4.0
PREFILL_SHARE = 0.3
IN_FLIGHT = 90.0
SHORTEST_TOKEN_S = 0.012
"""Shorter ones would measure this machine, and not the simulated engine."""

SLOWDOWN = 2.5
KV_ROOM = 3.0
TOKENS_PER_STEP = 1024
LONGEST_DECODE_S = 15.0
LARGEST_SHARE = 0.5
"""The most that one request may hold of a KV cache."""

TTFT_SCALE = 8.0
"""The TTFT target, as a multiple of what a long prompt (the 95th percentile) takes on a worker of its own."""

ITL_SCALE = 1.2
"""The ITL target, as a multiple of the time of a token at the peak."""


@dataclass(frozen=True)
class EngineFit:
    """The engine of each worker, the requests as they are sent (``cut`` of them shorter than in the trace), and what
    can be asked of such engines."""

    timing: LinearTiming
    limits: EngineLimits
    requests: tuple[TraceRequest, ...]
    cut: int
    sla: Sla


def fit(requests: Sequence[TraceRequest], *, disaggregated: bool) -> EngineFit:
    """The engines that fit these requests."""
    due_s = np.array([request.due_s for request in requests])
    isl = np.array([request.isl for request in requests])
    osl = np.array([request.osl for request in requests])
    prefill_share = 0.0 if disaggregated else PREFILL_SHARE
    token_s = min(max(IN_FLIGHT / peak_per_s(due_s, osl), SHORTEST_TOKEN_S), LONGEST_DECODE_S)
    osl = np.clip(osl, 1, int(LONGEST_DECODE_S / token_s))
    held = max(peak_per_s(due_s, osl * token_s * (isl + osl / 2)) / PEAK_WORKERS, 1.0)
    kv_tokens = max(int(KV_ROOM * held), 4)
    largest = int(LARGEST_SHARE * kv_tokens)
    osl = np.minimum(osl, largest - 1)
    isl = np.minimum(isl, largest - osl)
    step_ms = 1000 * token_s * (1 - prefill_share)
    busy = PEAK_WORKERS * (prefill_share or 1.0)
    timing = LinearTiming(
        base_ms=step_ms / SLOWDOWN,
        prefill_ms_per_token=1000 * busy / peak_per_s(due_s, isl),
        kv_ms_per_token=step_ms * (1 - 1 / SLOWDOWN) / held,
    )
    sent = tuple(
        TraceRequest(request.due_s, int(prompt), int(output))
        for request, prompt, output in zip(requests, isl, osl, strict=True)
    )
    return EngineFit(
        timing=timing,
        limits=EngineLimits(max_num_batched_tokens=TOKENS_PER_STEP, kv_tokens=kv_tokens),
        requests=sent,
        cut=sum(own != other for own, other in zip(sent, requests, strict=True)),
        sla=_sla(timing, float(np.percentile(isl, 95)), token_s),
    )


def _sla(timing: LinearTiming, isl: float, token_s: float) -> Sla:
    steps = math.ceil(isl / TOKENS_PER_STEP)
    alone_ms = steps * timing.base_ms + isl * timing.prefill_ms_per_token
    return Sla(ttft_ms=rounded_up(TTFT_SCALE * alone_ms), itl_ms=rounded_up(ITL_SCALE * 1000 * token_s))


def rounded_up(value: float) -> float:
    """To two digits.

    >>> rounded_up(731.0), rounded_up(41.2)
    (740.0, 42.0)
    """
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit) * unit


def peak_per_s(due_s: np.ndarray, amount: np.ndarray, window_s: float = PEAK_WINDOW_S) -> float:
    """The largest mean per second, over any window, of what requests bring with them when they are due.

    >>> peak_per_s(np.array([0.0, 1.0, 9.0, 30.0]), np.array([5.0, 5.0, 10.0, 8.0]), window_s=10)
    2.0
    """
    return float(_totals(due_s, amount, window_s).max() / window_s)


def busiest_s(due_s: np.ndarray, amount: np.ndarray, window_s: float = PEAK_WINDOW_S) -> float:
    """When the busiest window begins.

    >>> busiest_s(np.array([0.0, 1.0, 9.0, 30.0]), np.array([5.0, 5.0, 10.0, 28.0]), window_s=10)
    30.0
    """
    return float(due_s[np.argmax(_totals(due_s, amount, window_s))])


def _totals(due_s: np.ndarray, amount: np.ndarray, window_s: float) -> np.ndarray:
    """The total over the window that begins with each request."""
    total = np.concatenate([[0.0], np.cumsum(amount)])
    until = np.searchsorted(due_s, due_s + window_s, side="left")
    return np.asarray(total[until] - total[:-1])
