"""ITL and decode throughput over KV usage and context, and the largest batch that keeps an ITL target."""

from __future__ import annotations

from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.profiles.convex_hull import ConvexHull
from dynamo_planner.profiles.kriging import NUGGET, Fit, fit
from dynamo_planner.profiles.points import DecodePoints, efficiency
from dynamo_planner.profiles.surface import Surface
from dynamo_planner.profiles.table import along, nodes
from dynamo_planner.profiles.vectorize import Numbers, evaluate, last_within

Floats = NDArray[np.float64]

BATCH_SCALE = 2.0
"""Correlation length of step times over batches, in e-folds."""

CONTEXT_SCALES = (0.5, 1.0, 2.0, 4.0)
"""Correlation lengths over contexts to choose from, in e-folds: each context a law of its own, or all much alike."""

THROUGHPUT_TOLERANCE = 1e-3
"""A measured throughput that is this close to requests / ITL / GPUs at every point adds nothing to the ITL."""

MIN_BATCHES = 5
"""Fewer different batches cannot tell the terms of the trend in the batch apart."""


class Capacity(NamedTuple):
    """Decode capacity under an ITL target: numbers, or arrays of the shape of the query.

    Where a single request misses the target or does not fit, ``batch``, ``kv_usage`` and ``throughput`` are 0 and
    ``itl_ms`` is the ITL of a single request.

    Attributes:
        batch: mean number of requests in flight, not rounded.
        kv_usage: share (0 to 1) of the KV cache that they hold.
        itl_ms: their ITL.
        throughput: output tokens/s per GPU.
        extrapolated: whether nothing was measured around there.
    """

    batch: Any
    kv_usage: Any
    itl_ms: Any
    throughput: Any
    extrapolated: Any


