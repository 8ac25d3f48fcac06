"""What was measured of an engine so far: plain data, which a run adds to and a resumed run begins with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dynamo_planner.core.values import Frozen, FrozenMap, KnobValue
from dynamo_planner.profiles import DecodePoints, MixedPoints, PrefillPoints, Profile, ProfileError
from dynamo_planner.profiles.validation import MAX_POINTS
from dynamo_planner.profiling.engine import Limits
from dynamo_planner.profiling.fit import CurveError, Smoothed, smoothed_itl, smoothed_prompts, smoothed_steps
from dynamo_planner.profiling.readings import DecodeReading, MixedReading, PromptReading, Readings

Floats = NDArray[np.float64]

FURTHER = 8
"""How many times as long a prompt is that shows what a token takes of the shortest one."""

IDLE_CONTEXTS = (1.0, 1000.0)
"""Contexts at which a step of prompts alone is entered: it has none, and queries name any."""


class Measured(Frozen):
    """The points of the curves so far.

    Args:
        limits: of the engine, reported or measured.
        prompts: TTFT of prompts on an idle engine, with the offset in it.
        decode: ITL at constant batches, a tuple for each burst.
        mixed: mixed steps, a tuple for each burst.
        spent_s: seconds that the engine was kept busy.
    """

    limits: Limits = Limits()
    prompts: tuple[PromptReading, ...] = ()
    decode: tuple[tuple[DecodeReading, ...], ...] = ()
    mixed: tuple[tuple[MixedReading, ...], ...] = ()
    spent_s: float = 0.0

    def plus(self, readings: Readings, spent_s: float) -> Self:
        """With the readings of one burst more."""
        return self.replace(
            prompts=(*self.prompts, *readings.prompts),
            decode=(*self.decode, readings.decode) if readings.decode else self.decode,
            mixed=(*self.mixed, readings.mixed) if readings.mixed else self.mixed,
            spent_s=self.spent_s + spent_s,
        )

    def joined(self, other: Self) -> Self:
        """With what was measured elsewhere of the same engine, or of the other half of a disaggregated service."""
        return self.replace(
            limits=other.limits.overlaid(self.limits),
            prompts=(*self.prompts, *other.prompts),
            decode=(*self.decode, *other.decode),
            mixed=(*self.mixed, *other.mixed),
            spent_s=self.spent_s + other.spent_s,
        )

    @property
    def ttfts(self) -> dict[float, float]:
        """TTFT in ms by ISL, the median of what was measured of each, the offset included."""
        isls = sorted({reading.isl for reading in self.prompts})
        return {isl: float(np.median([r.ttft_ms for r in self.prompts if r.isl == isl])) for isl in isls}

    @property
    def offset_ms(self) -> float:
        """What a TTFT has beside the computing: the way to the engine and back, and what the server does about it.

        A prompt of a few tokens takes the engine as long as a step that decodes one request, since both only read the
        weights, and no prompt takes less; what the shortest TTFT has more is the offset. With a shortest TTFT of 26 ms
        and an ITL of 6 ms alone: 20 ms. 0 while one of the two was not measured.

        On a CPU even few tokens take longer than the weights. Their time, by the line to a prompt :data:`FURTHER` times
        as long, is then no offset either. With 56 ms for 16 tokens, 280 ms for 128, and an ITL of 8 ms alone, a token
        takes 2 ms, 15 of them 30 ms, and the offset is 56 - 30 - 8 = 18 ms.
        """
        singles = [r for burst in self.decode for r in burst if r.batch == 1]
        ttfts = self.ttfts
        if not singles or not ttfts:
            return 0.0
        alone = min(singles, key=lambda reading: reading.context)
        shortest = min(ttfts, key=lambda isl: ttfts[isl])
        further = min((isl for isl in ttfts if isl >= FURTHER * shortest), default=None)
        ms_per_token = 0.0 if further is None else (ttfts[further] - ttfts[shortest]) / (further - shortest)
        tokens_ms = ms_per_token * (shortest - 1)
        computing_ms = alone.itl_ms + (tokens_ms if tokens_ms > alone.itl_ms else 0.0)
        return max(ttfts[shortest] - computing_ms, 0.0)

    @property
    def errors(self) -> dict[str, CurveError]:
        """The errors of the curves ``ttft``, ``itl`` and ``step``, as far as they were measured."""
        found = {}
        if self.prompts:
            found["ttft"] = self._ttft.error
        if self.decode:
            found["itl"] = self._itl.error
        if self.mixed:
            found["step"] = self._step.error
        return found

    def prefill_points(self, gpus: int = 1) -> PrefillPoints | None:
        """TTFT without offset and noise; None where fewer than two prompts were measured."""
        if len(self.ttfts) < 2:
            return None
        isl, ttft = self._ttft.rows.T
        return PrefillPoints(isl=isl, ttft_ms=np.maximum(ttft, 1.0), gpus=gpus)

    def decode_points(self, gpus: int = 1) -> DecodePoints | None:
        """ITL without noise; None where fewer than two batches were measured."""
        if sum(map(len, self.decode)) < 2:
            return None
        batch, context, itl = _thinned(self._itl.rows).T
        kv_tokens = self.limits.kv_tokens or float((batch * context).max())
        usage = batch * context / kv_tokens
        return DecodePoints(max_kv_tokens=kv_tokens, kv_usage=usage, context=context, itl_ms=itl, gpus=gpus)

    def mixed_points(self) -> MixedPoints | None:
        """Mixed steps without noise, with prompts and decoding alone at their ends; None where none was measured."""
        prefill, decode = self.prefill_points(), self.decode_points()
        if not self.mixed or prefill is None or decode is None:
            return None
        longest = self.limits.max_num_batched_tokens or max(r.prefill_tokens for burst in self.mixed for r in burst)
        rows = [self._step.rows]
        rows += [np.column_stack([np.zeros(len(decode.batch)), decode.batch, decode.context, decode.itl_ms])]
        alone = [(isl, ttft) for isl, ttft in zip(prefill.isl, prefill.ttft_ms, strict=True) if isl <= longest]
        rows += [np.array([(isl, 0.0, context, ttft) for isl, ttft in alone]) for context in IDLE_CONTEXTS if alone]
        tokens, batch, context, step = _thinned(np.vstack(rows)).T
        return MixedPoints(prefill_tokens=tokens, num_decode=batch, context=context, step_ms=step)

    def profile(
        self, name: str = "profile", about: Mapping[str, KnobValue | None] | None = None, gpus: int = 1
    ) -> Profile:
        """The profile of what was measured, on workers of ``gpus`` GPUs.

        Raises :class:`ProfileError` where prompts or decoding were not measured.
        """
        prefill, decode = self.prefill_points(gpus), self.decode_points(gpus)
        if prefill is None or decode is None:
            lacking, count = ("prompts", len(self.ttfts)) if prefill is None else ("batches", len(self.decode))
            raise ProfileError(f"{count} {lacking} were measured, and a profile takes at least two: measure on")
        return Profile(
            name=name,
            prefill_points=prefill,
            decode_points=decode,
            mixed_points=self.mixed_points(),
            about=FrozenMap(about or {}),
        )

    @cached_property
    def _ttft(self) -> Smoothed:
        """TTFT less the offset."""
        ttfts, offset_ms = self.ttfts, self.offset_ms
        return smoothed_prompts(list(ttfts), [ttft - offset_ms for ttft in ttfts.values()])

    @cached_property
    def _itl(self) -> Smoothed:
        return smoothed_itl(self.decode)

    @cached_property
    def _step(self) -> Smoothed:
        return smoothed_steps(self.mixed)


def _thinned(rows: Floats) -> Floats:
    """Not more rows than a curve takes."""
    return rows[:: max(-(-len(rows) // MAX_POINTS), 1)]
