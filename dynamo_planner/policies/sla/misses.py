"""Missed requests by role: which share of the requests of a window missed the SLA because of which pools.

A TTFT that is late is charged to prefill, but for the part that requests wait for decode; an ITL that is late is
charged to decode. An aggregated pool is charged with both::

    prefill  T (1 - d)           d = w_d / (w_d + w_p + target / 2)
    decode   I + T d             at most 1

======  ==============================================================================================================
``T``   share of requests that missed the TTFT target, with those that wait for longer than it, were turned away or
        were given up (:mod:`dynamo_planner.core.in_time`)
``I``   share of requests that missed the ITL target
``w``   seconds that requests wait for prefill and for decode, queue over arrival rate (Little 1961); a peak fades with
        a half-life of :data:`WAITS_HALF_LIFE_S`, since a latency shows in the metrics only after the wait
======  ==============================================================================================================

With 910 requests waiting for decode at 343/s, none for prefill and a target of 500 ms, ``d = 2.65 / 2.9 = 0.91``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple

from dynamo_planner.core.in_time import served_in_time, share_of_all
from dynamo_planner.core.metrics import Dist
from dynamo_planner.core.snapshot import Role, Sla, Snapshot
from dynamo_planner.forecasting.experts.base import decayed
from dynamo_planner.policies.sla.arrivals import ArrivalWindow

WAITS_HALF_LIFE_S = 20.0
"""A wait that was observed keeps half its weight over this time, in seconds."""

MAX_WAIT_S = 86_400.0
"""A wait counts as at most this, in seconds: a queue over hardly any arrivals would be for ever."""

TAIL_HALF_LIFE_S = 600.0
"""The shape of a tail within its bucket is learned with this half-life, in seconds."""


class Tail(NamedTuple):
    """The share of values above the two bounds around a target, smoothed.

    Args:
        above_lower: The share above the bound below the target.
        above_upper: The share above the bound above the target.
    """

    above_lower: float
    above_upper: float


class Waits(NamedTuple):
    """Seconds that requests wait for prefill and for decode, as recent peaks."""

    prefill_s: float = 0.0
    decode_s: float = 0.0


class MissMemory(NamedTuple):
    """What tells missed requests apart.

    Args:
        ttft: The tail of TTFT around its target.
        itl: The tail of ITL around its target.
        waits: Recent waits.
    """

    ttft: Tail | None = None
    itl: Tail | None = None
    waits: Waits = Waits()


def missed_by_role(
    memory: MissMemory, snapshot: Snapshot, sla: Sla, arrivals: ArrivalWindow, expected: dict[Role, float]
) -> tuple[dict[Role, float] | None, MissMemory]:
    """The share of requests that missed the SLA because of each role, and the new memory.

    ``expected`` is what the sizing expects each role to miss, which counts where nothing was measured beyond a bound.
    ``None`` where the share of TTFT or ITL in time is unknown.
    """
    traffic = snapshot.traffic
    roles = {pool.spec.role for pool in snapshot.pools.values()}
    aggregated = "aggregated" in roles
    first: Role = "aggregated" if aggregated else "prefill"
    tokens: Role = "aggregated" if aggregated else "decode"
    late, ttft = _late(traffic.ttft_ms, sla.ttft_ms, memory.ttft, arrivals.elapsed_s, expected.get(first, 0.0))
    slow, itl = _late(traffic.itl_ms, sla.itl_ms, memory.itl, arrivals.elapsed_s, expected.get(tokens, 0.0))
    memory = MissMemory(ttft, itl, _waits(memory.waits, snapshot, arrivals))
    if late is None or slow is None:
        return None, memory
    served = served_in_time(traffic, sla)
    total = share_of_all(snapshot, sla, served)
    if served is not None and total is not None and served.estimate > 0:
        late = 1 - (1 - late) * min(total.estimate / served.estimate, 1.0)
    if aggregated:
        return {"aggregated": late + slow - late * slow}, memory
    waits = memory.waits
    for_decode = waits.decode_s / (waits.decode_s + waits.prefill_s + sla.ttft_ms / 2000)
    return {"prefill": late * (1 - for_decode), "decode": min(slow + late * for_decode, 1.0)}, memory


def _late(
    dist: Dist | None, target: float, tail: Tail | None, elapsed_s: float, expected: float
) -> tuple[float | None, Tail | None]:
    """The share of values above a target, and its tail.

    A histogram knows the shares above two bounds, and between them the tail falls as an exponential of the logarithm
    of the value does, ``log S`` linear in ``log x``, with the tails of the last minutes: a straight line between 20 %
    above 36 ms and none above 45 ms would have 10 % above 40 ms where engines that keep it end just below. Where the
    mean is above the target the straight line holds. Beyond the last point that is known, what the sizing expects
    counts, as far as it fits.
    """
    points = None if dist is None else dist.buckets or {value: share for share, value in dist.quantiles.items()}
    if dist is None or not points:
        return None, tail
    bounds = sorted(points)
    place = bisect_left(bounds, target)
    above_lower = 1 - points[bounds[place - 1]] if place else 1.0
    if place == len(bounds):
        return min(expected, above_lower), tail
    above_upper = min(1 - points[bounds[place]], above_lower)
    if bounds[place] == target:
        return above_upper, tail
    keep = 0.0 if tail is None else decayed(elapsed_s, TAIL_HALF_LIFE_S)
    old = tail or Tail(0.0, 0.0)
    tail = Tail(
        above_lower + keep * (old.above_lower - above_lower), above_upper + keep * (old.above_upper - above_upper)
    )
    lower, upper = bounds[place - 1] if place else 0.0, bounds[place]
    straight = (upper - target) / (upper - lower)
    if dist.mean >= target or not lower:
        return above_upper + straight * (above_lower - above_upper), tail
    apart = tail.above_lower - tail.above_upper
    if apart <= 0 or tail.above_upper <= 0:
        return above_upper, tail
    where = math.log(target / lower) / math.log(upper / lower)
    above = tail.above_lower ** (1 - where) * tail.above_upper**where
    return above_upper + (above - tail.above_upper) / apart * (above_lower - above_upper), tail


def _waits(waits: Waits, snapshot: Snapshot, arrivals: ArrivalWindow) -> Waits:
    if not arrivals.requests_per_s:
        return waits
    queued = {"prefill": snapshot.traffic.queued or 0.0, "decode": 0.0}
    for pool in snapshot.pools.values():
        queued["decode" if pool.spec.role == "decode" else "prefill"] += pool.queued or 0.0
    fade = 0.5 ** (arrivals.elapsed_s / WAITS_HALF_LIFE_S)
    return Waits(
        max(min(queued["prefill"] / arrivals.requests_per_s, MAX_WAIT_S), fade * waits.prefill_s),
        max(min(queued["decode"] / arrivals.requests_per_s, MAX_WAIT_S), fade * waits.decode_s),
    )
