"""One role sized: what prefill, decode and aggregated replicas have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import partial
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import Arrivals
from dynamo_planner.sizing.queueing import most_replicas, smallest_count


class Stage(ABC):
    """A role with everything settled but the arrivals: lengths, targets, profile and correction.

    Attributes:
        unattainable: share of requests (0 to 1) that miss a target with no other request beside them.
        extrapolated: whether nothing was measured where the replicas are to work.
        residence_s: mean seconds that a request stays on a replica as full as the targets allow.
    """

    unattainable: float
    extrapolated: bool
    residence_s: float

    @abstractmethod
    def load(self, arrivals: Arrivals) -> float:
        """The fractional requirement: replicas that would do if all were always as full as the targets allow."""

    @abstractmethod
    def attainable(self, arrivals: Arrivals, replicas: npt.ArrayLike) -> Floats:
        """The share of the attainable requests that meet the targets, for each replica count."""

    @abstractmethod
    def binding(self, arrivals: Arrivals, replicas: int) -> str:
        """The limit that most of the requests that miss one exceed: ``waiting``, ``itl`` or ``kv``."""

    def most_replicas(self, arrivals: Arrivals) -> int:
        """The replica count that attains all that can be had."""
        return most_replicas(self.load(arrivals))

    def replicas_for(self, arrivals: Arrivals, attainment: float, near: int | None = None) -> tuple[int, float, float]:
        """The smallest replica count that meets the attainment, the share that it attains, and the share that any count
        does (:func:`~dynamo_planner.sizing.queueing.smallest_count`).

        The search begins around ``near``. Where every request is unattainable, the count that keeps up.
        """
        busy = self.load(arrivals)
        least = math.floor(busy) + 1 if busy else 0
        if not least or self.unattainable == 1:
            return least, 1.0 - self.unattainable, 1.0
        return smallest_count(partial(self.attainable, arrivals), attainment, least, near, self.most_replicas(arrivals))


class BatchStage(Stage):
    """A stage whose requests share the steps of a replica, and miss a target where a batch exceeds a limit."""

    miss_factor: ClassVar[float]
    """The share of late requests is taken to be this many times what the formula says."""

    @property
    @abstractmethod
    def limit_names(self) -> tuple[str, ...]:
        """The limits, in the order of the rows of :meth:`missed`."""

    @abstractmethod
    def missed(self, arrivals: Arrivals, counts: Floats) -> Floats:
        """The share of requests that exceed each limit (rows), for each replica count (columns)."""

    def attainable(self, arrivals: Arrivals, replicas: npt.ArrayLike) -> Floats:
        counts = np.asarray(replicas, float)
        missed = self.missed(arrivals, counts.ravel()).sum(axis=0)
        return np.asarray(1 - np.minimum(self.miss_factor * missed, 1.0).reshape(counts.shape))

    def binding(self, arrivals: Arrivals, replicas: int) -> str:
        names = self.limit_names
        if len(names) == 1:
            return names[0]
        return names[int(self.missed(arrivals, np.array([float(replicas)]))[:, 0].argmax())]
