"""The queue of prompts in front of prefill replicas, one shared or one for each: P(TTFT > target).

::

    P(late)     = E[P(W > left) + (-left / S)+]             left = budget - ahead - behind, at most 1
    P(W > t)    = C exp(-(m t + (m - a) u)**2 / (2 l u s**2 (I + c**2)))      u = m t / (m - a), at most a slot
    C           = ErlangC(m / z, a / z)                                       z = 1 + (I - 1) / 2, at least 0.3

======  ==================================================================================================
symbol  meaning
======  ==================================================================================================
W       waiting time before prefill, in s; ``budget`` is what a prompt's own service leaves of the target
ahead   seconds that go before a prompt whatever the queue, where steps are shared
S       seconds that a step takes: what is left of the one under way when a prompt comes is anything from 0 to this
behind  seconds by which replicas lag, by the arrivals' path over its slots (Lindley's recursion for a fluid)
m       replicas
l       arrivals per second
s       mean service time in s; ``c**2`` its squared coefficient of variation
a       load in busy replicas, ``l s``
I       dispersion of the arrivals (variance over mean of their counts), at least 0.05
C       share of prompts that wait at all: Erlang C for peaked traffic by Hayward's approximation (Fredericks 1980)
z       peakedness; 0.3 stands for regular arrivals, for which the approximation fails
======  ==================================================================================================

The exponent is the tail of the G/G/m queue in large-deviation form (Choe and Shroff 1998). Near full utilisation, with
slots of any length, it is Allen and Cunneen's ``exp(-2 m (1 - rho) t / (s (I + c**2)))``.

Replicas either compute one prompt after the other, or several in a step (:mod:`dynamo_planner.sizing.batching`), as the
queue makes them do. Each is asked by itself, and a count attains the better of both.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import MIN_DISPERSION, Arrivals
from dynamo_planner.sizing.batching import Batching, Service
from dynamo_planner.sizing.queueing import MAX_EXPONENT, MAX_REPLICAS, erlang_c, smallest_count

OWN_QUEUE_MISS_FACTOR = 4.0
"""The share of late requests over what the formula says, where each replica has a queue of its own. Fitted once."""

Routing = Literal["least_loaded", "round_robin", "random"]
"""Which replica a request goes to. With ``least_loaded`` none waits while another is idle, nearly, so that there is one
queue; with the others each replica has a queue of its own, and a long prompt holds up those behind it."""

MIN_SLACK_SHARE = 0.25
"""Where each replica has a queue of its own, prompts that leave less than this share of the time for waiting are not
paid for: hardly anything makes them in time."""

MAX_SPARE_ROOTS = 2.4
"""Where each replica has a queue of its own, long prompts hold up others however many replicas there are. No more are
asked for than the load and this many times the root of the load (square-root staffing; Halfin & Whitt 1981), times the
root of the squared coefficient of variation of the service, with which the waiting behind long prompts grows."""

MIN_SERVICE_CV2 = 0.5
"""The squared coefficient of variation counts as at least this much there."""

MIN_PEAKEDNESS = 0.3
"""Peakedness below which Hayward's approximation is not used."""

MIN_IDLE_SHARE = 1e-3
"""Share of a replica's time that is free, at least, where waiting behind long prompts is divided by it."""

_EDGES = np.array([0, 0.005, 0.015, 0.03, 0.06, 0.1, 0.16, 0.24, 0.34, 0.46, 0.62, 0.8, 1])
_SHARES, _PLACES = np.diff(_EDGES), (_EDGES[1:] + _EDGES[:-1]) / 2
"""A sample of the times that prompts may wait, finer where they are short."""

MIN_STEP_S = 1e-9
"""Length of a step where no steps are shared, in seconds: a prompt is late as soon as nothing is left."""

LAG_LEVELS = 32
"""Bins of how far replicas lag, and of service times."""


