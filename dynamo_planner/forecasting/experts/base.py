"""The base class of experts: a point forecast of the level of a series.

Experts see and forecast the *square root* of a rate. Of a Poisson count it has the same variance at every level
(Bartlett, 1936), and of an over-dispersed one nearly so; a spread learned at night then still holds at noon, and a
forecast squared is never negative. Quantiles survive the transformation, so an expert only forecasts the middle; how
far off it is, is measured (:mod:`dynamo_planner.forecasting.calibration`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from dynamo_planner.core.component import Component

Memory = tuple[float, ...]
"""What an expert remembers: a flat row of finite numbers of a fixed length, so that any state is small, immutable and
plain JSON."""

UNKNOWN = -1.0
"""A slot of a memory without a value; roots of rates are never negative."""

Seconds = Annotated[float, Field(gt=0, le=1e9)]
"""A duration."""


class Expert(Component):
    """A pure point forecaster. Subclass it to add your own to a :class:`~dynamo_planner.forecasting.Forecaster`.

    ``class Mine(Expert, kind="mine")`` names it in configurations and states.
    """

    @abstractmethod
    def start(self) -> Memory:
        """The memory before the first sample."""

    @abstractmethod
    def update(self, memory: Memory, at_s: float, elapsed_s: float, span_s: float, root: float) -> Memory:
        """The memory after a sample.

        Args:
            memory: what the expert remembers.
            at_s: the time of the sample, in Unix seconds.
            elapsed_s: seconds since the sample before (for the first, ``span_s``). Where it is longer than ``span_s``
                something was missed; where it is shorter the windows overlap, and only ``elapsed_s`` is new.
            span_s: seconds to ``at_s`` over which the rate is a mean.
            root: square root of the rate.
        """

    @abstractmethod
    def ahead(self, memory: Memory, at_s: float, ahead_s: Sequence[float]) -> list[float]:
        """The roots expected at each ``at_s + ahead_s``; ``at_s`` is the time of the last sample."""


def decayed(elapsed_s: float, half_life_s: float) -> float:
    """The share of its weight that evidence keeps over ``elapsed_s``.

    >>> decayed(120, half_life_s=60)
    0.25
    """
    return float(2.0 ** (-elapsed_s / half_life_s))
