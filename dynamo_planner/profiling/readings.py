"""From the answers of a burst to points of curves: TTFT, ITL at constant batches, and mixed steps.

The longest answer is the witness: while it decodes, each step gives it a token, so its gaps are the durations of steps.
What else the engine did in a gap is known from when the other answers began and ended.

- A *plain* gap has a constant set of decoding requests and no prompt under way. The ITL of a batch is the mean of its
  plain gaps, in runs of a few: the mean evens out tokens that come in one packet, and runs with a pause are left out.
- A prompt of the chain that fits into one step lengthens one gap. The duration of that mixed step is the time from the
  last token before the prompt was sent to the first one after its answer, less the plain steps in between.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.profiling.engine import Answer, Answers

Floats = NDArray[np.float64]

RUN = 6
"""Plain gaps in a row whose mean is compared with that of other runs."""

PAUSED = 1.3
"""A run of gaps whose mean is this many times the median of all runs had a pause in it, and is left out."""

MIN_ITL_MS = 0.5
"""A shorter ITL is that of tokens in one packet."""

MIN_GAPS = 4
"""A batch with fewer plain gaps gives no ITL."""


class PromptReading(NamedTuple):
    """The TTFT of one prompt on an idle engine, with the offset of the way to it and back in it."""

    isl: float
    ttft_ms: float


class DecodeReading(NamedTuple):
    """The ITL at a constant batch; ``context`` is the mean over its requests, in tokens."""

    batch: int
    context: float
    itl_ms: float


class MixedReading(NamedTuple):
    """The duration of a step with ``prefill_tokens`` of a prompt beside a batch that decodes."""

    prefill_tokens: int
    batch: int
    context: float
    step_ms: float


class Readings(NamedTuple):
    """What one burst says."""

    prompts: tuple[PromptReading, ...] = ()
    decode: tuple[DecodeReading, ...] = ()
    mixed: tuple[MixedReading, ...] = ()


def readings(answers: Answers, step_tokens: int | None) -> Readings:
    """The points in the answers of a burst.

    ``step_tokens`` are the most tokens of one step; prompts that do not fit into one with the batch give no mixed
    step, and where it is None none does.
    """
    if not answers.together:
        return Readings(prompts=_prompts(answers.chain))
    witness = max(answers.together, key=lambda answer: len(answer.token_s))
    if len(witness.token_s) < MIN_GAPS + 1:
        return Readings()
    gaps = _Gaps(witness, answers)
    decode = gaps.decode()
    mixed = () if step_tokens is None else gaps.mixed(answers.chain, decode, step_tokens)
    return Readings(decode=decode, mixed=mixed)


def _prompts(chain: Iterable[Answer]) -> tuple[PromptReading, ...]:
    by_isl: dict[int, list[float]] = defaultdict(list)
    for answer in chain:
        if not answer.failure and math.isfinite(answer.ttft_ms):
            by_isl[answer.isl].append(answer.ttft_ms)
    return tuple(PromptReading(isl, float(np.median(ttfts))) for isl, ttfts in sorted(by_isl.items()))


class _Gaps:
    """The gaps between the tokens of the witness, and what the engine did in each."""

    def __init__(self, witness: Answer, answers: Answers) -> None:
        times = np.asarray(witness.token_s)
        self._from, self._to = times[:-1], times[1:]
        served = [answer for answer in answers.together if math.isfinite(answer.first_s)]
        self._served = served
        self._firsts = np.array([answer.first_s for answer in served])
        self._lasts = np.array([answer.last_s if math.isfinite(answer.last_s) else math.inf for answer in served])
        half = np.median(np.diff(times)) / 2
        middle = self._from + np.minimum(half, (self._to - self._from) / 2)
        self._middle = middle
        self.batch = (
            np.searchsorted(np.sort(self._firsts), middle) - np.searchsorted(np.sort(self._lasts), middle)
        ).astype(int)
        pending = [*answers.together, *answers.chain]
        begins = np.array([answer.sent_s for answer in pending])
        ends = np.array([answer.first_s if math.isfinite(answer.first_s) else math.inf for answer in pending])
        self._pending = np.array(
            [bool(np.any((begins < to) & (ends > start))) for start, to in zip(self._from, self._to, strict=True)]
        )
        same = np.concatenate([[False], self.batch[1:] == self.batch[:-1]])
        same &= np.concatenate([same[1:], [True]])
        quiet = ~self._pending
        after = np.concatenate([[True], quiet[:-1]])
        self._plain = quiet & after & same

    def decode(self) -> tuple[DecodeReading, ...]:
        """The ITL of each batch that was constant for some gaps."""
        return tuple(
            DecodeReading(int(batch), self._context(here), itl)
            for batch in np.unique(self.batch[self._plain])
            if batch and (itl := self._itl(here := self._plain & (self.batch == batch))) is not None
        )

    def _itl(self, here: NDArray[np.bool_]) -> float | None:
        where = np.flatnonzero(here)
        if len(where) < MIN_GAPS:
            return None
        gaps = 1000 * (self._to - self._from)
        pieces = np.split(where, np.flatnonzero(np.diff(where) > 1) + 1)
        runs = [run for piece in pieces for run in np.array_split(piece, -(-len(piece) // RUN))]
        means, sizes = np.array([gaps[run].mean() for run in runs]), np.array([len(run) for run in runs])
        calm = means <= PAUSED * np.median(means)
        itl = float(np.average(means[calm], weights=sizes[calm]))
        return itl if itl >= MIN_ITL_MS else None

    def _context(self, here: NDArray[np.bool_]) -> float:
        """The mean tokens that the requests of a batch attend to, in the midst of these gaps."""
        at_s = float(np.mean(self._middle[here]))
        alive = [
            answer.isl + _tokens_at(answer, at_s)
            for answer, first_s, last_s in zip(self._served, self._firsts, self._lasts, strict=True)
            if first_s <= at_s <= last_s
        ]
        return float(round(np.mean(alive))) if alive else 1.0

    def mixed(
        self, chain: Sequence[Answer], decode: Sequence[DecodeReading], step_tokens: int
    ) -> tuple[MixedReading, ...]:
        """The steps that prompts of the chain lengthened; prompts of one length at one batch in their median."""
        itls = {reading.batch: reading.itl_ms for reading in decode}
        found: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
        for answer in chain:
            place = self._around(answer)
            if place is None:
                continue
            batch = int(self.batch[place[0]])
            if batch not in itls or answer.isl > step_tokens - batch:
                continue
            here = np.zeros(len(self.batch), bool)
            here[place] = True
            total_ms = 1000 * float(self._to[place[-1]] - self._from[place[0]])
            step_ms = total_ms - (len(place) - 1) * itls[batch]
            if step_ms >= MIN_ITL_MS:
                found[answer.isl, batch].append((self._context(here), step_ms))
        return tuple(
            MixedReading(isl, batch, *np.median(np.asarray(steps), axis=0).tolist())
            for (isl, batch), steps in sorted(found.items())
        )

    def _around(self, answer: Answer) -> NDArray[np.intp] | None:
        """The gaps in which a prompt was under way, and one more at each end; None where the batch changed."""
        if answer.failure or not math.isfinite(answer.first_s):
            return None
        inside = np.flatnonzero((self._from < answer.first_s) & (self._to > answer.sent_s))
        if not len(inside) or inside[0] == 0 or inside[-1] + 1 >= len(self.batch):
            return None
        place = np.arange(inside[0] - 1, inside[-1] + 2)
        return place if len(set(self.batch[place].tolist())) == 1 else None


def _tokens_at(answer: Answer, at_s: float) -> float:
    """The output tokens that an answer had at a time, as if they came at equal distances."""
    last_s = answer.last_s if math.isfinite(answer.last_s) else (answer.token_s or [at_s])[-1]
    total = max(answer.tokens, len(answer.token_s), 1)
    share = (at_s - answer.first_s) / max(last_s - answer.first_s, 1e-9)
    return 1 + (total - 1) * min(max(share, 0.0), 1.0)
