"""What a tick says of how far the engines of a pool are from their profile."""

from __future__ import annotations

import math
from typing import NamedTuple

from dynamo_planner.core.snapshot import PoolStatus, Replicas, Traffic
from dynamo_planner.policies.sla.capacity import ODD, Correction, compared
from dynamo_planner.policies.sla.observing import Seen
from dynamo_planner.profiles import Profile

SOLVING_STEPS = 12

BUSIEST = 0.85
"""From this utilisation on, as profiled, a TTFT says more of the waiting than of the engine."""

MOST_WAITING = 0.5
"""A queue that accounts for more than this share of the TTFT is a backlog."""

FIXED_POINT_STEPS = 4
"""A step that computes prompts is as long as it takes for its share of them to arrive; so often that is worked out."""


class Work(NamedTuple):
    """Mean tokens of the requests: of a prompt that are computed, and that a request in flight attends to."""

    computed: float
    context: float


class Prompts(NamedTuple):
    """Of the prompts that are computed: the mean service time that is profiled, the squared coefficients of variation
    of arrivals and service together, the time to hand a prompt over, and whether each replica has its own queue."""

    service_s: float
    variation: float
    kv_transfer_ms: float
    own_queues: bool


def by_itl(
    correction: Correction, pool: PoolStatus, ready: int, traffic: Traffic, seen: Seen, work: Work, profile: Profile
) -> Correction:
    """After a tick of a pool that decodes: the ITL against that of the batch that was seen."""
    if traffic.itl_ms is None or traffic.itl_ms.mean <= 0 or not pool.running or not ready or not seen.elapsed_s:
        return correction
    batch = pool.running / ready
    kv_tokens = batch * work.context
    expected_ms = profile.step_ms(0.0, batch, kv_tokens)
    if pool.spec.role == "aggregated":
        tokens_per_ms = seen.requests_per_s * work.computed / ready / 1000
        for _ in range(FIXED_POINT_STEPS):
            expected_ms = profile.step_ms(min(tokens_per_ms * expected_ms, work.computed), batch, kv_tokens)
    requests = seen.requests if traffic.itl_ms.count is None else min(traffic.itl_ms.count, seen.requests)
    return compared(correction, traffic.itl_ms.mean * requests, expected_ms * requests, requests, seen.elapsed_s)


def by_ttft(
    correction: Correction,
    replicas: Replicas,
    queued: float | None,
    traffic: Traffic,
    seen: Seen,
    prompts: Prompts,
) -> Correction:
    """After a tick of a pool that computes prompts: the service time with which the mean TTFT is what was seen.

    A TTFT contains waiting, and how much of it there is at this rate with so many replicas follows from the service
    time: ``ttft = s + s (c_a^2 + c_s^2) / 2 * u**(sqrt(2 (m + 1)) - 1) / (m (1 - u))`` with the utilisation ``u = rate
    * s / replicas`` and ``m`` replicas to a queue (Sakasegawa 1977, with the variations of Allen and Cunneen), which is
    solved for ``s``. Nothing is learned where that holds no more: near saturation, and where most of the TTFT is a
    backlog, which is told by the queue (Little 1961).
    """
    if traffic.ttft_ms is None or not replicas.ready or not seen.elapsed_s or not seen.requests_per_s:
        return correction
    ttft_s = (traffic.ttft_ms.mean - prompts.kv_transfer_ms) / 1000
    service_s = prompts.service_s
    busy = seen.requests_per_s * service_s / replicas.ready
    backlog_s = (queued or 0.0) / seen.requests_per_s
    if ttft_s <= 0 or busy > BUSIEST or backlog_s > MOST_WAITING * ttft_s:
        return correction
    together = 1.0 if prompts.own_queues else float(replicas.ready)
    exponent = math.sqrt(2 * (together + 1)) - 1
    low, high = 0.0, min(1 / busy, ODD)
    for _ in range(SOLVING_STEPS):
        factor = (low + high) / 2
        used = min(busy * factor, 0.999)
        waits = prompts.variation / 2 * used**exponent / (together * (1 - used))
        low, high = (factor, high) if service_s * factor * (1 + waits) < ttft_s else (low, factor)
    requests = seen.requests if traffic.ttft_ms.count is None else min(traffic.ttft_ms.count, seen.requests)
    return compared(correction, low * requests, requests, requests, seen.elapsed_s)
