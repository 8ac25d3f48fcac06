"""Decode sizing: P(ITL > target) from an infinite-server model of the requests in flight.

A request's ITL is the mean of the steps of its residence, and a step takes longer the larger its batch. With every
replica at work, the mean batch is where a replica makes as many tokens as are requested of it. Around that mean::

    Var[N] = N (1 + (I - 1) f) / (1 - e)            requests in flight in the pool
    P(ITL > target) = P(G > b*)                      G: shifted gamma distribution of a request's mean batch

======  ==================================================================================================
symbol  meaning
======  ==================================================================================================
N       mean number in flight, as in a queue with infinitely many servers (Eick, Massey & Whitt 1993)
I       dispersion of the arrivals beyond what their path shows, at least ``MIN_DISPERSION``
f       share of a residence time that two requests overlap (0 to 1)
e       elasticity of the step time in the batch: fuller batches mean longer residence, which feeds back, slows the
        return to the mean by ``1 / (1 - e)``, and widens the spread by as much
b*      batch at which a step takes as long as the ITL target
======  ==================================================================================================

- Where the path of the arrivals is known, its part of the spread is the path itself, averaged over residence times.
- Replicas with the same number of requests differ in the KV that these hold, and in the prefill bursts between.
- A request of many tokens averages over all of that; one of few tokens does not.
- Prompts in between miss no target that a step with as many prompt tokens as fit meets: no more requests miss it than
  see a batch at which such a step takes longer.

The gamma distribution is skewed as sums of log-normal contexts are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.special import gammaincc, ndtr

from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import MIN_DISPERSION, Arrivals
from dynamo_planner.sizing.concurrency import CLASSES, ResidenceTimes, averaging
from dynamo_planner.sizing.load import Lengths
from dynamo_planner.sizing.stage import BatchStage
from dynamo_planner.sizing.step_curves import DecodeCurves, StepTimes

DECODE_MISS_FACTOR = 1.8
"""The share of late requests over what the formula says; fitted once to simulations."""

NOMINAL_UTILISATION = 0.85
"""Utilisation of a pool that is sized well, at which its return to the mean is judged."""

UNLEVELLED_VARIANCE = 2.2
"""Where no router levels requests out between replicas, the variance of the number on a replica over that in a queue
with infinitely many servers: long answers stay where they are. Fitted once."""

LEVELLED_VARIANCE = 0.5
"""Variance, in requests, of the number on a replica where each request goes to the replica with the fewest."""

MIN_BATCH_SHARE = 0.02
"""Smallest share of a step that is due to the batch, so that a flat curve divides nothing by zero."""

MIN_NORMAL_SHAPE = 2.0
"""Gamma distributions of a smaller shape are too skewed for the normal distribution of their cube root."""

MIN_MEAN_SHARE = 0.001
"""The mean batch is taken to be at least this share of the limit."""

MAX_CV2 = 8.0
"""Squared coefficients of variation of lengths count as at most this in flight. Beyond it a few requests of an hour
make them, and the third moment of a log-normal distribution grows with their cube: where one answer in 100 is of 4,500
tokens and the others of 35, it would ask for 150 replicas, where six keep up."""

KV_REACH = 6.0
"""A KV limit more standard deviations than this above the ITL limit is never reached."""

_BIT_REVERSED = np.array([int(f"{place:04b}"[::-1], 2) for place in range(CLASSES)])
"""Which class of prompts goes with each class of answers, as if both were independent."""


def context_in_flight(isl: Lengths, osl: Lengths) -> tuple[float, float]:
    """Mean (in tokens) and squared coefficient of variation of the context of a request in flight.

    Longer requests are over-represented in flight, and each is somewhere on its way: its tokens so far are
    ``E[osl**2] / (2 E[osl])`` on average, not ``osl / 2``. The third moment is that of the log-normal distribution.
    """
    prompts, answers = min(isl.cv2, MAX_CV2), min(osl.cv2, MAX_CV2)
    grown = osl.mean * (1 + answers) / 2
    square = osl.mean**2 * (1 + answers) ** 3 / 3
    mean = max(isl.mean + grown, 1.0)
    return mean, (prompts * isl.mean**2 + square - grown**2) / mean**2


class _Limit(NamedTuple):
    """At most ``batch`` requests in flight on a replica, which make ``rate`` tokens/ms.

    ``spread`` is the variance, in requests per request, due to what a batch holds. ``lasting``: a residence time
    averages over it. ``bursts``: prompts lengthen some of the steps.
    """

    name: str
    batch: float
    rate: float
    spread: float
    lasting: bool
    bursts: bool = True


class DecodeStage(BatchStage):
    """Requests in flight on replicas of these step times and KV capacity, under an ITL target.

    Args:
        steps: step times by batch at the mean context in flight, in ms.
        max_kv_tokens: KV capacity of a replica, in tokens.
        isl: prompt lengths, in tokens.
        osl: answer lengths, in tokens.
        itl_ms: the ITL target.
        prefill_burst: how many ms the prompt of each request lengthens some step of its replica, which ``steps``
            contain on average. Default None: prompts are computed elsewhere.
        immediate: share (0 to 1) of what a batch lengthens steps by that is due to prompts. Default 0.
        max_batch: the largest batch that may be. Default: no limit.
        levelled: whether each request goes to the replica with the fewest. Default True.
        full_ms: how long a step of each batch takes with as many prompt tokens as fit: none takes longer. Default None.
    """

    miss_factor = DECODE_MISS_FACTOR

    def __init__(
        self,
        steps: StepTimes,
        max_kv_tokens: float,
        isl: Lengths,
        osl: Lengths,
        itl_ms: float,
        prefill_burst: Lengths | None = None,
        immediate: float = 0.0,
        max_batch: float = math.inf,
        levelled: bool = True,
        full_ms: Floats | None = None,
    ) -> None:
        self.osl, self._levelled = osl, levelled
        self.context, spread = context_in_flight(isl, osl)
        kv_batch = max_kv_tokens / self.context
        batch, found = _largest_within(steps, itl_ms)
        self.unattainable = 1.0 if not found or kv_batch < 1 else _alone_too_slow(steps, isl, osl, itl_ms)
        self._set_rates(steps, max(min(batch, kv_batch, max_batch), 1.0))
        step_ms = float(np.interp(self.batch, steps.batches, steps.step_ms))
        slope = max((step_ms - float(steps.step_ms[0])) / step_ms, MIN_BATCH_SHARE) / self.batch  # per request
        of_context = min(max(float(np.interp(self.batch, steps.batches, steps.per_context)), 0.0), 1.0)
        of_context /= slope * self.batch
        itl = _Limit("itl", self.batch, self.rate, spread * of_context**2, lasting=True)
        kv = _Limit("kv", kv_batch, self._rate_at(kv_batch), spread, lasting=False)
        near = (kv_batch - self.batch) ** 2 < KV_REACH**2 * self.batch * (1 + spread)
        self.limits = [itl, kv] if near else [itl]
        full_batch = 0.0 if full_ms is None else _last_within(steps.batches, full_ms, itl_ms)
        self._full = itl._replace(batch=full_batch, rate=self._rate_at(full_batch), bursts=False)
        if kv_batch <= batch and prefill_burst is None:  # a full cache makes no step too long
            self.limits = [kv]
        self.extrapolated = bool(np.interp(self.batch, steps.batches, steps.extrapolated) > 0.5)

        mean_batch = float(np.interp(NOMINAL_UTILISATION * self.rate, self._rates, self._batches))
        slowness = max((self.batch - mean_batch) / ((1 - NOMINAL_UTILISATION) * self.batch), 1.0)
        self.residence = ResidenceTimes(osl.values * step_ms / 1000, slowness, immediate)
        self.residence_s = self.residence.mean_s
        tokens = osl.values.reshape(CLASSES, -1).mean(axis=1)
        windows = self.residence.class_s / self.residence.mean_s / ((1 + min(osl.cv2, MAX_CV2)) / 2)
        self._steady, self._pool_steady = averaging(windows), averaging(windows / slowness)
        # Bursts over a residence time: how many for each other request in flight, and what one adds to the batch.
        self._bursts = tokens / max(osl.mean, 1.0)
        self._burst = (prefill_burst.mean if prefill_burst else 0.0) / np.maximum(tokens - 1, 1.0) / (slope * step_ms)
        self._burst_cv2 = prefill_burst.cv2 if prefill_burst else 0.0
        own = isl.values.reshape(CLASSES, -1).mean(axis=1)[_BIT_REVERSED] + tokens / 2
        self._class_limit = np.maximum(self.batch - (own / self.context - 1) * of_context, 1e-9)
        self._has_itl = (osl.values > 1).reshape(CLASSES, -1).mean(axis=1)

    def _set_rates(self, steps: StepTimes, top: float) -> None:
        """Set tokens/ms at each batch up to ``top``, or up to where they peak before."""
        rates = np.concatenate([[0.0], steps.batches / steps.pace_ms])
        batches = np.concatenate([[0.0], steps.batches])
        best = int(np.argmax(np.where(batches <= top, rates, 0.0)))
        if rates[best] > np.interp(top, batches, rates):
            top = float(batches[best])
        last = int(np.searchsorted(batches, top))
        self._batches = np.append(batches[:last], top)
        self._rates = np.maximum.accumulate(np.append(rates[:last], np.interp(top, batches, rates)))
        self.batch, self.rate = top, float(self._rates[-1])

    def _rate_at(self, batch: float) -> float:
        """Tokens/ms of a replica with this many requests in flight, or with as many as it may have."""
        return float(np.interp(batch, self._batches, self._rates))

    @property
    def limit_names(self) -> tuple[str, ...]:
        return tuple([limit.name for limit in self.limits])

    def batch_at(self, requests_per_s: Floats) -> Floats:
        """Requests in flight on a replica on average, at these arrival rates."""
        return np.asarray(np.interp(requests_per_s * self.osl.mean / 1000, self._rates, self._batches))

    def load(self, arrivals: Arrivals) -> float:
        return arrivals.requests_per_s * self.osl.mean / (1000 * self.rate)

    def missed(self, arrivals: Arrivals, counts: Floats) -> Floats:
        if not self.load(arrivals):
            return np.zeros((len(self.limits), len(counts)))
        if self.unattainable == 1:
            return np.ones((len(self.limits), len(counts)))
        rate = arrivals.requests_per_s * self.osl.mean / (1000 * np.maximum(counts, 1e-9))
        missed = np.array([self._over(limit, arrivals, rate, counts) for limit in self.limits])
        if self._full.batch >= self.batch:
            missed[0] = rate >= self.rate
        elif self._full.batch > 1:
            missed[0] = np.minimum(missed[0], self._over(self._full, arrivals, rate, counts))
        return missed

    def _over(self, limit: _Limit, arrivals: Arrivals, rate: Floats, counts: Floats) -> Floats:
        """Shape (counts,): the share of requests that see a larger batch than the limit."""
        flight = self.residence.in_flight(arrivals)
        batch = np.interp(rate, self._rates, self._batches)
        fresh = max(arrivals.dispersion, MIN_DISPERSION) * (1 - flight.captured)
        pool = batch * (1 + (fresh - 1) * self.residence.overlap) * self.residence.slowness / np.maximum(counts, 1e-9)
        own = batch * limit.spread + LEVELLED_VARIANCE
        if not self._levelled:
            own = own + UNLEVELLED_VARIANCE * batch * (1 - self.residence.overlap)
        slope = np.maximum(limit.batch - batch, 1e-9) / np.maximum(limit.rate - rate, 1e-12)
        if limit.lasting:
            levels, shares, most = flight.lasting, flight.lasting_shares * self._has_itl[:, None], self._class_limit
            variance = pool[:, None] * self._pool_steady + own[:, None] * self._steady
        else:
            levels, shares, most = flight.now, flight.now_shares, np.full(1, limit.batch)
            variance = (pool + own)[:, None]
        mean = limit.batch - (limit.rate - rate[:, None, None] * levels) * slope[:, None, None]
        mean = np.maximum(mean, MIN_MEAN_SHARE * limit.batch)
        variance = variance[..., None]
        third = 2 * variance**2 / mean
        tail = _gamma_tail(mean, variance, third, most[:, None])
        if limit.lasting and limit.bursts and self._burst[0]:
            bursts = np.maximum(batch - 1, 0.0)[:, None] * self._bursts  # not its own
            variance = variance + (bursts * self._burst**2 * (1 + self._burst_cv2))[..., None]
            third = third + (bursts * self._burst**3 * (1 + self._burst_cv2) ** 3)[..., None]
            # Rare and long bursts are a distribution that is nearly always at its lower end; none makes steps shorter.
            tail = np.maximum(tail, _gamma_tail(mean, variance, third, most[:, None]))
        over = (tail * shares).sum(axis=2).mean(axis=1)
        if self._levelled and (batch < 1).any():
            # Steps hardly depend on a batch of one, so the number in flight returns to its mean at once.
            over = np.minimum(over, self._not_alone(batch, pool / self.residence.slowness, levels, shares))
        return np.where(rate < limit.rate, over, 1.0)

    def none_idle(self, arrivals: Arrivals, counts: Floats, prompts: Floats) -> Floats:
        """Shape (counts,): the share of requests that come while every replica has one, each of which goes to the
        replica with the fewest. ``prompts``: the prompts on a replica, besides the requests that decode."""
        flight = self.residence.in_flight(arrivals)
        batch = self.batch_at(arrivals.requests_per_s / np.maximum(counts, 1e-9)) + prompts
        fresh = max(arrivals.dispersion, MIN_DISPERSION) * (1 - flight.captured)
        pool = batch * (1 + (fresh - 1) * self.residence.overlap) / np.maximum(counts, 1e-9)
        return self._not_alone(batch, pool, flight.now, flight.now_shares)

    def _not_alone(self, batch: Floats, pool: Floats, levels: Floats, shares: Floats) -> Floats:
        """Shape (counts,): the share of requests that are not alone on their replica, which is more than exceed any
        limit: none gets a second request while another has none."""
        mean = np.maximum(batch[:, None, None] * levels, 1e-9)
        variance = np.maximum(pool[:, None, None], 1e-9)
        more = _gamma_tail(mean, variance, 2 * variance**2 / mean, np.ones(1))
        return np.asarray((more * shares).sum(axis=2).mean(axis=1))


def decode_stage(
    curves: DecodeCurves, isl: Lengths, osl: Lengths, itl_ms: float, factor: float = 1.0, levelled: bool = True
) -> DecodeStage:
    """Replicas that only decode; ``factor`` is how much longer steps take than the profile says."""
    steps = curves.at(context_in_flight(isl, osl)[0], factor)
    return DecodeStage(steps, curves.max_kv_tokens, isl, osl, itl_ms, max_batch=curves.most, levelled=levelled)


def _largest_within(steps: StepTimes, limit_ms: float) -> tuple[float, bool]:
    """The batch at which the steps first reach the limit, and whether one request is under it."""
    within = steps.step_ms <= limit_ms
    if not within[0]:
        return float(steps.batches[-1]), False
    if within.all():
        return float(steps.batches[-1]), True
    over = int(np.argmin(within))
    low, high = steps.step_ms[over - 1], steps.step_ms[over]
    share = (limit_ms - low) / (high - low)
    return float(steps.batches[over - 1] + (steps.batches[over] - steps.batches[over - 1]) * share), True


def _last_within(batches: Floats, step_ms: Floats, limit_ms: float) -> float:
    """The batch up to which steps are within the limit, 0 where none is."""
    over = int(np.argmax(np.append(step_ms > limit_ms, True)))
    return float(batches[over - 1]) if over else 0.0


def _alone_too_slow(steps: StepTimes, isl: Lengths, osl: Lengths, limit_ms: float) -> float:
    """The share of requests that miss the limit with no other beside them, because of their context."""
    single = np.maximum.accumulate(steps.alone_ms)
    if single[-1] <= limit_ms:
        return 0.0
    longest = float(np.interp(limit_ms, single, steps.contexts))
    return 1 - float(np.searchsorted(osl.values, 2 * (longest - isl.values), side="right").mean()) / len(osl.values)


def _gamma_tail(mean: Floats, variance: Floats, third: Floats, most: Floats) -> Floats:
    """The share over ``most`` of a shifted gamma distribution with this mean, variance and third central moment.

    By the normal distribution of its cube root (Wilson & Hilferty 1931), or exactly where the shape is small.
    """
    scale = third / (2 * variance)
    shape = variance / scale**2
    place = np.maximum(shape + (most - mean) / scale, 0.0)
    ninth = 1 / (9 * shape)
    tail = ndtr((1 - ninth - np.cbrt(place / shape)) / np.sqrt(ninth))
    small = shape < MIN_NORMAL_SHAPE
    if small.any():
        tail[small] = gammaincc(shape[small], place[small])
    return np.asarray(tail)
