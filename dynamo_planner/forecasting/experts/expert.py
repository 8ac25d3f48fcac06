"""What an expert is: something with an opinion on the level of a series, some seconds ahead.

Experts see and foretell the *square root* of a rate. Of a Poisson count it has the same variance at every level
(Bartlett, 1936), and of an over-dispersed one nearly so; what is learned of the spread at night then still holds at
noon, and a forecast squared is never negative. Quantiles survive the transformation, so an expert needs only to say
where the middle is; how far off that may be is measured (see :mod:`dynamo_planner.forecasting.calibration`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from dynamo_planner.core.values import Frozen, known

Memory = tuple[float, ...]
"""What an expert remembers: a flat row of finite numbers of a fixed length, so that any state is small, immutable and
plain JSON."""

UNKNOWN = -1.0
"""A slot of a memory without a value; roots of rates are never negative."""


Seconds = Annotated[float, Field(gt=0, le=1e9)]
"""A duration."""

MOST_PER_S = 1e15
"""Rates beyond this are taken for this, so that no arithmetic overflows."""


class Expert(Frozen):
    """A pure point forecaster. Subclass it to add your own to a :class:`~dynamo_planner.forecasting.Forecaster`.

    A configuration tells experts apart by a field ``kind: Literal["mine"] = "mine"``.
    """

    @abstractmethod
    def start(self) -> Memory:
        """The memory before the first sample."""

    @abstractmethod
    def update(self, memory: Memory, at_s: float, elapsed_s: float, span_s: float, root: float) -> Memory:
        """The memory after a sample: ``root`` is the square root of the mean rate over the ``span_s`` seconds to
        ``at_s``.

        ``elapsed_s`` is the time since the sample before (for the first, ``span_s``). Where it is longer than
        ``span_s`` something was missed; where it is shorter the windows overlap, and only ``elapsed_s`` is new.
        """

    @abstractmethod
    def ahead(self, memory: Memory, at_s: float, ahead_s: Sequence[float]) -> list[float]:
        """The roots expected at ``at_s + ahead_s``, each; ``at_s`` is the time of the last sample."""


def decayed(elapsed_s: float, half_life_s: float) -> float:
    """The share of its weight that evidence keeps over ``elapsed_s``."""
    return float(2.0 ** (-elapsed_s / half_life_s))


def checked(at_s: float, rate_per_s: float | None, span_s: float) -> tuple[float, float | None, float]:
    """A sample as plain numbers; a rate that is missing, NaN or infinite is ``None``.

    Raises ``ValueError`` for a negative rate, a time that is not finite, or a span that is not 1 ms to 1e9 s.
    """
    rate = known(rate_per_s)
    if not math.isfinite(at_s):
        raise ValueError(f"at_s must be a finite time, got {at_s!r}")
    if not 1e-3 <= span_s <= 1e9:
        raise ValueError(f"span_s must be a duration of 0.001 to 1e9 seconds, got {span_s!r}")
    if rate is not None and rate < 0:
        raise ValueError(f"rate_per_s must be at least 0, or None where it is unknown, got {rate_per_s!r}")
    return float(at_s), None if rate is None else float(rate), float(span_s)