class DecodeSurface:
    """ITL and throughput over KV usage and context.

    ::

        ITL        = (a + b n + c n**2 + d n x + e sqrt(n)) exp(correction(log n, log x))
        throughput = 1000 n s / (ITL gpus)

    ======  ==============================================================================================
    symbol  meaning
    ======  ==============================================================================================
    n       batch, ``kv_usage max_kv_tokens / context``, at least 1; n**2 is for batches bound by arithmetic
    x       context in tokens, at least 1
    a..e    ms for the weights, per request, per squared request, per KV token, and per square root of the requests;
            none negative. The root is for what rises ever more slowly, as the experts that a batch touches;
            without :data:`MIN_BATCHES` different batches there is none
    s       share of the throughput that was measured; less than 1 where requests wait
    ======  ==============================================================================================

    The correction interpolates what the points say beyond the trend (:mod:`dynamo_planner.profiles.kriging`). The
    points may be scattered, on a line, noisy, or not monotone. With no request in flight the ITL is that of a single
    one. Beyond the largest batch and context it rises as the trend does, with the square continued as its tangent;
    below the smallest context it stays constant.

    Queries are numbers or arrays; numbers give a number. A negative or NaN query raises ``ValueError``.

    >>> points = [(batch, context) for batch in (1, 8, 64) for context in (500, 2000, 8000)]
    >>> surface = DecodeSurface(DecodePoints(
    ...     max_kv_tokens=600_000,
    ...     kv_usage=[batch * context / 600_000 for batch, context in points],
    ...     context=[context for _, context in points],
    ...     itl_ms=[6 + 0.05 * batch + 2e-5 * batch * context for batch, context in points],
    ... ))
    >>> round(surface.itl_ms(kv_usage=0.2, context=4000), 3)  # 30 requests
    9.9
    >>> limit = surface.best(itl_ms=9, context=4000)
    >>> round(limit.batch, 2), round(limit.kv_usage, 3), round(limit.throughput)
    (23.08, 0.154, 2564)
    """

    def __init__(self, points: DecodePoints) -> None:
        self.points = points
        self.max_kv_tokens = points.max_kv_tokens
        self._where = np.column_stack([points.batch, points.context])
        self._axes = _axes(self._where)
        self._region = ConvexHull([tuple(point) for point in np.log(self._where).tolist()])

    @cached_property
    def _surface(self) -> Surface:
        return _itl_surface(self.points)

    @cached_property
    def _efficiency(self) -> Surface | None:
        """The share of batch / ITL / GPUs that was measured, where it is not simply all of it."""
        share = efficiency(self.points, 1000 * self._where[:, 0] / np.asarray(self.points.itl_ms))
        if np.all(np.abs(share - 1) < THROUGHPUT_TOLERANCE):
            return None
        return Surface(fit(self._where, share, lambda points: np.ones((len(points), 1)), _SCALES, _OFFSETS), self._axes)

    def itl_ms(self, kv_usage: Numbers, context: Numbers) -> Any:
        """ITL in ms with ``kv_usage`` (0 to 1) of the KV cache held by requests of ``context`` tokens each."""
        return evaluate(self._itls, self._itl, kv_usage=kv_usage, context=context)

    def step_ms(self, num_decode: Numbers, context: Numbers) -> Any:
        """The time in ms of a decode step with ``num_decode`` requests in flight, of ``context`` tokens each."""
        return evaluate(self._steps, self._step, num_decode=num_decode, context=context)

    def throughput(self, kv_usage: Numbers, context: Numbers) -> Any:
        """Output tokens per second per GPU with ``kv_usage`` of the KV cache held by requests of ``context`` tokens."""
        return evaluate(self._throughputs, kv_usage=kv_usage, context=context)

    def extrapolated(self, kv_usage: Numbers, context: Numbers) -> Any:
        """Whether this is outside the convex hull of the points, in log(batch) and log(context)."""
        return evaluate(self._outside, kv_usage=kv_usage, context=context)

    def best(self, itl_ms: Numbers, context: Numbers, max_kv_usage: Numbers = 1.0) -> Capacity:
        """The highest throughput per GPU that keeps the ITL at or under ``itl_ms`` with requests of ``context`` tokens.

        Every smaller batch keeps it too: an ITL that comes down again at a higher KV usage is no capacity. The batch
        is at most the largest that was measured at any context, and holds at most ``max_kv_usage`` of the KV cache.
        """
        capacity: Capacity = evaluate(self._best, itl_ms=itl_ms, context=context, max_kv_usage=max_kv_usage)
        return capacity

    def _itl(self, kv_usage: float, context: float) -> float:
        context = max(context, 1.0)
        return self._surface.at(max(kv_usage * self.max_kv_tokens / context, 1.0), context)

    def _itls(self, kv_usage: Floats, context: Floats) -> Floats:
        context = np.maximum(context, 1.0)
        return self._steps(kv_usage * self.max_kv_tokens / context, context)

    def _step(self, num_decode: float, context: float) -> float:
        return self._surface.at(max(num_decode, 1.0), max(context, 1.0))

    def _steps(self, batch: Floats, context: Floats) -> Floats:
        return self._surface.many(np.column_stack([np.maximum(batch, 1.0), np.maximum(context, 1.0)]))

    def _throughputs(self, kv_usage: Floats, context: Floats) -> Floats:
        batch = kv_usage * self.max_kv_tokens / np.maximum(context, 1.0)
        points = np.column_stack([np.maximum(batch, 1.0), np.maximum(context, 1.0)])
        share = 1.0 if self._efficiency is None else self._efficiency.many(points)
        return np.asarray(1000 * batch * share / (self._surface.many(points) * self.points.gpus))

    def _outside(self, kv_usage: Floats, context: Floats) -> NDArray[np.bool_]:
        context = np.maximum(context, 1.0)
        batch = np.maximum(kv_usage * self.max_kv_tokens / context, 1.0)
        return ~self._region.has(np.log(batch), np.log(context))

    def _best(self, itl_ms: Floats, context: Floats, max_kv_usage: Floats) -> Capacity:
        context = np.maximum(context, 1.0)
        batches = self._axes[0]
        itl = self._surface.rows(context)
        share = np.ones_like(itl) if self._efficiency is None else self._efficiency.rows(context)
        limit, found = last_within(batches, itl, itl_ms)
        kv_batch = max_kv_usage * self.max_kv_tokens / context
        found &= kv_batch >= 1
        limit = np.minimum(limit, np.maximum(kv_batch, 1.0))

        # Throughput may be higher before the limit than at it, so every node on the way is compared.
        row = np.arange(len(context))
        rates = np.where(batches <= limit[:, None], batches * share / itl, 0.0)
        node = rates.argmax(axis=1)
        itl_there, share_there = along(batches, limit, itl, share)
        rate = limit * share_there / itl_there
        earlier = rates[row, node] > rate
        batch = found * np.where(earlier, batches[node], limit)
        usage = batch * context / self.max_kv_tokens
        return Capacity(
            batch=batch,
            kv_usage=usage,
            itl_ms=np.where(earlier, itl[row, node], itl_there),
            throughput=found * np.where(earlier, rates[row, node], rate) * 1000 / self.points.gpus,
            extrapolated=self._outside(usage, context),
        )


_OFFSETS = (0.0, 0.0)
_SCALES = [(BATCH_SCALE, scale) for scale in CONTEXT_SCALES]


@lru_cache(maxsize=64)
def _itl_surface(points: DecodePoints) -> Surface:
    """The surface of the ITL, which the profiles of many models with the same points share."""
    where = np.column_stack([points.batch, points.context])
    return Surface(fit_itl(points), _axes(where))


def _axes(where: Floats) -> tuple[Floats, Floats]:
    return nodes(np.append(where[:, 0], [1.0]).clip(min=1.0)), nodes(where[:, 1])


def fit_itl(points: DecodePoints, nugget: float = NUGGET) -> Fit:
    """The ITL of the points as a function of (batch, context); see :class:`DecodeSurface`."""
    where = np.column_stack([points.batch, points.context])
    terms = partial(
        _step_terms, largest=float(where[:, 0].max()), rooted=len(np.unique(where[:, 0].round())) >= MIN_BATCHES
    )
    return fit(where, np.asarray(points.itl_ms), terms, _SCALES, _OFFSETS, nugget)


def _step_terms(points: Floats, largest: float, *, rooted: bool) -> Floats:
    batch, context = points.T
    inside = np.minimum(batch, largest)
    square = inside**2 + 2 * largest * (batch - inside)
    terms = [np.ones_like(batch), batch, square, batch * context]
    return np.column_stack([*terms, np.sqrt(batch)] if rooted else terms)
