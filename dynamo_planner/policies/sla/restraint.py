"""Restraint: the most replicas that are asked for while little is known of the engines, by whether requests are late.

Where the present replicas serve the promised share in time, they do; more are for more requests alone. Where they do
not, twice as many are tried, which start before more are asked for::

    at most = ready * rate / rate now      requests are in time
    at most = 2 ready                      they are late, or that is unknown

8 ready replicas whose 100 requests/s are in time become 12 at most for 150 requests/s.
"""

from __future__ import annotations

import math

from dynamo_planner.core.in_time import share_in_time
from dynamo_planner.core.snapshot import Sla
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.policies.sla.tick import Tick

LATE_RISE = 2.0
"""Times the ready replicas that are asked for at most where requests are late."""

CLEAR_SHARE = 0.5
"""Means of latencies up to this share of their targets count as in time, where no share within a target is known: of a
log-normal latency with the spread of a queue, 1 % is over twice its mean."""


def at_most(tick: Tick, sla: Sla, rate: float, arrivals: ArrivalWindow) -> int:
    """The most replicas that are asked for at an arrival rate at a pool; ``arrivals`` are those at the service."""
    ready, rate_now = max(tick.replicas.ready, 1), tick.share * arrivals.requests_per_s
    if not rate_now or not _all_in_time(tick, sla):
        return math.ceil(LATE_RISE * ready)
    return math.ceil(ready * max(rate / rate_now, 1.0))


def _all_in_time(tick: Tick, sla: Sla) -> bool:
    share = share_in_time(tick.snapshot, sla)
    if share is not None:
        return share.estimate >= sla.attainment
    traffic = tick.snapshot.traffic
    pairs = ((traffic.ttft_ms, sla.ttft_ms), (traffic.itl_ms, sla.itl_ms))
    return all(dist is not None and dist.mean <= CLEAR_SHARE * target for dist, target in pairs)
