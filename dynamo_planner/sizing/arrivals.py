"""Arrivals: rate, dispersion and path."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.arrays import Floats, read_only, same_array

MIN_DISPERSION = 0.05
"""Dispersion counts as at least this much: perfectly regular arrivals have none, which formulas divide by."""

NO_PATH: Floats = read_only(np.zeros(0))


@dataclass(frozen=True, eq=False)
class Arrivals:
    """How requests arrive: a value, equal and hashed by content.

    Args:
        requests_per_s: the mean rate.
        dispersion: variance over mean of the counts in short stretches of time. Default 1, Poisson.
        slot_s: seconds of a slot of ``path``. Default 1.
        path: the rate over its mean, slot by slot. Default empty: nothing is known of it, which stands for a steady
            rate.
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
        return (
            self.requests_per_s == other.requests_per_s
            and self.dispersion == other.dispersion
            and self.slot_s == other.slot_s
            and same_array(self.path, other.path)
        )

    def __hash__(self) -> int:
        return hash((self.requests_per_s, self.dispersion, self.slot_s))

    @classmethod
    def observed(cls, counts: npt.ArrayLike, slot_s: float, requests_per_s: float | None = None) -> Arrivals:
        """Arrivals with the dispersion and path of counts in consecutive slots, at another mean rate if one is given.

        The dispersion is taken from the differences of consecutive counts (von Neumann 1941)::

            I = mean((n[i+1] - n[i])**2) / 2 / mean(n)

        so that a rate that changes over longer times does not inflate it; that is in the path.

        >>> Arrivals.observed([8, 12, 8, 12], slot_s=5)  # differences of 4 around a mean of 10
        Arrivals(requests_per_s=2.0, dispersion=0.8, slot_s=5, path=array([0.8, 1.2, 0.8, 1.2]))
        """
        counts = np.asarray(counts, float)
        mean = float(counts.mean()) if counts.size else 0.0
        rate = mean / slot_s if requests_per_s is None else requests_per_s
        if counts.size < 2 or mean == 0:
            return cls(rate, slot_s=slot_s)
        return cls(rate, float(np.mean(np.diff(counts) ** 2) / 2 / mean), slot_s, counts / mean)

    def path_dispersion(self) -> float:
        """Variance over mean of the counts of the slots, with the changes of the rate in it."""
        if not self.path.size:
            return self.dispersion
        return float(self.path.var() * self.requests_per_s * self.slot_s)
