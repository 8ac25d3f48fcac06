"""A linear step time, learned from what a live engine reports: least squares with a prior of how engines are shaped.

::

    step = a + b p + c n + d k        ms, all >= 0

======  ==========================================================================================
symbol  meaning
======  ==========================================================================================
p       prompt tokens computed in the step, each longer prompt a little dearer (attention)
n       requests that decode
k       KV tokens that they attend to
a..d    ms of an empty step, and for each prompt token, request and KV token
======  ==========================================================================================

Live traffic shows a few of the directions only: a pool that always has about 20 requests in flight says how long a step
of 20 takes, and hardly what another one adds. What it does not show comes from the **shape** that engines share, for
weights are read once a step, and arithmetic and memory scale with them: over 17 measured engines (8B to 671B, from an
L40S to a B200, three engines) ``a / b`` is 166 to 315 tokens, ``a / c`` 96 to 713 requests, and ``a`` the time of
reading 0.14 to 1 of a full KV cache. So one observation sets the scale, and more set the rest.

Evidence fades with a half-life, the prior does not: a direction that is no longer observed returns to the shape.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from dynamo_planner.profiles.steps import StepCosts

Floats = NDArray[np.float64]

PROMPT_TOKENS, REQUESTS, KV_TOKENS = 240.0, 260.0, 300_000.0
"""Prompt tokens, requests and KV tokens that each make a step as much longer as reading the weights takes: the medians
over the measured engines."""

CACHE_SHARE = 0.4
"""Where the KV cache's size is known: the share of it that takes as long to read as the weights, the median."""

SHAPE_ERRORS = (0.25, 0.5, 0.7)
"""Standard deviations of the logarithms of the three over the engines."""

UNKNOWN_CACHE_ERROR = 1.0
"""That of the third where the size of the cache is unknown."""

ATTENTION_TOKENS = 60_000.0
"""A prompt of this many tokens takes twice as long as if each token cost the same: the engines have 30,000 to
90,000."""

MINUTE_ERROR = 0.1
"""The relative error of a minute of observations: most of it is what a linear step cannot say, and does not average
out."""

REQUEST_ERROR = 0.5
"""The relative error of one request."""

EVIDENCE_HALF_LIFE_S = 2 * 3600.0
"""Observations keep half their weight over this time, in seconds: some hours of a day with its load."""

MINUTE_S = 60.0

SHAPE: Floats = 1 / np.array([1.0, PROMPT_TOKENS, REQUESTS, KV_TOKENS])
SIZE = len(SHAPE)


class StepSample(NamedTuple):
    """A mean time in which one step, or several, were computed, and the work in it.

    Args:
        ms: The time in milliseconds.
        steps: Steps in it. Default 1.
        prefill_tokens: Prompt tokens, by :func:`prompt_work`. Default 0.
        requests: Requests that decode, summed over the steps. Default 0.
        kv_tokens: KV tokens that they attend to, summed over the steps. Default 0.
        sampled: Requests that the mean is over. Default 1.
    """

    ms: float
    steps: float = 1.0
    prefill_tokens: float = 0.0
    requests: float = 0.0
    kv_tokens: float = 0.0
    sampled: float = 1.0

    @property
    def work(self) -> Floats:
        """The work in multiples of an empty step, of an engine of the common shape: shape (4,)."""
        return np.array([self.steps, self.prefill_tokens, self.requests, self.kv_tokens]) * SHAPE


def prompt_work(tokens: Any, cv2: float = 0.0) -> Any:
    """Prompt tokens of linear cost that a prompt amounts to: ``tokens + E[tokens**2] / ATTENTION_TOKENS``; numbers give
    a number, arrays an array.

    >>> round(prompt_work(6000)), round(prompt_work(6000, cv2=1.0))
    (6600, 7200)
    """
    return tokens + tokens**2 * (1 + cv2) / ATTENTION_TOKENS


class StepFit(NamedTuple):
    """Fitted costs, and the normal matrix that says how exactly they are known."""

    costs: StepCosts
    normal: Floats

    def error(self, sample: StepSample) -> float:
        """The relative standard error of the time that the costs say for the work of a sample."""
        work = sample.work
        variance = float(work @ np.linalg.solve(self.normal, work))
        return math.sqrt(max(variance, 0.0)) / max(sample_ms(self.costs, sample), 1e-9)


