"""What a demo replays: a window of a trace that fits its time and a small machine, and in words what was done to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dynamo_planner.demo.fit import PEAK_WINDOW_S, busiest_s, peak_per_s
from dynamo_planner.demo.load import TraceRequest
from dynamo_planner.workloads.generators import AZURE_CONVERSATION_ISL, AZURE_CONVERSATION_OSL, following
from dynamo_planner.workloads.rate_curves import rise_and_fall
from dynamo_planner.workloads.trace import Trace, TraceError

WINDOW_S = 60.0
"""How long the replay of a file takes by default."""

LEAD_S = 20.0
"""How long before the busiest moment of a file it begins."""

LONGEST_S = 90.0
"""The most that a replay may take, so that the start, scaling down at the end and the summary fit in two minutes."""

QUIET_PER_S, BUSY_PER_S, LENGTH_SCALE = 1.5, 20.0, 0.25
RISES_AT_S, BUSY_FOR_S = 8.0, 62.0
"""The load doubles in about five seconds, twice what a start takes; on a cluster both take longer."""

LEAST_REQUESTS_PER_S = 3.0
"""Where a trace has fewer, it is sped up to show a few at a time."""

MOST_REQUESTS_PER_S, MOST_TOKENS_PER_S = 20.0, 2500.0
"""At the peak: what the client, the router and the workers can stream together on a part of one core."""

ALL_BUT_ROUNDING = 0.995


@dataclass(frozen=True)
class Scenario:
    """Requests to send within ``length_s``, and in words what they are."""

    title: str
    requests: tuple[TraceRequest, ...]
    length_s: float


def generated(seed: int) -> Scenario:
    """A busy day in a minute and a half, with lengths after published statistics of a production trace."""
    rate_curve = rise_and_fall(QUIET_PER_S, BUSY_PER_S, RISES_AT_S, BUSY_FOR_S)
    isl, osl = AZURE_CONVERSATION_ISL.scaled(LENGTH_SCALE), AZURE_CONVERSATION_OSL.scaled(LENGTH_SCALE)
    trace = following(rate_curve, LONGEST_S, seed, isl, osl)
    return _scenario(f"a busy day in {LONGEST_S:g} s, generated (seed {seed})", trace)


def from_file(
    path: Path,
    from_s: float | None,
    to_s: float | None,
    speed: float | None,
    seed: int,
    trace_format: str | None = None,
) -> Scenario:
    """A window of a trace file. A fast trace is thinned out, and a slow one sped up where ``speed`` is left out.

    The format is recognised by the file's content where it is not named.

    Raises :class:`TraceError` where the window has no request or takes too long.
    """
    whole = Trace.load(path, trace_format=trace_format)
    rate = len(whole) / max(whole.duration_s, 1.0)
    speed = max(1.0, round(LEAST_REQUESTS_PER_S / rate)) if speed is None else speed
    if from_s is None:
        from_s = _telling_s(whole, speed) if to_s is None else 0.0
    to_s = min(whole.duration_s, from_s + WINDOW_S * speed) if to_s is None else to_s
    length_s = (to_s - from_s) / speed
    if not 0 < length_s <= LONGEST_S:
        raise TraceError(
            f"{path}: from {from_s:g} to {to_s:g} s at speed {speed:g} takes {length_s:g} s, which must be above 0 and "
            f"at most {LONGEST_S:g}: choose a window of its {whole.duration_s:g} s, or another speed"
        )
    window = whole.between(from_s, to_s).speed_up(speed)
    title = f"{length_s:g} s of {whole.name} ({from_s:g} to {to_s:g} s at speed {speed:g})"
    requests_per_s = peak_per_s(window.arrival_s, np.ones(len(window)))
    tokens_per_s = peak_per_s(window.arrival_s, window.osl)
    share = min(1.0, MOST_REQUESTS_PER_S / requests_per_s, MOST_TOKENS_PER_S / tokens_per_s)
    if share < ALL_BUT_ROUNDING:
        window = window.at_rate(share * len(window) / window.duration_s, seed)
        title = f"{title}, {share:.0%} of its requests"
    return _scenario(title, window)


def _telling_s(whole: Trace, speed: float) -> float:
    """Where to begin so that the busiest moment comes after a while, and something is left to come after it."""
    begin_s = busiest_s(whole.arrival_s, whole.osl, PEAK_WINDOW_S * speed) - LEAD_S * speed
    return math.floor(max(0.0, min(begin_s, whole.duration_s - WINDOW_S * speed)))


def _scenario(title: str, trace: Trace) -> Scenario:
    rows = zip(trace.arrival_s, trace.isl, trace.osl, strict=True)
    requests = tuple(TraceRequest(float(due_s), int(isl), int(osl)) for due_s, isl, osl in rows)
    return Scenario(title, requests, trace.duration_s)
