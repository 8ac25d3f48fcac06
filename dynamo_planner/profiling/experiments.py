"""The two kinds of experiments: prompts on an idle engine, and staircases.

A *staircase* sends ``n`` prompts of one length at once, and lets their outputs end in groups, so that the batch falls
from ``n`` to 1 in steps. One staircase measures the ITL of all these batches, and prompts that are sent on the way
measure mixed steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.snapshot import Role
from dynamo_planner.core.values import Frozen
from dynamo_planner.profiling.engine import Burst, Prompt

Floats = NDArray[np.float64]

STEP_DOWN = 2.0
"""By how much the batch of a staircase falls from level to level."""

LEVEL_S, LEVEL_TOKENS = 0.3, (16, 60)
"""Seconds, and the least and the most tokens, that a level of a staircase lasts."""

MIXED_LEVEL_S, MIXED_LEVEL_TOKENS = 0.6, (36, 100)
"""The same where prompts are sent on the way."""

PAUSE_STEPS = 5
"""Decode steps of the slowest batch between two prompts on the way, in which the ITL is measured."""

MARGIN_S = 0.03
"""Seconds that each prompt is taken to spend on the way."""

REPEATS = 3
"""How often each prompt on an idle engine is sent; the median leaves out one that met a pause."""

SHARES = (1, 1 / 64, 1 / 4, 1 / 256, 1 / 2, 1 / 16), (3 / 4, 1 / 32, 1 / 3, 1 / 128, 1 / 8, 1 / 512)
"""Prompts on the way of one staircase and the next, as shares of the tokens of a step; long and short ones in turn."""

SHORT_REPEATS = 3
"""How often prompts of less than a tenth of a step are sent in a row: the noise of a few ms is much to them."""


class Domain(Frozen):
    """Where the curves are to be known.

    Args:
        role: what the engine does; ``aggregated`` by default.
        min_isl: the shortest prompt, in tokens; 16 by default.
        max_isl: the longest prompt.
        max_context: the longest context.
        max_batch: the most requests at once.
        kv_tokens: KV capacity.
        step_tokens: the most tokens of one step; None, the default, where prompts are not chunked or it is unknown.
    """

    role: Role = "aggregated"
    min_isl: int = 16
    max_isl: int
    max_context: int
    max_batch: int
    kv_tokens: int
    step_tokens: int | None = None

    @property
    def is_mixed(self) -> bool:
        """Whether mixed steps are measured."""
        return self.role == "aggregated" and self.step_tokens is not None and self.max_batch > 1


class Staircase(NamedTuple):
    """A staircase before it is sent: its batches, and the tokens that each lasts."""

    context: int
    batches: tuple[int, ...]
    tokens: tuple[int, ...]
    sizes: tuple[int, ...]
    pause_s: float

    @property
    def contexts(self) -> Floats:
        """The mean context of each batch."""
        ends = np.cumsum(self.tokens)
        return np.asarray(self.context + ends - np.asarray(self.tokens) / 2)

    @property
    def longest(self) -> int:
        """The most tokens of a request at the end, but for what it gets while the prompts are computed."""
        return self.context + sum(self.tokens)

    def burst(self, domain: Domain) -> Burst:
        """The burst that climbs down.

        The engine computes the prompts one after the other, and those that are done get tokens meanwhile, one for each
        ``step_tokens`` of the prompts that follow; their outputs are longer by that.
        """
        count = self.batches[0]
        done = np.cumsum(self.tokens)
        together = []
        for place in range(count):
            level = sum(place < batch for batch in self.batches)
            meanwhile = 0
            if domain.role == "aggregated" and domain.step_tokens is not None:
                meanwhile = self.context * (count - 1 - place) // domain.step_tokens
            together.append(Prompt(self.context, 2 + int(done[level - 1]) + meanwhile))
        chain: tuple[Prompt, ...] = ()
        if self.sizes:
            turns = sum(self.tokens) // PAUSE_STEPS // len(self.sizes) + 1
            chain = tuple(Prompt(size, 1) for _ in range(turns) for size in self.sizes)
        return Burst(tuple(together), chain, self.pause_s, pause_tokens=PAUSE_STEPS)


def prompts(isls: Sequence[int]) -> Burst:
    """Prompts one after the other on an idle engine, each :data:`REPEATS` times."""
    return Burst(chain=tuple(Prompt(int(isl), 1) for isl in isls for _ in range(REPEATS)), pause_s=0.02)


def staircase(
    domain: Domain, context: int, batch: int, itl_s: Callable[[Floats, Floats], Floats], turn: int = 0
) -> Staircase:
    """A staircase from ``batch`` requests of ``context`` tokens.

    ``itl_s`` foretells the ITL at batches and contexts, in seconds; ``turn`` chooses the prompts on the way.
    """
    batches = ladder(batch)
    itls = np.maximum(itl_s(np.array(batches, float), np.full(len(batches), float(context))), 1e-4)
    mixed = domain.is_mixed
    seconds, (least, most) = (MIXED_LEVEL_S, MIXED_LEVEL_TOKENS) if mixed else (LEVEL_S, LEVEL_TOKENS)
    tokens = np.clip(seconds / itls, least, most).astype(int).tolist()
    sizes = _sizes((domain.step_tokens or 0) - batch, SHARES[turn % len(SHARES)]) if mixed else ()
    return Staircase(context, batches, tuple(tokens), sizes, PAUSE_STEPS * float(itls.max()))


def ladder(batch: int) -> tuple[int, ...]:
    """The batches of a staircase, from the first to 1.

    >>> ladder(20), ladder(1)
    ((20, 10, 5, 3, 2, 1), (1,))
    """
    batches = [batch]
    while batches[-1] > 1:
        batches.append(math.ceil(batches[-1] / STEP_DOWN))
    return tuple(batches)


def _sizes(largest: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Prompt lengths on the way of a staircase.

    >>> _sizes(2048, (1, 1 / 64, 1 / 2))
    (2048, 32, 32, 32, 1024)
    """
    sizes = []
    for share in shares:
        if (size := int(largest * share)) >= 1:
            sizes += [size] * (SHORT_REPEATS if share < 0.1 else 1)
    return tuple(sizes)
