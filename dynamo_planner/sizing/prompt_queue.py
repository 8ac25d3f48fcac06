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

MIN_SLACK_SHARE = 0.25
"""Where each replica has a queue of its own, prompts that leave less than this share of the time for waiting are not
paid for: hardly anything makes them in time."""

MAX_SPARE_ROOTS = 2.4
"""Where each replica has a queue of its own, long prompts hold up others however many replicas there are. No more are
asked for than the load and this many times the root of the load (square-root staffing; Halfin & Whitt 1981), times the
root of the squared coefficient of variation of the service, with which the waiting behind long prompts grows."""

MIN_SERVICE_CV2 = 0.5
"""The squared coefficient of variation counts as at least this much there."""


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
        least = 0.0 if self.routing == "least_loaded" else MIN_SLACK_SHARE * self.within_s
        slack_s = self.within_s - self.service_s
        paid = slack_s >= min(least, float(slack_s.max()))
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

    @property
    def most_replicas(self) -> int:
        """The count that attains all that can be had: where each replica has a queue of its own, the load and a spare
        that grows with its root."""
        if self.routing == "least_loaded":
            return most_replicas(self.load)
        spare = MAX_SPARE_ROOTS * math.sqrt(self.load * max(self._served.variation, MIN_SERVICE_CV2))
        return math.ceil(self.load + spare) + 1

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
        return smallest_count(self.attainable, attainment, math.floor(self.load) + 1, near, self.most_replicas)[0]

    def _late(self, replicas: Floats) -> Floats:
        """Shape (counts,): the share of the attainable prompts that are late, where ``replicas`` keep up."""
        arrivals, ways = self.arrivals, self._served.at(self.arrivals.requests_per_s / replicas)
        twice = np.tile(replicas, len(ways.mean_s) // len(replicas))
        late = late_shares(arrivals, twice, ways, (self.routing,), self._served.overhangs)
        return np.asarray(late.reshape(-1, len(replicas)).min(axis=0))
