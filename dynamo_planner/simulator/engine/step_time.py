"""The duration of one step of an engine.

A step time is affine in the KV tokens that it reads, in pieces: between two KV levels it is a straight line. That is
what lets an engine skip thousands of decode steps in one calculation, because the context grows by one token per
request and step, and so the duration of n steps is a sum of an arithmetic series.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pydantic import Field

from dynamo_planner.core.values import Frozen
from dynamo_planner.profiles.profile import Profile


class Line(NamedTuple):
    """A straight piece of step times over KV tokens.

    Args:
        ms: the duration of the step in question.
        ms_per_kv_token: what each KV token more adds.
        until_kv_tokens: the KV level at which the piece ends, itself not in it.
    """

    ms: float
    ms_per_kv_token: float
    until_kv_tokens: float


class StepTiming(Protocol):
    """The timing of an engine."""

    def line(self, prefill_tokens: int, num_decode: int, kv_tokens: int) -> Line:
        """The duration of a step that computes ``prefill_tokens`` of prompts beside one token each of ``num_decode``
        requests, which together attend to ``kv_tokens`` of context. The duration is above 0 over the whole piece.
        """


class LinearTiming(Frozen):
    """Step time = ``base_ms`` + ``prefill_ms_per_token`` x prompt tokens + ``kv_ms_per_token`` x context tokens.

    ``base_ms`` is the time to read the weights, which does not depend on the batch; prompts are bound by arithmetic and
    pay per token; decoding is bound by memory and pays per token of KV cache that it reads (the roofline argument of
    DistServe, Zhong et al., OSDI 2024). A fourth term per decoding request does not make the fit better. The defaults
    are a least-squares fit (mean relative error 10 %) to 144 steps of an 8B model in bf16 on one H100, with up to 8192
    prompt tokens, 256 requests and contexts of 1000 to 16000 tokens.

    Args:
        base_ms: ms that each step takes; 4.8 by default.
        prefill_ms_per_token: ms more per prompt token; 0.02 by default.
        kv_ms_per_token: ms more per token of context; 5e-5 by default.

    >>> LinearTiming(base_ms=5, prefill_ms_per_token=0.02, kv_ms_per_token=0.0001).line(1000, 8, 40_000)
    Line(ms=29.0, ms_per_kv_token=0.0001, until_kv_tokens=inf)
    """

    base_ms: float = Field(default=4.8, gt=0, description="what each step takes")
    prefill_ms_per_token: float = Field(default=0.02, ge=0, description="what a step takes more per prompt token")
    kv_ms_per_token: float = Field(default=5e-5, ge=0, description="what a step takes more per token of context")

    def line(self, prefill_tokens: int, num_decode: int, kv_tokens: int) -> Line:
        slope = self.kv_ms_per_token
        return Line(self.base_ms + self.prefill_ms_per_token * prefill_tokens + slope * kv_tokens, slope, math.inf)


class ProfileTiming(Frozen):
    """The steps of a measured profile; see :meth:`~dynamo_planner.profiles.Profile.step_ms`.

    Args:
        profile: the measured profile.
        factor: how many times as long every step takes, for engines that are not quite as measured; 1 by default.
    """

    profile: Profile
    factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    def line(self, prefill_tokens: int, num_decode: int, kv_tokens: int) -> Line:
        """A piece of a single token: exact, and slow. Simulations make a table of it."""
        here, there = (self.profile.step_ms(prefill_tokens, num_decode, kv_tokens + more) for more in (0, 1))
        return Line(self.factor * here, self.factor * (there - here), kv_tokens + 1)


class GridTiming:
    """Any ``step_ms(prefill_tokens, num_decode, kv_tokens)``, such as that of a measured profile, on a grid.

    The function is evaluated at the corners of cells of ``prefill_cell_tokens`` by ``kv_cell_tokens``, for each batch
    size, and only once for each corner; what it does inside a cell is replaced by straight lines between the corners.
    So a slow function does not make a slow engine.

    Args:
        step_ms: the duration of a step, in ms.
        kv_cell_tokens: the width of a cell in KV tokens.
        prefill_cell_tokens: the width of a cell in prompt tokens; 64 by default.

    Raises ``ValueError`` where ``step_ms`` gives a duration that is not a finite number above 0.

    >>> timing = GridTiming(lambda prefill_tokens, num_decode, kv_tokens: 5 + (kv_tokens / 100) ** 2, 100)
    >>> timing.line(0, 1, 150)
    Line(ms=7.5, ms_per_kv_token=0.03, until_kv_tokens=200)
    """

    def __init__(
        self, step_ms: Callable[[int, int, int], float], kv_cell_tokens: int, prefill_cell_tokens: int = 64
    ) -> None:
        if kv_cell_tokens < 1 or prefill_cell_tokens < 1:
            raise ValueError(f"cells must be at least 1 token wide, got {kv_cell_tokens} and {prefill_cell_tokens}")
        self._step_ms = step_ms
        self._kv_cell = kv_cell_tokens
        self._prefill_cell = prefill_cell_tokens
        self._corners: dict[tuple[int, int, int], float] = {}

    def line(self, prefill_tokens: int, num_decode: int, kv_tokens: int) -> Line:
        if not num_decode:
            return Line(self._at(prefill_tokens, 0, 0), 0.0, math.inf)
        cell, inside = divmod(kv_tokens, self._kv_cell)
        left = self._at(prefill_tokens, num_decode, cell)
        slope = (self._at(prefill_tokens, num_decode, cell + 1) - left) / self._kv_cell
        return Line(left + slope * inside, slope, (cell + 1) * self._kv_cell)

    def _at(self, prefill_tokens: int, num_decode: int, cell: int) -> float:
        """At the lower end of a KV cell, between two corners."""
        row, over = divmod(prefill_tokens, self._prefill_cell)
        low = self._corner(row, num_decode, cell)
        return low + (self._corner(row + 1, num_decode, cell) - low) * over / self._prefill_cell if over else low

    def _corner(self, row: int, num_decode: int, cell: int) -> float:
        corner = row, num_decode, cell
        if corner not in self._corners:
            self._corners[corner] = self._ask(row * self._prefill_cell, num_decode, cell * self._kv_cell)
        return self._corners[corner]

    def _ask(self, prefill_tokens: int, num_decode: int, kv_tokens: int) -> float:
        ms = float(self._step_ms(prefill_tokens, num_decode, kv_tokens))
        if not 0 < ms < math.inf:
            raise ValueError(
                f"step_ms({prefill_tokens}, {num_decode}, {kv_tokens}) is {ms}; it must be a finite number above 0"
            )
        return ms


class Slowed:
    """A timing whose every step takes ``factor`` times as long: a slow machine, or below 1 a fast one.

    >>> Slowed(LinearTiming(base_ms=5, prefill_ms_per_token=0.02, kv_ms_per_token=0.0001), 2).line(1000, 8, 0).ms
    50.0
    """

    def __init__(self, timing: StepTiming, factor: float) -> None:
        if not 0 < factor < math.inf:
            raise ValueError(f"factor must be a finite number above 0, got {factor}")
        self._timing = timing
        self._factor = factor

    def line(self, prefill_tokens: int, num_decode: int, kv_tokens: int) -> Line:
        ms, slope, until = self._timing.line(prefill_tokens, num_decode, kv_tokens)
        return Line(ms * self._factor, slope * self._factor, until)
