"""The constant expert: the level is the recent mean."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from dynamo_planner.forecasting.experts.base import Expert, Memory, decayed


class Constant(Expert, kind="constant"):
    """The exponentially weighted mean; with ``half_life_s=0`` the last value.

    Samples weigh by the time that they cover and by their age, ``w = covered * 2**(-age / half_life)``. A short
    history is thus a plain mean, and after a gap old evidence has faded but not vanished.

    Args:
        half_life_s: age at which a sample has half its weight. Default 60 s.

    >>> expert = Constant(half_life_s=60)
    >>> memory = expert.update(expert.start(), at_s=5, elapsed_s=5, span_s=5, root=3.0)
    >>> memory = expert.update(memory, at_s=65, elapsed_s=60, span_s=5, root=6.0)
    >>> expert.ahead(memory, at_s=65, ahead_s=[30])  # the first sample weighs half as much as the second
    [5.0]
    """

    half_life_s: float = Field(default=60.0, ge=0, le=1e9)

    def start(self) -> Memory:
        return (0.0, 0.0)

    def update(self, memory: Memory, at_s: float, elapsed_s: float, span_s: float, root: float) -> Memory:
        if not self.half_life_s:
            return (root, 0.0)
        level, weight = memory
        new = min(elapsed_s, span_s)
        weight = weight * decayed(elapsed_s, self.half_life_s) + new
        return (level + new / weight * (root - level), weight)

    def ahead(self, memory: Memory, at_s: float, ahead_s: Sequence[float]) -> list[float]:
        return [memory[0]] * len(ahead_s)
