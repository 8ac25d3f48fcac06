"""Batched prefill: how full the steps of a replica are, and what they leave of the TTFT target.

A longer step takes less time per token, so a replica works the faster the more it has to do. In a steady state each
step computes what arrived during the one before, and while prompts wait, steps grow::

    M / S(M) = l                                  tokens of a step that keeps up with the arrivals
    s(t)     = A(t) - S(r) + r S(G) / G           seconds of a replica that a prompt takes, G = STEP_GROWTH M
    ahead    = 2 S(M) + STEP_SPREADS sd           seconds until a prompt of average length is done, without a queue
    sd       = s sqrt(2 n (c**2 + 1/2))           of the work of two steps of n prompts each

======  ==================================================================================================
symbol  meaning
======  ==================================================================================================
l       prompt tokens per second that arrive at a replica
S(M)    seconds that a step of M tokens takes
A(t)    seconds that a prompt of t tokens takes with no other
r       tokens of its last chunk; the others fill a step each
c**2    squared coefficient of variation of the prompt lengths
======  ==================================================================================================

A prompt that finds its replica at work waits for the step under way, and then for its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dynamo_planner.profiles import PrefillCurve
from dynamo_planner.sizing.arrays import Floats

STEP_GROWTH = 3.0
"""How many times as many tokens as in a steady state steps compute while prompts wait. Fitted once to simulations."""

STEP_SPREADS = 0.45
"""How many standard deviations of their work the two steps of a prompt are taken to be longer. Fitted once to
simulations."""

STEPS_PER_PROMPT = 2.0
"""Steps until a prompt is done that finds its replica at work: the one under way, and its own."""

STEP_NODES = 32
"""Nodes of the curve of step times."""

MIN_STEP_TOKENS = 16.0
"""The fewest tokens of a step on the curve."""


class Service(NamedTuple):
    """The service of prompts for several replica counts; each field has shape (counts,).

    Attributes:
        mean_s: mean seconds of a replica that a prompt takes.
        variation: squared coefficient of variation of that.
        ahead_s: seconds that go before a prompt beyond its own service, whatever the queue.
        step_s: seconds that a step takes on average.
    """

    mean_s: Floats
    variation: Floats
    ahead_s: Floats
    step_s: Floats


class Batching:
    """Steps that compute several prompts at once.

    Args:
        tokens: equally likely prompt lengths, at least 1 token each.
        alone_s: seconds that each of them takes with no other.
        step_tokens: tokens of steps, ascending, up to the most that there may be.
        step_s: seconds that each of these steps takes.
        within_s: the TTFT target.
    """

    def __init__(self, tokens: Floats, alone_s: Floats, step_tokens: Floats, step_s: Floats, within_s: float) -> None:
        self._step_tokens, self._step_s = step_tokens, step_s
        self._tokens_per_s = np.maximum.accumulate(step_tokens / step_s)
        last = tokens % step_tokens[-1]
        last_s = np.interp(last, step_tokens, step_s)
        service_s = alone_s - last_s + np.minimum(last_s, last * (step_s / step_tokens)[:, None])
        self._mean_s = np.minimum.accumulate(service_s.mean(axis=1))
        self._variation = service_s.var(axis=1) / self._mean_s**2
        self._mean_tokens, self._alone_s = float(tokens.mean()), float(alone_s.mean())
        self._cv2 = float(tokens.var()) / self._mean_tokens**2
        fullest = int(np.searchsorted(step_s, within_s / STEPS_PER_PROMPT, side="right")) - 1
        self.least_s = float(self._mean_s[max(fullest, 0)])
        """Mean seconds of a replica that a prompt takes where steps are as full as the target allows."""

    def at(self, prompts_per_s: Floats) -> Service:
        """The service where prompts arrive at a replica at these rates, which may be more than it can do."""
        tokens = np.interp(prompts_per_s * self._mean_tokens, self._tokens_per_s, self._step_tokens)
        step_s = np.interp(tokens, self._step_tokens, self._step_s)
        grown = STEP_GROWTH * tokens
        mean_s = np.interp(grown, self._step_tokens, self._mean_s)
        spread_s = self.least_s * np.sqrt(2 * prompts_per_s * step_s * (self._cv2 + 0.5))
        ahead_s = STEPS_PER_PROMPT * np.maximum(step_s, self._alone_s) + STEP_SPREADS * spread_s - self._alone_s
        return Service(mean_s, np.interp(grown, self._step_tokens, self._variation), ahead_s, step_s)


def prompts_of(
    curve: PrefillCurve, tokens: Floats, chunk_tokens: float, factor: float, within_s: float
) -> tuple[Floats, Batching]:
    """The seconds that each prompt takes alone, and the batching, of a profile whose times are ``factor`` as long.

    A prompt that is longer than a chunk takes what was measured, and no less than its chunks one after the other.
    """
    chunk = max(chunk_tokens, 2 * MIN_STEP_TOKENS)
    step_tokens = np.geomspace(MIN_STEP_TOKENS, chunk, STEP_NODES)
    step_s = curve.ttft_ms(step_tokens) * (factor / 1000)
    tokens = np.maximum(tokens, 1.0)
    whole, last = np.divmod(tokens, chunk)
    in_chunks_s = whole * step_s[-1] + np.where(last > 0, np.interp(last, step_tokens, step_s), 0.0)
    alone_s = np.maximum(curve.ttft_ms(tokens) * (factor / 1000), in_chunks_s)
    return alone_s, Batching(tokens, alone_s, step_tokens, step_s, within_s)
