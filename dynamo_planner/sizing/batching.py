"""Batched prefill: how full the steps of a replica are, and what they leave of the TTFT target.

A longer step takes less time per token, so a replica works the faster the more it has to do, up to some length: with
attention that goes with the square of it, a full step may take more per token than a shorter one. In a steady state
each step computes what arrived during the one before, and while prompts wait, steps grow::

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

A backlog fills steps up to the chunk. Where full steps take more per token, it makes a replica slower, and one that
keeps up only with shorter steps would never be rid of it. So the load is that of full steps there: with 403 ms for
2,048 tokens and 2,333 ms for 8,192, prompts of 1,141 tokens take ``1141 / 8192 * 2333 = 325`` ms, not 225 ms.
"""

from __future__ import annotations

import numpy as np

from dynamo_planner.profiles import PrefillCurve
from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.waiting import Service, sampled

STEP_GROWTH = 3.0
"""How many times as many tokens as in a steady state steps compute while prompts wait. Fitted once to simulations."""

STEP_SPREADS = 0.45
"""How many standard deviations of their work the two steps of a prompt are taken to be longer. Fitted once to
simulations."""

STEPS_PER_PROMPT = 2.0
"""Steps until a prompt is done that finds its replica at work: the one under way, and its own."""

STEP_NODES = 32
"""Nodes of the curve of step times."""

MIN_STEP_S = 1e-9
"""Length of a step where no steps are shared, in seconds: a prompt is late as soon as nothing is left."""

MIN_STEP_TOKENS = 16.0
"""The fewest tokens of a step on the curve."""


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
        shared_s = np.where(step_tokens[:, None] >= last, last * (step_s / step_tokens)[:, None], last_s)
        service_s = alone_s - last_s + shared_s
        self._mean_s = service_s.mean(axis=1)
        self._variation = service_s.var(axis=1) / self._mean_s**2
        self._mean_tokens, self._alone_s = float(tokens.mean()), float(alone_s.mean())
        self._cv2 = float(tokens.var()) / self._mean_tokens**2
        fullest = int(np.searchsorted(step_s, within_s / STEPS_PER_PROMPT, side="right")) - 1
        self.least_s = float(max(self._mean_s[: max(fullest, 0) + 1].min(), self._mean_s[-1]))
        """Mean seconds of a replica that a prompt takes in steps as full as the target allows, or as a backlog fills
        them, whichever is more."""

    def at(self, prompts_per_s: Floats, budgets_s: Floats) -> Service:
        """The service where prompts arrive at a replica at these rates, which may be more than it can do."""
        tokens = np.interp(prompts_per_s * self._mean_tokens, self._tokens_per_s, self._step_tokens)
        step_s = np.interp(tokens, self._step_tokens, self._step_s)
        grown = STEP_GROWTH * tokens
        mean_s = np.interp(grown, self._step_tokens, self._mean_s)
        spread_s = self.least_s * np.sqrt(2 * prompts_per_s * step_s * (self._cv2 + 0.5))
        ahead_s = STEPS_PER_PROMPT * np.maximum(step_s, self._alone_s) + STEP_SPREADS * spread_s - self._alone_s
        variation = np.interp(grown, self._step_tokens, self._variation)
        return Service(mean_s, variation, step_s, budgets_s - ahead_s[:, None])


class PromptService:
    """What prompts take of a replica and leave of their target, one at a time and with batching.

    Args:
        service_s: seconds that equally likely prompts take with no other.
        slack_s: seconds that those of them that count may wait.
        batching: steps that several prompts share. Default None.
        step_s: seconds of a step that is always under way. Default 0.
    """

    def __init__(
        self, service_s: Floats, slack_s: Floats, batching: Batching | None = None, step_s: float = 0.0
    ) -> None:
        self.mean_s = float(service_s.mean())
        self.variation = float(service_s.var()) / self.mean_s**2
        self.shape = service_s / self.mean_s
        self._budgets_s = sampled(np.sort(slack_s))
        self._batching, self._step_s = batching, step_s

    def at(self, prompts_per_s: Floats) -> Service:
        """The service where prompts arrive at a replica at these rates: one at a time, and then with batching."""
        ones = np.ones(len(prompts_per_s))
        left_s = (self._budgets_s - self._step_s) * ones[:, None]
        alone = Service(self.mean_s * ones, self.variation * ones, max(self._step_s, MIN_STEP_S) * ones, left_s)
        if self._batching is None:
            return alone
        shared = self._batching.at(prompts_per_s, self._budgets_s)
        return Service(*[np.concatenate(pair) for pair in zip(alone, shared, strict=True)])


class PromptSteps:
    """How long prompts take alone, and steps with up to a chunk of their tokens.

    Args:
        curve: TTFT over ISL of a prompt that does not wait.
        chunk_tokens: the most tokens of a step (``max_num_batched_tokens``).
    """

    def __init__(self, curve: PrefillCurve, chunk_tokens: float) -> None:
        self.curve = curve
        self._tokens = np.geomspace(MIN_STEP_TOKENS, max(chunk_tokens, 2 * MIN_STEP_TOKENS), STEP_NODES)
        self._step_ms = curve.ttft_ms(self._tokens)

    def prompts(self, tokens: Floats, factor: float, within_s: float) -> tuple[Floats, Batching]:
        """The seconds that each prompt takes alone, and the batching, where times are ``factor`` as long.

        A prompt that is longer than a chunk takes what was measured, and no less than its chunks one after the other.
        """
        step_s, tokens = self._step_ms * (factor / 1000), np.maximum(tokens, 1.0)
        in_steps_s = in_chunks_s(tokens, self._tokens, step_s)
        alone_s = np.maximum(self.curve.ttft_ms(tokens) * (factor / 1000), in_steps_s)
        return alone_s, Batching(tokens, alone_s, self._tokens, step_s, within_s)


def in_chunks_s(tokens: Floats, step_tokens: Floats, step_s: Floats) -> Floats:
    """The seconds that prompts take alone in steps of at most the last of ``step_tokens``."""
    whole, last = np.divmod(tokens, step_tokens[-1])
    return np.asarray(whole * step_s[-1] + np.where(last > 0, np.interp(last, step_tokens, step_s), 0.0))