class _Served:
    """What follows from the prompts alone."""

    def __init__(self, service_s: Floats, within_s: float, routing: Routing) -> None:
        self.mean_s = float(service_s.mean())
        self.variation = float(service_s.var()) / self.mean_s**2
        self.unattainable = float(np.mean(service_s > within_s))
        slack = within_s - service_s
        least = 0.0 if routing == "least_loaded" else MIN_SLACK_SHARE * within_s
        slack = np.sort(slack[slack >= min(least, slack.max())])
        self.budgets_s: Floats = slack[(_PLACES * len(slack)).astype(np.intp)]
        """How long attainable prompts may wait: a sample, of which each stands for its share of ``_SHARES``."""
        self._service_s = service_s

    @cached_property
    def overhangs(self) -> tuple[Floats, Floats]:
        """Times up to the longest service, and by how much the service exceeds each on average."""
        times = np.linspace(0.0, float(self._service_s.max()), LAG_LEVELS)
        return times, np.maximum(self._service_s - times[:, None], 0.0).mean(axis=1)


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
    _served: _Served = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.service_s.size or not np.all(np.isfinite(self.service_s)) or np.any(self.service_s <= 0):
            raise ValueError("service_s must be one or more finite times above 0")
        if not self.within_s > 0:
            raise ValueError(f"within_s must be above 0, got {self.within_s}")
        object.__setattr__(self, "_served", _Served(self.service_s, self.within_s, self.routing))

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
    def unattainable(self) -> float:
        """The share of prompts that alone take longer than they may."""
        return self._served.unattainable

    @property
    def most_replicas(self) -> int:
        """The upper limit of the search: where each replica has a queue of its own, the load and a spare that grows
        with its root."""
        if self.routing == "least_loaded":
            return MAX_REPLICAS
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
        rate, ones = self.arrivals.requests_per_s, np.ones(len(replicas))
        service = Service(self._served.mean_s * ones, self._served.variation * ones, 0 * ones, MIN_STEP_S * ones)
        if self.batching is None:
            return self._missed(replicas, service)
        both = [np.concatenate(pair) for pair in zip(service, self.batching.at(rate / replicas), strict=True)]
        twice = np.tile(replicas, 2)
        keep_up = twice > rate * both[0]
        late = np.ones(len(twice))
        late[keep_up] = self._missed(twice[keep_up], Service(*[field[keep_up] for field in both]))
        return np.asarray(late.reshape(2, -1).min(axis=0))

    def _missed(self, replicas: Floats, service: Service) -> Floats:
        """Shape (counts,): the share of prompts that are late under this service."""
        behind, weight = self._behind(replicas, service)
        left = (self._served.budgets_s - service.ahead_s[:, None])[:, None, :] - behind[:, None]
        late = self._waits_longer(replicas, service, np.maximum(left, 0))
        late = np.minimum(late + np.maximum(-left / service.step_s[:, None, None], 0.0), 1.0)
        factor = 1.0 if self.routing == "least_loaded" else OWN_QUEUE_MISS_FACTOR
        return np.asarray(np.minimum(1.0, factor * ((late @ _SHARES) * weight).sum(axis=1)))

    def _behind(self, replicas: Floats, service: Service) -> tuple[Floats, Floats]:
        """By how many seconds the replicas may lag, shape (levels,), and at the ends of the slots of the path the
        shares of requests that find that, shape (counts, levels).

        The path carries the arrivals' variation but not that of the service, which widens it.
        """
        arrivals = self.arrivals
        if not arrivals.path.size:
            return np.zeros(1), np.ones((len(replicas), 1))
        dispersion = max(arrivals.path_dispersion(), MIN_DISPERSION)
        widened = np.sqrt(1 + service.variation / dispersion)[:, None]
        work = (arrivals.requests_per_s * service.mean_s)[:, None] * (1 + widened * (arrivals.path - 1))
        level = np.zeros((len(replicas), arrivals.path.size + 1))
        np.cumsum((work - replicas[:, None]) * arrivals.slot_s, axis=1, out=level[:, 1:])
        backlog = (level - np.minimum.accumulate(level, axis=1)) / replicas[:, None]
        step = max(float(self._served.budgets_s[-1]), 1e-9) / LAG_LEVELS
        bins = np.minimum(backlog / step + 0.5, LAG_LEVELS + 1).astype(np.intp)
        bins += np.arange(len(replicas))[:, None] * (LAG_LEVELS + 2)
        shape, size = (len(replicas), LAG_LEVELS + 2), len(replicas) * (LAG_LEVELS + 2)
        path = np.broadcast_to(arrivals.path, work.shape).ravel()
        weight = np.bincount(bins[:, :-1].ravel(), path, size) + np.bincount(bins[:, 1:].ravel(), path, size)
        levels: Floats = step * np.arange(LAG_LEVELS + 2.0)
        return levels, weight.reshape(shape) / weight.sum() * len(replicas)

    def _waits_longer(self, replicas: Floats, service: Service, than_s: Floats) -> Floats:
        """Shape (counts, levels, budgets): the share of prompts that wait for longer than this."""
        arrivals, replicas = self.arrivals, replicas[:, None, None]
        mean_s, variation = service.mean_s[:, None, None], service.variation[:, None, None]
        dispersion: float | Floats = max(arrivals.dispersion, MIN_DISPERSION)
        queues: float | Floats = 1.0
        if self.routing == "round_robin":  # every n-th request
            queues, dispersion = replicas, np.maximum(dispersion / replicas, MIN_DISPERSION)
        elif self.routing == "random":
            queues, dispersion = replicas, 1 + (dispersion - 1) / replicas
        rate = arrivals.requests_per_s / queues
        servers, load = replicas / queues, rate * mean_s
        peakedness = np.maximum(1 + (dispersion - 1) / 2, MIN_PEAKEDNESS)
        waits = erlang_c(servers / peakedness, load / peakedness)
        spare = servers - load
        over_s = np.minimum(servers * than_s / np.maximum(spare, 1e-12), 1e9)
        if arrivals.path.size and self.routing == "least_loaded":
            # Longer stretches are in the path. Of replicas with queues of their own, the prompts of each are not: they
            # vary by themselves.
            over_s = np.minimum(over_s, arrivals.slot_s)
        over_s = over_s + 1e-12
        variance = rate * over_s * mean_s**2 * (dispersion + variation)
        exponent = (servers * than_s + spare * over_s) ** 2 / (2 * variance)
        waits = waits * np.exp(-np.minimum(exponent, MAX_EXPONENT))
        if self.routing != "least_loaded":
            # A single long prompt makes those behind it late by itself.
            overhang_s = np.interp(than_s, *self._served.overhangs)
            waits = np.minimum(waits + rate * overhang_s / np.maximum(1 - load, MIN_IDLE_SHARE), 1.0)
        return np.asarray(waits)
