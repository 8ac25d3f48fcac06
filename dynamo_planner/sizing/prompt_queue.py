"""The queue of prompts in front of prefill replicas, one shared or one for each.

Replicas either compute one prompt after the other, or several in a step (:mod:`dynamo_planner.sizing.batching`), as the
queue makes them do. Each is asked by itself (:mod:`dynamo_planner.sizing.waiting`), and a count attains the better of
both.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import Arrivals
from dynamo_planner.sizing.batching import Batching, PromptService
from dynamo_planner.sizing.queueing import most_replicas, smallest_count
from dynamo_planner.sizing.waiting import Routing, late_shares


@dataclass(frozen=True)
class PrefillQueue:
    """A queue of prompts in front of replicas.

    Prompts that alone take longer than they may are :attr:`unattainable`. Replica counts are for the others, whose work
    the unattainable ones still add to.

    Args:
        arrivals: how prompts arrive.
        service_s: seconds that a prompt takes: a sample, or equally likely quantiles.
        within_s: seconds that a prompt may take, with its waiting.
        routing: which replica a prompt goes to. Default ``least_loaded``.
        batching: steps that several prompts share. Default None: a replica computes one prompt at a time.

    >>> PrefillQueue(Arrivals(20), np.array([0.1, 0.2, 0.3]), within_s=0.5).replicas_for(0.99)
    6
    >>> PrefillQueue(Arrivals(20), np.array([0.1, 0.2, 0.6]), within_s=0.5).unattainable.__round__(3)
    0.333
    """

    arrivals: Arrivals
    service_s: Floats
    within_s: float
    routing: Routing = "least_loaded"
    batching: Batching | None = field(default=None, repr=False, compare=False)
    unattainable: float = field(init=False, repr=False, compare=False)
    """The share of prompts that alone take longer than they may."""
    _served: PromptService = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.service_s.size or not np.all(np.isfinite(self.service_s)) or np.any(self.service_s <= 0):
            raise ValueError("service_s must be one or more finite times above 0")
        if not self.within_s > 0:
            raise ValueError(f"within_s must be above 0, got {self.within_s}")
        slack_s = self.within_s - self.service_s
        paid = slack_s >= min(0.0, float(slack_s.max()))
        object.__setattr__(self, "unattainable", float(np.mean(self.service_s > self.within_s)))
        object.__setattr__(self, "_served", PromptService(self.service_s, slack_s[paid], self.batching))

    def at(self, arrivals: Arrivals) -> PrefillQueue:
        """The same prompts under other arrivals, without working out anew what follows from the prompts."""
        other = copy.copy(self)
        object.__setattr__(other, "arrivals", arrivals)
        return other

    @property
    def load(self) -> float:
        """Replicas that are busy on average, with steps as full as the target allows."""
        mean_s = self._served.mean_s if self.batching is None else self.batching.least_s
        return self.arrivals.requests_per_s * mean_s

    def attainable(self, replicas: npt.ArrayLike) -> Floats:
        """The share of the attainable prompts that are in time, for each replica count."""
        counts = np.asarray(replicas)
        flat = counts.ravel().astype(float)
        attained = np.full(len(flat), float(self.load == 0))
        stable = flat > self.load
        if self.load and self.unattainable < 1 and stable.any():
            attained[stable] = 1 - self._late(flat[stable])
        return attained.reshape(counts.shape)

    def replicas_for(self, attainment: float, near: int | None = None) -> int:
        """The smallest replica count with which this share of the attainable prompts is in time; the search begins
        around ``near``. 0 where there is no load, or every prompt is unattainable."""
        if self.load == 0 or self.unattainable == 1:
            return 0
        return smallest_count(self.attainable, attainment, math.floor(self.load) + 1, near, most_replicas(self.load))[0]

    def _late(self, replicas: Floats) -> Floats:
        """Shape (counts,): the share of the attainable prompts that are late, where ``replicas`` keep up."""
        arrivals, ways = self.arrivals, self._served.at(self.arrivals.requests_per_s / replicas)
        each_way = np.concatenate([replicas] * (len(ways.mean_s) // len(replicas)))
        late = late_shares(arrivals, each_way, ways, (self.routing,), self._served.shape)
        return np.asarray(late.reshape(-1, len(replicas)).min(axis=0))
