"""Engine correction: how much longer the work takes than profiled, and what comes between prefill and first token."""

from __future__ import annotations

import math
from typing import NamedTuple

from dynamo_planner.forecasting.experts.base import decayed

CORRECTION_HALF_LIFE_S = 600.0
"""Comparisons keep half their weight over this time, in seconds."""

PRIOR_REQUESTS = 50.0
"""The profile weighs as much as this many requests that were compared with it."""

OUTLIER_RATIO = 4.0
"""A latency further from the profile than this many times is taken for a fault of the metrics, and counts as this."""

IGNORED_LOG, FULL_LOG = 0.03, 0.08
"""Engines within 3 % of the profile are taken for what it says, which is as exact as the comparison is; from 8 % on all
of the difference counts, and in between a part of it."""

MIXED_LOGS = (0.16, 0.3)
"""The same for steps with prompts, 17 % and 35 %: prompts come in bursts, and the ITL of engines exactly as profiled is
7 to 17 % longer than a step with their mean."""

MAX_UTILISATION = 0.85
"""Above this utilisation, as profiled, a TTFT says more of the queue than of the engine, and is not learned from."""

MAX_BACKLOG_SHARE = 0.5
"""A queue that accounts for more than this share of the TTFT is a backlog, and is not learned from."""

BISECTION_STEPS = 12
"""Steps of the bisection for the service time: it is known to 1/4096 of the range."""

STEADY_UTILISATION = 0.999
"""The utilisation is cut off here in the bisection, since the waiting time is infinite at 1."""


class Mean(NamedTuple):
    """A mean whose evidence fades with a half-life of :data:`CORRECTION_HALF_LIFE_S`.

    Args:
        weight: Requests behind it.
        total: The sum over them.
    """

    weight: float = 0.0
    total: float = 0.0

    def value(self, prior: float) -> float:
        """The mean, in which ``prior`` weighs as much as :data:`PRIOR_REQUESTS` requests.

        150 requests with a mean of 20 ms and a prior of 40 ms give ``(150 * 20 + 50 * 40) / 200 = 25`` ms.
        """
        return (self.total + PRIOR_REQUESTS * prior) / (self.weight + PRIOR_REQUESTS)

    def with_sample(self, mean: float, requests: float, elapsed_s: float) -> Mean:
        """The mean with one window more."""
        keep = decayed(elapsed_s, CORRECTION_HALF_LIFE_S)
        return Mean(keep * self.weight + requests, keep * self.total + mean * requests)


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

    def factor(self, limit: float, logs: tuple[float, float] = (IGNORED_LOG, FULL_LOG)) -> float:
        """The correction factor, between ``1 / limit`` and ``limit``: 2 where the work takes twice as long as profiled.

        ::

            factor = ratio ** (w n / (n + PRIOR_REQUESTS))

        ======  =====================================================================================
        symbol  meaning
        ======  =====================================================================================
        ratio   observed over profiled latency
        n       requests that were compared
        w       0 within 3 % of the profile, 1 from 8 % on (``logs``), on a line in ``ln(ratio)`` between
        ======  =====================================================================================

        100 requests at twice the profiled latency give ``2 ** (100 / 150) = 1.59``. At 1.03 times they give 1.
        """
        if self.seen <= 0 or self.expected <= 0:
            return 1.0
        ratio = math.log(min(max(self.seen / self.expected, 1 / OUTLIER_RATIO), OUTLIER_RATIO))
        ignored, full = logs
        counts = min(max((abs(ratio) - ignored) / (full - ignored), 0.0), 1.0)
        trusted = self.requests / (self.requests + PRIOR_REQUESTS)
        return min(max(math.exp(trusted * counts * ratio), 1 / limit), limit)

    def with_sample(
        self,
        observed: float,
        expected: float,
        requests: float,
        elapsed_s: float,
        half_life_s: float = CORRECTION_HALF_LIFE_S,
    ) -> Correction:
        """The correction with one comparison more, of the mean latencies of some requests."""
        keep = decayed(elapsed_s, half_life_s)
        return Correction(
            keep * self.requests + requests,
            keep * self.seen + observed * requests,
            keep * self.expected + expected * requests,
        )


class PromptQueue(NamedTuple):
    """The queue for prefill.

    Args:
        service_s: The profiled mean service time of a prompt, in seconds: the mean over the lengths, since that at the
            mean length is less.
        variation: The squared coefficients of variation of arrivals and service, added.
        rate: Arrivals per second at one of the queues.
        replicas: Replicas that share the queue.
    """

    service_s: float
    variation: float
    rate: float
    replicas: float

    def ttft_s(self, factor: float) -> float:
        """The mean TTFT in seconds where prompts take ``factor`` times as long as profiled.

        The waiting time is that of Sakasegawa (1977), with the variations of Allen and Cunneen::

            ttft = s + s (c_a^2 + c_s^2) / 2 * u**(sqrt(2 (m + 1)) - 1) / (m (1 - u)),  u = rate * s / m

            s            service time
            c_a^2, c_s^2 squared coefficients of variation of arrivals and service
            u            utilisation
            m            replicas that share a queue
        """
        service_s = self.service_s * factor
        used = min(self.rate * service_s / self.replicas, STEADY_UTILISATION)
        exponent = math.sqrt(2 * (self.replicas + 1)) - 1
        return service_s * (1 + self.variation / 2 * math.pow(used, exponent) / (self.replicas * (1 - used)))

    @property
    def utilisation(self) -> float:
        """The share of the time that the replicas compute, as profiled."""
        return self.rate * self.service_s / self.replicas

    def slowness(self, ttft_s: float) -> float:
        """How many times as long as profiled prompts take, where the mean TTFT is this: by bisection."""
        low, high = 0.0, min(1 / self.utilisation, OUTLIER_RATIO)
        for _ in range(BISECTION_STEPS):
            factor = (low + high) / 2
            low, high = (factor, high) if self.ttft_s(factor) < ttft_s else (low, factor)
        return low

    def explained(self, ttft_s: float) -> float:
        """How many times as long as profiled prompts take, as far as waiting does not explain the mean TTFT.

        Prompts wait for no time at least, and at most as long as where each is computed by itself: engines that compute
        several in a step let them wait for less. Where a speed as profiled lies between both, it is that: with a
        service time of 50 ms and at most 30 ms of waiting, a TTFT of 70 ms gives 1, and one of 40 ms gives 0.8.
        """
        return max(self.slowness(ttft_s), min(ttft_s / self.service_s, 1.0))
