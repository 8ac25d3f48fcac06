"""How many replicas keep the tokens coming fast enough: the requests in flight, and how they spread.

A request's ITL is the mean of the steps of its life, and a step is as long as its batch is large. With everybody at
work the batch of a replica is where as many tokens are made as are asked for. Around that it spreads:

- The number in flight in the pool is that of a queue with infinitely many servers, whose lives are as long as they are
  at the limit. Its variance is ``N (1 + (I - 1) f)``, with the dispersion ``I`` of the arrivals and ``f`` the share of
  a life that two requests overlap (Eick, Massey & Whitt 1993). Longer lives in fuller batches feed back, which slows
  the return to the mean, and widens the spread, by ``1 / (1 - e)`` with the elasticity ``e`` of the step time.
- Where the path of the arrivals is known, its part of the spread is the path itself, averaged over the lives.
- Replicas with the same number of requests differ in how much KV these hold, and in the prompts that come between.
- A request of many tokens averages over all of that, one of few tokens does not.

What is left is the tail of a gamma distribution, which is skewed as sums of log-normal contexts are.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, ndtr

from dynamo_planner.sizing.arrivals import LEAST_DISPERSION, Arrivals
from dynamo_planner.sizing.concurrency import CLASSES, Lives, averaging
from dynamo_planner.sizing.load import Lengths
from dynamo_planner.sizing.queueing import Floats
from dynamo_planner.sizing.search import fewest
from dynamo_planner.sizing.step_curves import DecodeCurves, Steps

CAUTION = 1.8
"""The share of late requests is taken to be so many times what the formula says; fitted once to simulations."""

NOMINAL = 0.85
"""How near to the limit a pool that is sized well works, for how fast it returns to its mean."""

OWN_SPREAD = 2.2
"""Where nobody levels requests out between replicas, the number of each varies so many times as much as that of a queue
with infinitely many servers, since long answers stay where they are; fitted once."""

UNEVEN = 0.5
"""Variance of the number of requests of a replica where each goes to the replica with the fewest."""

_FLATTEST = 0.02
"""The least share of a step that is due to the batch, so that a flat curve divides nothing by zero."""

_SMALL = 2.0
"""Shapes of a gamma distribution under this are too skewed for the normal distribution of its cube root."""

_MIXED = np.array([int(f"{place:04b}"[::-1], 2) for place in range(CLASSES)])
"""Which class of prompts goes with each class of answers, as if both were independent."""


def context_in_flight(isl: Lengths, osl: Lengths) -> tuple[float, float]:
    """Mean and squared coefficient of variation of the context of a request in flight.

    In flight are longer requests than those that arrive, and each is somewhere on its way: its tokens so far are
    ``E[osl**2] / (2 E[osl])`` on average, not ``osl / 2``. The third moment is that of the log-normal distribution.
    """
    grown = osl.mean * (1 + osl.cv2) / 2
    square = osl.mean**2 * (1 + osl.cv2) ** 3 / 3
    mean = max(isl.mean + grown, 1.0)
    return mean, (isl.cv2 * isl.mean**2 + square - grown**2) / mean**2


class _Limit(NamedTuple):
    """At most ``batch`` requests in flight on a replica, which make ``rate`` tokens/ms; ``spread`` is the variance
    that the contents of a batch add, in requests per request, and ``lasting`` says that a life averages over it."""

    name: str
    batch: float
    rate: float
    spread: float
    lasting: bool


class DecodeBatch:
    """Requests of these lengths, on replicas that take ``steps`` and hold ``room_tokens`` of KV, and that are to have
    a token each ``itl_ms``.

    ``lump`` is how many ms the prompt of each request makes some step of its replica longer, which ``steps`` contain on
    average; ``at_once`` is their share of what a batch makes steps longer. ``most`` is the largest batch that may be.
    ``hopeless`` is the share of requests that alone take longer.
    """

    def __init__(
        self,
        steps: Steps,
        room_tokens: float,
        isl: Lengths,
        osl: Lengths,
        itl_ms: float,
        lump: Lengths | None = None,
        at_once: float = 0.0,
        most: float = math.inf,
        evenly: bool = True,
    ) -> None:
        self.osl, self._evenly = osl, evenly
        self.context, spread = context_in_flight(isl, osl)
        room = room_tokens / self.context
        batch, found = _largest(steps, itl_ms)
        self.hopeless = 1.0 if not found or room < 1 else _alone_too_slow(steps, isl, osl, itl_ms)
        self._fill(steps, max(min(batch, room, most), 1.0))
        lasts = float(np.interp(self.batch, steps.batches, steps.step_ms))
        slope = max((lasts - float(steps.step_ms[0])) / lasts, _FLATTEST) / self.batch  # of a step, per request
        of_context = min(max(float(np.interp(self.batch, steps.batches, steps.per_context)), 0.0), 1.0)
        of_context /= slope * self.batch
        itl = _Limit("itl", self.batch, self.rate, spread * of_context**2, lasting=True)
        kv = _Limit("kv", room, self.rate_at(room), spread, lasting=False)
        # A cache that has room for six times the spread more than the limit binds nobody.
        near = (room - self.batch) ** 2 < 36 * self.batch * (1 + spread)
        self.limits = [itl, kv] if near else [itl]
        self.extrapolated = bool(np.interp(self.batch, steps.batches, steps.extrapolated) > 0.5)

        mean_batch = float(np.interp(NOMINAL * self.rate, self._rates, self._batches))
        slowness = max((self.batch - mean_batch) / ((1 - NOMINAL) * self.batch), 1.0)
        self.lives = Lives(osl.values * lasts / 1000, slowness, at_once)
        tokens = osl.values.reshape(CLASSES, -1).mean(axis=1)
        windows = self.lives.windows_s / self.lives.mean_s / ((1 + osl.cv2) / 2)
        self._steady, self._pool_steady = averaging(windows), averaging(windows / slowness)
        # Lumps over a life: how many come for each other request in flight, and what one of them adds to the batch.
        self._lumps = tokens / max(osl.mean, 1.0)
        self._lump = (lump.mean if lump else 0.0) / np.maximum(tokens - 1, 1.0) / (slope * lasts)
        self._lump_cv2 = lump.cv2 if lump else 0.0
        own = isl.values.reshape(CLASSES, -1).mean(axis=1)[_MIXED] + tokens / 2
        self._most = np.maximum(self.batch - (own / self.context - 1) * of_context, 1e-9)
        self._several = (osl.values > 1).reshape(CLASSES, -1).mean(axis=1)

    def _fill(self, steps: Steps, top: float) -> None:
        """Tokens/ms at each batch up to ``top``, or to where they are the most before."""
        rates = np.concatenate([[0.0], steps.batches / steps.pace_ms])
        batches = np.concatenate([[0.0], steps.batches])
        best = int(np.argmax(np.where(batches <= top, rates, 0.0)))
        if rates[best] > np.interp(top, batches, rates):
            top = float(batches[best])
        last = int(np.searchsorted(batches, top))
        self._batches = np.append(batches[:last], top)
        self._rates = np.maximum.accumulate(np.append(rates[:last], np.interp(top, batches, rates)))
        self.batch, self.rate = top, float(self._rates[-1])

    def rate_at(self, batch: float) -> float:
        """Tokens/ms of a replica with so many requests in flight, or with as many as it may have."""
        return float(np.interp(batch, self._batches, self._rates))

    def load(self, arrivals: Arrivals) -> float:
        """How many replicas would do if all were as full as they may be all the time."""
        return arrivals.requests_per_s * self.osl.mean / (1000 * self.rate)

    def attainable(self, arrivals: Arrivals, replicas: npt.ArrayLike) -> Floats:
        """The share of the requests with a chance that keep the limits, for each number of replicas."""
        counts = np.asarray(replicas, float)
        missed = self.missed(arrivals, counts.ravel()).sum(axis=0)
        return np.asarray(1 - np.minimum(CAUTION * missed, 1.0).reshape(counts.shape))

    def replicas_for(self, arrivals: Arrivals, attainment: float, near: int | None = None) -> tuple[int, float]:
        """The fewest replicas with which at least this share keeps the limits, looked for around ``near`` first, and
        the share that they attain; without hope, those that keep up."""
        least = math.floor(self.load(arrivals)) + 1 if self.load(arrivals) else 0
        if not least or self.hopeless == 1:
            return least, 1.0 - self.hopeless
        return fewest(lambda counts: self.attainable(arrivals, counts), attainment, least, near)

    def binding(self, arrivals: Arrivals, replicas: int) -> str:
        """The limit that most of the requests that miss one are over."""
        if len(self.limits) == 1:
            return self.limits[0].name
        return self.limits[int(self.missed(arrivals, np.array([float(replicas)]))[:, 0].argmax())].name

    def missed(self, arrivals: Arrivals, counts: Floats) -> Floats:
        """Of each of ``limits`` (rows), the share of the requests that are over it, for each count."""
        if not self.load(arrivals):
            return np.zeros((len(self.limits), len(counts)))
        if self.hopeless == 1:
            return np.ones((len(self.limits), len(counts)))
        rate = arrivals.requests_per_s * self.osl.mean / (1000 * np.maximum(counts, 1e-9))
        return np.array([self._over(limit, arrivals, rate, counts) for limit in self.limits])

    def _over(self, limit: _Limit, arrivals: Arrivals, rate: Floats, counts: Floats) -> Floats:
        """Shape (counts,): the share of requests that see a larger batch than the limit."""
        seen = self.lives.seen(arrivals)
        batch = np.interp(rate, self._rates, self._batches)
        fresh = max(arrivals.dispersion, LEAST_DISPERSION) * (1 - seen.captured)
        pool = batch * (1 + (fresh - 1) * self.lives.overlap) * self.lives.slowness / np.maximum(counts, 1e-9)
        own = batch * limit.spread + UNEVEN
        if not self._evenly:  # each replica has a number of its own, which nobody levels out
            own = own + OWN_SPREAD * batch * (1 - self.lives.overlap)
        room = np.maximum(limit.batch - batch, 1e-9) / np.maximum(limit.rate - rate, 1e-12)
        if limit.lasting:
            levels, shares, most = seen.lasting, seen.lasting_shares * self._several[:, None], self._most
            variance = pool[:, None] * self._pool_steady + own[:, None] * self._steady
        else:
            levels, shares, most = seen.now, seen.now_shares, np.full(1, limit.batch)
            variance = (pool + own)[:, None]
        mean = limit.batch - (limit.rate - rate[:, None, None] * levels) * room[:, None, None]
        mean = np.maximum(mean, 0.01 * limit.batch)
        mean, variance = np.broadcast_arrays(mean, variance[..., None])
        third = 2 * variance**2 / mean
        if limit.lasting and self._lump[0]:
            lumps = np.maximum(batch - 1, 0.0)[:, None] * self._lumps  # not its own
            variance = variance + (lumps * self._lump**2 * (1 + self._lump_cv2))[..., None]
            third = third + (lumps * self._lump**3 * (1 + self._lump_cv2) ** 3)[..., None]
        over = (_tail(mean, variance, third, most[:, None]) * shares).sum(axis=2)
        return np.where(rate < limit.rate, over.mean(axis=1), 1.0)


def decode_batch(
    curves: DecodeCurves, isl: Lengths, osl: Lengths, itl_ms: float, factor: float = 1.0, evenly: bool = True
) -> DecodeBatch:
    """Replicas that only decode; ``factor`` is how much longer steps take than the profile says, and ``evenly`` that
    each request goes to the replica with the fewest."""
    steps = curves.at(context_in_flight(isl, osl)[0], factor)
    return DecodeBatch(steps, curves.room_tokens, isl, osl, itl_ms, evenly=evenly)


def _largest(steps: Steps, limit_ms: float) -> tuple[float, bool]:
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


def _alone_too_slow(steps: Steps, isl: Lengths, osl: Lengths, limit_ms: float) -> float:
    """The share of requests that miss the limit with nobody beside them, because of their context."""
    single = np.maximum.accumulate(steps.alone_ms)
    if single[-1] <= limit_ms:
        return 0.0
    longest = float(np.interp(limit_ms, single, steps.contexts))
    return 1 - float(np.searchsorted(osl.values, 2 * (longest - isl.values), side="right").mean()) / len(osl.values)


def _tail(mean: Floats, variance: Floats, third: Floats, most: Floats) -> Floats:
    """The share over ``most`` of a shifted gamma distribution with this mean, variance and third central moment."""
    scale = third / (2 * variance)
    shape = variance / scale**2
    place = np.maximum(shape + (most - mean) / scale, 0.0)
    ninth = 1 / (9 * shape)
    tail = ndtr((1 - ninth - np.cbrt(place / shape)) / np.sqrt(ninth))  # Wilson & Hilferty 1931
    small = shape < _SMALL
    if small.any():
        tail[small] = gammaincc(shape[small], place[small])
    return np.asarray(tail)
