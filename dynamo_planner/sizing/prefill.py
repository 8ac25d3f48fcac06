"""Prefill sizing: P(TTFT > target) from a queue in front of replicas that compute one prompt at a time.

::

    P(late)     = miss_factor * E[P(W > budget - behind)]
    P(W > t)    = C exp(-(m t + (m - a) u)**2 / (2 l u s**2 (I + c**2)))      u = m t / (m - a), at most a slot
    C           = ErlangC(m / z, a / z)                                       z = 1 + (I - 1) / 2, at least 0.3

======  ==================================================================================================
symbol  meaning
======  ==================================================================================================
W       waiting time before prefill, in s; ``budget`` is what a prompt's own service leaves of the target
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
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from dynamo_planner.core.snapshot import Sla
from dynamo_planner.profiles import PrefillCurve
from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import MIN_DISPERSION, Arrivals
from dynamo_planner.sizing.load import Load
from dynamo_planner.sizing.queueing import MAX_EXPONENT, MAX_REPLICAS, erlang_c, smallest_count
from dynamo_planner.sizing.stage import Stage

SHARED_QUEUE_MISS_FACTOR = 1.6
"""The share of late requests over what the formula says; fitted once, to keep the count from being one too low more
often than in one case of twenty."""

OWN_QUEUE_MISS_FACTOR = 4.0
"""The same where each replica has a queue of its own."""

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

WAIT_BUDGETS = 12
"""Size of the sample of times that prompts may wait."""

LAG_LEVELS = 32
"""Bins of how far replicas lag, and of service times."""

MIN_SERVICE_S = 1e-6
"""Shortest service time, in seconds."""

FINE_LENGTHS = 256
"""Lengths in a sample that has to show the rare longest prompts."""


class _Served:
    """What follows from the prompts alone."""

    def __init__(self, service_s: Floats, within_s: float, routing: Routing) -> None:
        self.mean_s = float(service_s.mean())
        self.variation = float(service_s.var()) / self.mean_s**2
        self.unattainable = float(np.mean(service_s > within_s))
        slack = within_s - service_s
        least = 0.0 if routing == "least_loaded" else MIN_SLACK_SHARE * within_s
        slack = np.sort(slack[slack >= min(least, slack.max())])
        self.budgets_s: Floats = slack[((np.arange(WAIT_BUDGETS) + 0.5) / WAIT_BUDGETS * len(slack)).astype(np.intp)]
        """How long attainable prompts may wait: a sample."""
        self._service_s = service_s

    @cached_property
    def overhangs(self) -> tuple[Floats, Floats]:
        """Times up to the longest service, and by how much the service exceeds each on average."""
        times = np.linspace(0.0, float(self._service_s.max()), LAG_LEVELS)
        return times, np.maximum(self._service_s - times[:, None], 0.0).mean(axis=1)


@dataclass(frozen=True)
class PrefillQueue:
    """A queue of prompts in front of replicas that compute one at a time.

    Prompts that alone take longer than they may are :attr:`unattainable`. Replica counts are for the others, whose work
    the unattainable ones still add to.

    Args:
        arrivals: how prompts arrive.
        service_s: seconds that a prompt takes: a sample, or equally likely quantiles.
        within_s: seconds that a prompt may take, with its waiting.
        routing: which replica a prompt goes to. Default ``least_loaded``.

    >>> PrefillQueue(Arrivals(20), np.array([0.1, 0.2, 0.3]), within_s=0.5).replicas_for(0.99)
    6
    >>> PrefillQueue(Arrivals(20), np.array([0.1, 0.2, 0.6]), within_s=0.5).unattainable.__round__(3)
    0.333
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
        """The same prompts under other arrivals, without working out anew what follows from the prompts."""
        other = copy.copy(self)
        object.__setattr__(other, "arrivals", arrivals)
        return other

    @property
    def load(self) -> float:
        """Replicas that are busy on average."""
        return self.arrivals.requests_per_s * self._served.mean_s

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
        behind, weight = self._behind(replicas)
        left = self._served.budgets_s - behind[:, None]
        factor = SHARED_QUEUE_MISS_FACTOR if self.routing == "least_loaded" else OWN_QUEUE_MISS_FACTOR
        late = np.where(left < 0, 1.0, self._waits_longer(replicas[:, None, None], np.maximum(left, 0)))
        return np.asarray(np.minimum(1.0, factor * (late.mean(axis=2) * weight).sum(axis=1)))

    def _behind(self, replicas: Floats) -> tuple[Floats, Floats]:
        """By how many seconds the replicas may lag, shape (levels,), and at the ends of the slots of the path the
        shares of requests that find that, shape (counts, levels).

        The path carries the arrivals' variation but not that of the service, which widens it.
        """
        arrivals = self.arrivals
        if not arrivals.path.size:
            return np.zeros(1), np.ones((len(replicas), 1))
        dispersion = max(arrivals.path_dispersion(), MIN_DISPERSION)
        widened = math.sqrt(1 + self._served.variation / dispersion)
        work = self.load * (1 + widened * (arrivals.path - 1))
        level = np.zeros((len(replicas), len(work) + 1))
        np.cumsum((work - replicas[:, None]) * arrivals.slot_s, axis=1, out=level[:, 1:])
        backlog = (level - np.minimum.accumulate(level, axis=1)) / replicas[:, None]
        step = max(float(self._served.budgets_s[-1]), 1e-9) / LAG_LEVELS
        bins = np.minimum(backlog / step + 0.5, LAG_LEVELS + 1).astype(np.intp)
        bins += np.arange(len(replicas))[:, None] * (LAG_LEVELS + 2)
        shape, size = (len(replicas), LAG_LEVELS + 2), len(replicas) * (LAG_LEVELS + 2)
        path = np.broadcast_to(arrivals.path, (len(replicas), len(work))).ravel()
        weight = np.bincount(bins[:, :-1].ravel(), path, size) + np.bincount(bins[:, 1:].ravel(), path, size)
        levels: Floats = step * np.arange(LAG_LEVELS + 2.0)
        return levels, weight.reshape(shape) / weight.sum() * len(replicas)

    def _waits_longer(self, replicas: Floats, than_s: Floats) -> Floats:
        arrivals = self.arrivals
        dispersion: float | Floats = max(arrivals.dispersion, MIN_DISPERSION)
        queues: float | Floats = 1.0
        if self.routing == "round_robin":  # every n-th request
            queues, dispersion = replicas, np.maximum(dispersion / replicas, MIN_DISPERSION)
        elif self.routing == "random":
            queues, dispersion = replicas, 1 + (dispersion - 1) / replicas
        servers, load, rate = replicas / queues, self.load / queues, arrivals.requests_per_s / queues
        peakedness = np.maximum(1 + (dispersion - 1) / 2, MIN_PEAKEDNESS)
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
        waits = waits * np.exp(-np.minimum(exponent, MAX_EXPONENT))
        if self.routing != "least_loaded":
            # A single long prompt makes those behind it late by itself.
            overhang_s = np.interp(than_s, *self._served.overhangs)
            waits = np.minimum(waits + rate * overhang_s / np.maximum(1 - load, MIN_IDLE_SHARE), 1.0)
        return np.asarray(waits)


