"""Engine correction: how much longer the work takes than the profile says, learned from observed latencies."""

from __future__ import annotations

import math
from typing import NamedTuple

from dynamo_planner.core.metrics import Traffic
from dynamo_planner.core.snapshot import PoolStatus, Replicas
from dynamo_planner.forecasting.experts.base import decayed
from dynamo_planner.policies.sla.arrivals import ArrivalWindow
from dynamo_planner.profiles import Profile

CORRECTION_HALF_LIFE_S = 600.0
"""Comparisons keep half their weight over this time, in seconds."""

PRIOR_REQUESTS = 50.0
"""The profile weighs as much as this many requests that were compared with it."""

OUTLIER_RATIO = 4.0
"""A latency further from the profile than this many times is taken for a fault of the metrics, and counts as this."""

BISECTION_STEPS = 12
"""Steps of the bisection for the service time: it is known to 1/4096 of the range."""

MAX_UTILISATION = 0.85
"""Above this utilisation, as profiled, a TTFT says more of the queue than of the engine, and is not learned from."""

MAX_BACKLOG_SHARE = 0.5
"""A queue that accounts for more than this share of the TTFT is a backlog, and is not learned from."""

STEADY_UTILISATION = 0.999
"""The utilisation is cut off here in the bisection, since the waiting time is infinite at 1."""

FIXED_POINT_STEPS = 4
"""Iterations for the length of a mixed step, which is as long as it takes for its share of the prompts to arrive."""


class Correction(NamedTuple):
    """The evidence for a correction factor, fading with a half-life of :data:`CORRECTION_HALF_LIFE_S`.

    Args:
        requests: Requests that were compared.
        seen: The sum over them of the observed latency.
        expected: The sum over them of the profiled latency, in the same unit.
    """

    requests: float = 0.0
    seen: float = 0.0
    expected: float = 0.0

    def factor(self, limit: float) -> float:
        """The correction factor, between ``1 / limit`` and ``limit``: 2 where the work takes twice as long as profiled.

        ::

            factor = ratio ** (n / (n + PRIOR_REQUESTS))     n      requests that were compared
                                                             ratio  observed over profiled latency

        100 requests at twice the profiled latency give ``2 ** (100 / 150) = 1.59``.
        """
        if self.seen <= 0 or self.expected <= 0:
            return 1.0
        ratio = min(max(self.seen / self.expected, 1 / OUTLIER_RATIO), OUTLIER_RATIO)
        trusted = self.requests / (self.requests + PRIOR_REQUESTS) * math.log(ratio)
        return min(max(math.exp(trusted), 1 / limit), limit)


def compared(correction: Correction, observed: float, expected: float, requests: float, elapsed_s: float) -> Correction:
    """The correction with one comparison more; ``observed`` and ``expected`` are sums over its requests."""
    keep = decayed(elapsed_s, CORRECTION_HALF_LIFE_S)
    return Correction(
        keep * correction.requests + requests, keep * correction.seen + observed, keep * correction.expected + expected
    )


class Work(NamedTuple):
    """The mean work of a request.

    Args:
        computed: Prompt tokens that are computed, without those in the prefix cache.
        context: Tokens that a request in flight attends to.
    """

    computed: float
    context: float


class PromptQueue(NamedTuple):
    """The queue for prefill, for the correction by TTFT.

    Args:
        service_s: The profiled mean service time of a prompt, in seconds.
        variation: The squared coefficients of variation of arrivals and service, added.
        kv_transfer_ms: Milliseconds to hand a prompt over.
        own_queues: Whether each replica has a queue of its own.
    """

    service_s: float
    variation: float
    kv_transfer_ms: float
    own_queues: bool


def by_itl(
    correction: Correction,
    pool: PoolStatus,
    ready: int,
    traffic: Traffic,
    arrivals: ArrivalWindow,
    work: Work,
    profile: Profile,
) -> Correction:
    """The correction after a tick of a pool that decodes: the ITL against the profiled one of the observed batch."""
    if traffic.itl_ms is None or traffic.itl_ms.mean <= 0 or not pool.running or not ready or not arrivals.elapsed_s:
        return correction
    batch = pool.running / ready
    kv_tokens = batch * work.context
    expected_ms = profile.step_ms(0.0, batch, kv_tokens)
    if pool.spec.role == "aggregated":
        tokens_per_ms = arrivals.requests_per_s * work.computed / ready / 1000
        for _ in range(FIXED_POINT_STEPS):
            expected_ms = profile.step_ms(min(tokens_per_ms * expected_ms, work.computed), batch, kv_tokens)
    requests = _compared_requests(traffic.itl_ms.count, arrivals)
    return compared(correction, traffic.itl_ms.mean * requests, expected_ms * requests, requests, arrivals.elapsed_s)


def by_ttft(
    correction: Correction,
    replicas: Replicas,
    queued: float | None,
    traffic: Traffic,
    arrivals: ArrivalWindow,
    prompts: PromptQueue,
) -> Correction:
    """The correction after a tick of a pool that computes prompts: the service time that explains the mean TTFT.

    A TTFT contains waiting, and how much of it there is at this rate follows from the service time (Sakasegawa 1977,
    with the variations of Allen and Cunneen)::

        ttft = s + s (c_a^2 + c_s^2) / 2 * u**(sqrt(2 (m + 1)) - 1) / (m (1 - u)),  u = rate * s / replicas

        s            service time, which is solved for by bisection
        c_a^2, c_s^2 squared coefficients of variation of arrivals and service
        u            utilisation
        m            replicas that share a queue

    Nothing is learned where that does not hold: near saturation, and where most of the TTFT is a backlog, which shows
    in the queue (Little 1961).
    """
    if traffic.ttft_ms is None or not replicas.ready or not arrivals.elapsed_s or not arrivals.requests_per_s:
        return correction
    ttft_s = (traffic.ttft_ms.mean - prompts.kv_transfer_ms) / 1000
    service_s = prompts.service_s
    busy = arrivals.requests_per_s * service_s / replicas.ready
    backlog_s = (queued or 0.0) / arrivals.requests_per_s
    if ttft_s <= 0 or busy > MAX_UTILISATION or backlog_s > MAX_BACKLOG_SHARE * ttft_s:
        return correction
    together = 1.0 if prompts.own_queues else float(replicas.ready)
    exponent = math.sqrt(2 * (together + 1)) - 1
    low, high = 0.0, min(1 / busy, OUTLIER_RATIO)
    for _ in range(BISECTION_STEPS):
        factor = (low + high) / 2
        used = min(busy * factor, STEADY_UTILISATION)
        waits = prompts.variation / 2 * used**exponent / (together * (1 - used))
        low, high = (factor, high) if service_s * factor * (1 + waits) < ttft_s else (low, factor)
    requests = _compared_requests(traffic.ttft_ms.count, arrivals)
    return compared(correction, low * requests, requests, requests, arrivals.elapsed_s)


def _compared_requests(count: float | None, arrivals: ArrivalWindow) -> float:
    """The requests behind a latency: those that it counts, of the new ones."""
    return arrivals.new_requests if count is None else min(count, arrivals.new_requests)