class StepModel(NamedTuple):
    """The evidence for the four costs: weighted sums, which fade. A handful of numbers, however long it learned.

    Args:
        minutes: Minutes of observations in it.
        weight: Their weights, summed.
        scale: The weighted sum of ``ms / work``, the time of an empty step of an engine of the common shape.
        square: The upper triangle of the weighted sum of ``work work' / ms**2``.
        product: The weighted sum of ``work / ms``.

    >>> model = StepModel()
    >>> for batch in (10, 20, 40):
    ...     model = model.plus(StepSample(6 + 0.1 * batch, requests=batch, kv_tokens=1000 * batch, sampled=100), 1800)
    >>> costs = model.costs()
    >>> [round(costs.step_ms(0, batch, 1000 * batch), 1) for batch in (10, 30, 80)]
    [7.2, 8.8, 12.7]

    After one and a half hours of it the truth, 7, 9 and 14 ms, is still drawn to the common shape.
    """

    minutes: float = 0.0
    weight: float = 0.0
    scale: float = 0.0
    square: tuple[float, ...] = (0.0,) * (SIZE * (SIZE + 1) // 2)
    product: tuple[float, ...] = (0.0,) * SIZE

    def faded(self, elapsed_s: float) -> StepModel:
        """The evidence that is left after a time."""
        keep = 2.0 ** (-elapsed_s / EVIDENCE_HALF_LIFE_S)
        return StepModel(
            keep * self.minutes,
            keep * self.weight,
            keep * self.scale,
            tuple([keep * value for value in self.square]),
            tuple([keep * value for value in self.product]),
        )

    def plus(self, sample: StepSample, lasted_s: float) -> StepModel:
        """The evidence with one sample more, of a window of which ``lasted_s`` seconds are new."""
        work = sample.work
        minutes = lasted_s / MINUTE_S
        weight = minutes / (MINUTE_ERROR**2 + minutes * REQUEST_ERROR**2 / max(sample.sampled, 1.0))
        square = (weight / sample.ms**2) * np.outer(work, work)
        return StepModel(
            self.minutes + minutes,
            self.weight + weight,
            self.scale + weight * sample.ms / float(work.sum()),
            tuple(np.add(self.square, square[_UPPER]).tolist()),
            tuple(np.add(self.product, weight / sample.ms * work).tolist()),
        )

    def fit(self, cache_tokens: float | None = None) -> StepFit:
        """The costs that fit the evidence and the shape best, none negative, and how exactly they are known.

        Args:
            cache_tokens: Tokens that the KV cache of an engine holds. Default ``None``, unknown.

        Raises ``ValueError`` where nothing was observed.
        """
        normal = self._normal(cache_tokens)
        lower = np.linalg.cholesky(normal)
        shaped, _ = nnls(lower.T, np.linalg.solve(lower, np.asarray(self.product)))
        base, per_token, per_request, per_kv = (shaped * SHAPE).tolist()
        costs = StepCosts.unchecked(
            base_ms=base, ms_per_prefill_token=per_token, ms_per_request=per_request, ms_per_kv_token=per_kv
        )
        return StepFit(costs, normal)

    def costs(self, cache_tokens: float | None = None) -> StepCosts:
        """The costs alone; see :meth:`fit`."""
        return self.fit(cache_tokens).costs

    def _normal(self, cache_tokens: float | None) -> Floats:
        """The normal matrix of the least squares, in multiples of the shape."""
        if not self.weight:
            raise ValueError("nothing was observed yet")
        normal = np.zeros((SIZE, SIZE))
        normal[_UPPER] = self.square
        normal += np.triu(normal, 1).T
        empty_ms = self.scale / self.weight
        kv, kv_error = 1.0, UNKNOWN_CACHE_ERROR
        if cache_tokens:
            kv, kv_error = KV_TOKENS / (CACHE_SHARE * cache_tokens), SHAPE_ERRORS[2]
        ratios, errors = (1.0, 1.0, kv), (*SHAPE_ERRORS[:2], kv_error)
        for column, (ratio, error) in enumerate(zip(ratios, errors, strict=True), start=1):
            row = np.zeros(SIZE)
            row[0], row[column] = -1.0, 1 / ratio
            normal += np.outer(row, row) / (empty_ms * error) ** 2
        return normal


def sample_ms(costs: StepCosts, sample: StepSample) -> float:
    """The time in ms that costs say for the work of a sample."""
    return float(
        costs.base_ms * sample.steps
        + costs.ms_per_prefill_token * sample.prefill_tokens
        + costs.ms_per_request * sample.requests
        + costs.ms_per_kv_token * sample.kv_tokens
    )


_UPPER = np.triu_indices(SIZE)
