"""How requests arrive: the rate, and how far from evenly."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.queueing import Floats, read_only, same_array

LEAST_DISPERSION = 0.05

NO_PATH: Floats = read_only(np.zeros(0))


@dataclass(frozen=True, eq=False)
class Arrivals:
    """Arrivals at ``requests_per_s`` on average: a value, equal and hashed by content.

    ``dispersion`` is the variance of the counts of short stretches of time over their mean: 1 for Poisson. ``path`` is
    how the rate went about its mean, slot by slot of ``slot_s`` seconds, as a factor (1 is the mean); empty where
    nothing is known of it, which stands for a rate that stays.
    """

    requests_per_s: float
    dispersion: float = 1.0
    slot_s: float = 1.0
    path: Floats = field(default_factory=lambda: NO_PATH)

    def __post_init__(self) -> None:
        for name in ("requests_per_s", "dispersion"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
        if not self.slot_s > 0:
            raise ValueError(f"slot_s must be above 0, got {self.slot_s}")
        object.__setattr__(self, "path", read_only(self.path))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Arrivals):
            return NotImplemented
        return self._numbers == other._numbers and same_array(self.path, other.path)

    def __hash__(self) -> int:
        return hash(self._numbers)

    @property
    def _numbers(self) -> tuple[float, ...]:
        return self.requests_per_s, self.dispersion, self.slot_s, self.path.size

    @classmethod
    def seen(cls, counts: npt.ArrayLike, slot_s: float, requests_per_s: float | None = None) -> Arrivals:
        """Arrivals like those that were counted in consecutive slots, at another mean rate if one is given.

        The dispersion is taken from the differences of consecutive counts (von Neumann 1941), which a rate that
        changes over longer times does not inflate; that is in the path.
        """
        counts = np.asarray(counts, float)
        mean = counts.mean() if counts.size else 0.0
        rate = mean / slot_s if requests_per_s is None else requests_per_s
        if counts.size < 2 or mean == 0:
            return cls(rate, slot_s=slot_s)
        return cls(rate, float(np.mean(np.diff(counts) ** 2) / 2 / mean), slot_s, counts / mean)

    def path_dispersion(self) -> float:
        """The variance of the counts of the slots over their mean, with the changes of the rate in it."""
        if not self.path.size:
            return self.dispersion
        return float(self.path.var() * self.requests_per_s * self.slot_s)
