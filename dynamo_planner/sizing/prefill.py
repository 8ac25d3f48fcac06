"""How many prefill replicas keep the waiting short enough: a queue in front of servers that take one prompt at a time.

What makes requests late has two parts. Over times longer than a slot of the arrivals' path, the path itself says how
far the replicas fall behind (Lindley's recursion for a fluid). Over shorter times, the tail of the wait is that of the
G/G/m queue in large-deviation form (Choe and Shroff 1998; with a constant dispersion and no end of time it is the
exponential of Allen and Cunneen, ``exp(-2 m (1 - rho) t / (s (c_a^2 + c_s^2)))``), times the share that waits at all:
Erlang C for peaked traffic by Hayward's approximation (Fredericks 1980), which divides servers and load by the
peakedness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.arrivals import LEAST_DISPERSION, Arrivals
from dynamo_planner.sizing.queueing import Floats, erlang_c

CAUTION = 1.6
"""The share of late requests is taken to be so many times what the formula says; fitted once, to keep the count from
being one too low more often than in one case of twenty."""

_BUDGETS = 12


@dataclass(frozen=True)
class PrefillQueue:
    """Prompts that take ``service_s`` seconds each (a sample, or equally likely quantiles) and may take ``within_s``.

    Prompts that alone take longer than that can never be in time: :attr:`hopeless` is their share, and the counts are
    for the others, whose work they still add to.
    """

    arrivals: Arrivals
    service_s: Floats
    within_s: float

    def __post_init__(self) -> None:
        if not self.service_s.size or not np.all(np.isfinite(self.service_s)) or np.any(self.service_s <= 0):
            raise ValueError("service_s must be one or more finite times above 0")
        if not self.within_s > 0:
            raise ValueError(f"within_s must be above 0, got {self.within_s}")

    @property
    def load(self) -> float:
        """Replicas that are busy on average."""
        return self.arrivals.requests_per_s * float(self.service_s.mean())

    @property
    def hopeless(self) -> float:
        """The share of prompts that alone take longer than they may."""
        return float(np.mean(self.service_s > self.within_s))

    def attainable(self, replicas: npt.ArrayLike) -> Floats:
        """The share of the prompts with a chance that are in time, for each number of replicas."""
        counts = np.asarray(replicas)
        return np.array([1 - self._late(float(count)) for count in counts.ravel()]).reshape(counts.shape)

    def replicas_for(self, attainment: float, most: int = 100_000) -> int:
        """The fewest replicas with which at least this share of the prompts with a chance is in time."""
        if self.load == 0 or self.hopeless == 1:
            return 0
        low = math.floor(self.load)  # too few, always
        high = low + 1
        while high < most and 1 - self._late(high) < attainment:
            low, high = high, min(most, 2 * high - math.floor(self.load))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if 1 - self._late(middle) >= attainment else (middle, high)
        return high

    def _late(self, replicas: float) -> float:
        if replicas <= self.load:
            return 1.0 if self.load else 0.0
        slack = self.within_s - self.service_s[self.service_s <= self.within_s]
        budgets = np.quantile(slack, (np.arange(_BUDGETS) + 0.5) / _BUDGETS)
        behind, weight = self._behind(replicas)
        left = budgets - behind[:, None]
        late = np.where(left < 0, 1.0, self._waits_longer(replicas, np.maximum(left, 0))).mean(axis=1)
        return min(1.0, CAUTION * float(late @ weight))

    def _variation(self) -> float:
        mean = float(self.service_s.mean())
        return float(self.service_s.var()) / mean**2

    def _behind(self, replicas: float) -> tuple[Floats, Floats]:
        """By how many seconds the replicas are behind, at the ends of each slot of the path, and shares of requests.

        The path carries the arrivals' variation but not that of the service, which widens it.
        """
        arrivals = self.arrivals
        if not arrivals.path.size:
            return np.zeros(1), np.ones(1)
        dispersion = max(arrivals.path_dispersion(), LEAST_DISPERSION)
        widened = math.sqrt(1 + self._variation() / dispersion)
        excess = (self.load * (1 + widened * (arrivals.path - 1)) - replicas) * arrivals.slot_s
        level = np.concatenate([[0.0], np.cumsum(excess)])
        backlog = level - np.minimum.accumulate(level)
        weight = np.concatenate([arrivals.path, arrivals.path])
        return np.concatenate([backlog[:-1], backlog[1:]]) / replicas, weight / weight.sum()

    def _waits_longer(self, replicas: float, than_s: Floats) -> Floats:
        arrivals, mean_s = self.arrivals, float(self.service_s.mean())
        dispersion = max(arrivals.dispersion, LEAST_DISPERSION)
        peakedness = max(1 + (dispersion - 1) / 2, 0.3)
        waits = erlang_c(replicas / peakedness, self.load / peakedness)
        spare = replicas - self.load
        over_s = replicas * than_s / spare
        if arrivals.path.size:
            over_s = np.minimum(over_s, arrivals.slot_s)
        over_s = over_s + 1e-12
        variance = arrivals.requests_per_s * over_s * mean_s**2 * (dispersion + self._variation())
        return waits * np.exp(-np.minimum((replicas * than_s + spare * over_s) ** 2 / (2 * variance), 700.0))
