"""How many prefill replicas keep the waiting short enough: a queue in front of servers that take one prompt at a time.

What makes requests late has two parts. Over times longer than a slot of the arrivals' path, the path itself says how
far the replicas fall behind (Lindley's recursion for a fluid). Over shorter times, the tail of the wait is that of the
G/G/m queue in large-deviation form (Choe and Shroff 1998; with a constant dispersion and no end of time it is the
exponential of Allen and Cunneen, ``exp(-2 m (1 - rho) t / (s (c_a^2 + c_s^2)))``), times the share that waits at all:
Erlang C for peaked traffic by Hayward's approximation (Fredericks 1980), which divides servers and load by the
peakedness.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.arrivals import LEAST_DISPERSION, Arrivals
from dynamo_planner.sizing.queueing import Floats, erlang_c
from dynamo_planner.sizing.search import MOST, fewest

CAUTION = 1.6
"""The share of late requests is taken to be so many times what the formula says; fitted once, to keep the count from
being one too low more often than in one case of twenty."""

OWN_QUEUE_CAUTION = 4.0
"""The same where each replica has a queue of its own."""

Routing = Literal["least_loaded", "round_robin", "random"]
"""Which replica a request goes to. With ``least_loaded`` none waits while another is idle, nearly, so that there is one
queue; with the others each replica has a queue of its own, and a long prompt holds up those behind it."""

LEAST_SLACK = 0.25
"""Where each replica has a queue of its own, prompts that leave less than this share of the time for waiting are not
paid for: hardly anything makes them in time."""

MOST_SPARE = 2.4
"""Where each replica has a queue of its own, long prompts hold up others however many replicas there are. More than the
load and so many times its root are not asked for (square-root staffing; Halfin & Whitt 1981), times the squared
coefficient of variation of the service, with which the waiting behind long prompts grows."""

_BUDGETS, _LEVELS = 12, 32


class _Served:
    """What follows from the prompts alone."""

    def __init__(self, service_s: Floats, within_s: float, routing: Routing) -> None:
        self.mean_s = float(service_s.mean())
        self.variation = float(service_s.var()) / self.mean_s**2
        self.hopeless = float(np.mean(service_s > within_s))
        slack = within_s - service_s
        least = 0.0 if routing == "least_loaded" else LEAST_SLACK * within_s
        slack = np.sort(slack[slack >= min(least, slack.max())])
        self.budgets_s: Floats = slack[((np.arange(_BUDGETS) + 0.5) / _BUDGETS * len(slack)).astype(np.intp)]
        """How long prompts with a chance may wait: a sample."""
        self._service_s = service_s

    @cached_property
    def overhangs(self) -> tuple[Floats, Floats]:
        """Times up to the longest service, and by how much the service exceeds each on average."""
        times = np.linspace(0.0, float(self._service_s.max()), _LEVELS)
        return times, np.maximum(self._service_s - times[:, None], 0.0).mean(axis=1)


@dataclass(frozen=True)
class PrefillQueue:
    """Prompts that take ``service_s`` seconds each (a sample, or equally likely quantiles) and may take ``within_s``.

    Prompts that alone take longer than that can never be in time: :attr:`hopeless` is their share, and the counts are
    for the others, whose work they still add to.
    """

    arrivals: Arrivals
    service_s: Floats
    within_s: float
    routing: Routing = "least_loaded"
    _served: _Served = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.service_s.size or not np.all(np.isfinite(self.service_s)) or np.any(self.service_s <= 0):
            raise ValueError("service_s must be one or more finite times above 0")
        if not self.within_s > 0:
            raise ValueError(f"within_s must be above 0, got {self.within_s}")
        object.__setattr__(self, "_served", _Served(self.service_s, self.within_s, self.routing))

    def at(self, arrivals: Arrivals) -> PrefillQueue:
        """The same prompts, arriving otherwise; what was worked out of the prompts is kept."""
        other = copy.copy(self)
        object.__setattr__(other, "arrivals", arrivals)
        return other

    @property
    def load(self) -> float:
        """Replicas that are busy on average."""
        return self.arrivals.requests_per_s * self._served.mean_s

    @property
    def hopeless(self) -> float:
        """The share of prompts that alone take longer than they may."""
        return self._served.hopeless

    def attainable(self, replicas: npt.ArrayLike) -> Floats:
        """The share of the prompts with a chance that are in time, for each number of replicas."""
        counts = np.asarray(replicas)
        flat = counts.ravel().astype(float)
        attained = np.full(len(flat), float(self.load == 0))
        stable = flat > self.load
        if self.load and self.hopeless < 1 and stable.any():
            attained[stable] = 1 - self._late(flat[stable])
        return attained.reshape(counts.shape)

    def replicas_for(self, attainment: float, near: int | None = None) -> int:
        """The fewest replicas with which at least this share of the prompts with a chance is in time; they are looked
        for around ``near`` first."""
        return self.sized(attainment, near)[0]

    def sized(self, attainment: float, near: int | None = None) -> tuple[int, float]:
        """The same, and the share that they attain."""
        if self.load == 0 or self.hopeless == 1:
            return 0, 1 - self.hopeless
        most = self._most()
        return fewest(self.attainable, attainment, math.floor(self.load) + 1, near, most)

    def _most(self) -> int:
        if self.routing == "least_loaded":
            return MOST
        return math.ceil(self.load + MOST_SPARE * math.sqrt(self.load * max(self._served.variation, 0.5))) + 1

    def _late(self, replicas: Floats) -> Floats:
        """Shape (counts,): the share of the prompts with a chance that are late, where ``replicas`` keep up."""
        behind, weight = self._behind(replicas)
        left = self._served.budgets_s - behind[:, None]
        caution = CAUTION if self.routing == "least_loaded" else OWN_QUEUE_CAUTION
        late = np.where(left < 0, 1.0, self._waits_longer(replicas[:, None, None], np.maximum(left, 0)))
        return np.asarray(np.minimum(1.0, caution * (late.mean(axis=2) * weight).sum(axis=1)))

    def _behind(self, replicas: Floats) -> tuple[Floats, Floats]:
        """By how many seconds the replicas may be behind, shape (levels,), and at the ends of the slots of the path the
        shares of requests that see that, shape (counts, levels).

        The path carries the arrivals' variation but not that of the service, which widens it.
        """
        arrivals = self.arrivals
        if not arrivals.path.size:
            return np.zeros(1), np.ones((len(replicas), 1))
        dispersion = max(arrivals.path_dispersion(), LEAST_DISPERSION)
        widened = math.sqrt(1 + self._served.variation / dispersion)
        work = self.load * (1 + widened * (arrivals.path - 1))
        level = np.zeros((len(replicas), len(work) + 1))
        np.cumsum((work - replicas[:, None]) * arrivals.slot_s, axis=1, out=level[:, 1:])
        backlog = (level - np.minimum.accumulate(level, axis=1)) / replicas[:, None]
        step = max(float(self._served.budgets_s[-1]), 1e-9) / _LEVELS
        bins = np.minimum(backlog / step + 0.5, _LEVELS + 1).astype(np.intp)
        bins += np.arange(len(replicas))[:, None] * (_LEVELS + 2)
        shape, size = (len(replicas), _LEVELS + 2), len(replicas) * (_LEVELS + 2)
        path = np.broadcast_to(arrivals.path, (len(replicas), len(work))).ravel()
        weight = np.bincount(bins[:, :-1].ravel(), path, size) + np.bincount(bins[:, 1:].ravel(), path, size)
        levels: Floats = step * np.arange(_LEVELS + 2.0)
        return levels, weight.reshape(shape) / weight.sum() * len(replicas)

    def _waits_longer(self, replicas: Floats, than_s: Floats) -> Floats:
        arrivals = self.arrivals
        dispersion: float | Floats = max(arrivals.dispersion, LEAST_DISPERSION)
        queues: float | Floats = 1.0
        if self.routing == "round_robin":  # every n-th request
            queues, dispersion = replicas, np.maximum(dispersion / replicas, LEAST_DISPERSION)
        elif self.routing == "random":
            queues, dispersion = replicas, 1 + (dispersion - 1) / replicas
        servers, load, rate = replicas / queues, self.load / queues, arrivals.requests_per_s / queues
        peakedness = np.maximum(1 + (dispersion - 1) / 2, 0.3)
        waits = erlang_c(servers / peakedness, load / peakedness)
        spare = servers - load
        over_s = np.minimum(servers * than_s / np.maximum(spare, 1e-12), 1e9)
        if arrivals.path.size and self.routing == "least_loaded":
            # Longer stretches are in the path. Of replicas with queues of their own, the prompts of each are not: they
            # vary by themselves.
            over_s = np.minimum(over_s, arrivals.slot_s)
        over_s = over_s + 1e-12
        variance = rate * over_s * self._served.mean_s**2 * (dispersion + self._served.variation)
        exponent = (servers * than_s + spare * over_s) ** 2 / (2 * variance)
        waits = waits * np.exp(-np.minimum(exponent, 700.0))
        if self.routing != "least_loaded":
            # A single long prompt makes those behind it late by itself.
            overhang_s = np.interp(than_s, *self._served.overhangs)
            waits = np.minimum(waits + rate * overhang_s / np.maximum(1 - load, 1e-3), 1.0)
        return np.asarray(waits)