class PrefillStage(Stage):
    """Prompts with the service times of a profile, under a TTFT target.

    Args:
        curve: TTFT over ISL of a prompt that does not wait.
        load: lengths, prefix hit rate and KV transfer.
        sla: the targets.
        factor: how much longer prompts take than the profile says. Default 1.
        routing: which replica a prompt goes to. Default ``least_loaded``.
    """

    def __init__(
        self, curve: PrefillCurve, load: Load, sla: Sla, factor: float = 1.0, routing: Routing = "least_loaded"
    ) -> None:
        # With a queue for each replica, what is late is late behind the longest prompts, however rare they are.
        tokens = load.computed.values if routing == "least_loaded" else load.computed.finer(FINE_LENGTHS)
        service_s = np.maximum(curve.ttft_ms(tokens) * (factor / 1000), MIN_SERVICE_S)
        within_s = (sla.ttft_ms - load.kv_transfer_ms) / 1000
        self._ranks = curve.points.ranks  # each is a server of its own
        self.extrapolated = bool(curve.extrapolated(np.array([load.computed.mean]))[0])
        self.unattainable = float(np.mean(service_s > within_s))
        self._queue = PrefillQueue(Arrivals(0.0), service_s, max(within_s, MIN_SERVICE_S), routing)

    def load(self, arrivals: Arrivals) -> float:
        return self._queue.at(arrivals).load / self._ranks

    def attainable(self, arrivals: Arrivals, replicas: npt.ArrayLike) -> Floats:
        if self.unattainable == 1:
            return np.zeros(np.shape(replicas))
        return self._queue.at(arrivals).attainable(np.asarray(replicas) * self._ranks)

    def binding(self, arrivals: Arrivals, replicas: int) -> str:
        return "waiting"

    def most_replicas(self, arrivals: Arrivals) -> int:
        return math.ceil(self._queue.at(arrivals).most_replicas / self._ranks)
