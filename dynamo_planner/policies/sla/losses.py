"""Lost replicas: crashes and preemptions that were seen, and the spare replicas that they make worth having.

A replica that is lost is away for as long as a start takes, and what waits meanwhile is late until it is drained. How
often that happens is known from few losses, so that the number away has a negative binomial distribution, the Poisson
one with an uncertain rate (a gamma distribution)::

    P(away = k) = (k + s - 1 over k) q**s (1 - q)**k,   q = X / (X + n t)

======  ==============================================================================================================
``n``   replicas of the pool
``t``   seconds for which a loss is felt: a start, and the drain after it
``s``   losses of the pool that were seen, and the weight of what is known without them
``X``   replica-seconds in which they were seen, and the same of what is known without them
======  ==============================================================================================================

What is known without them is the rate of the other pools of the service, which counts as one loss: ``s`` grows by 1 and
``X`` by one over that rate. So a pool that never lost a replica has a spare where the pools beside it lose theirs.
Without other pools it is half a loss (the prior of Jeffreys). Where no pool lost any there are no spares.

Replicas that go at once, as when a zone fails, are one loss of that many: with sizes ``b`` there are
``(sum b)**2 / sum b**2`` losses of ``sum b**2 / sum b`` replicas. The spares are the fewest that cover what is away but
for the share of the time that may be missed.

With 3 lost in 8 hours of one replica, 8 replicas and 60 s, ``q = 28,800 / 29,280`` and ``s = 3.5``: one or more are
away for 5.6 % of the time, and two or more for 0.2 %. Where 0.5 % may be missed, that is one spare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.forecasting.experts.base import decayed

LOSSES_HALF_LIFE_S = 21_600.0
"""Losses that were seen keep half their weight over this time, in seconds."""

MAX_SPARES = 8
"""The most spares of a pool."""

FEW_LOSSES = 0.5
"""The losses that are added to those that were seen of a rate, by the prior of Jeffreys: few are seen by chance."""


class LossRate(NamedTuple):
    """How often some pools lost replicas: ``times`` in ``exposed_s`` replica-seconds."""

    times: float = 0.0
    exposed_s: float = 0.0


class Losses(NamedTuple):
    """The replicas of a pool that were lost.

    Args:
        at_s: When they were last looked at, in Unix seconds.
        ready: The ready replicas then.
        leaving: The replicas then that were not to stay: those that drained, and the ready ones beyond the target.
        target: The target then.
        lost: Replicas that were lost, fading.
        exposed_s: Seconds that replicas were ready, added up over them and fading alike.
        squares: The squares of how many were lost at once, added up and fading alike.
    """

    at_s: float
    ready: int
    leaving: int
    target: int
    lost: float = 0.0
    exposed_s: float = 0.0
    squares: float = 0.0

    @property
    def size(self) -> float:
        """How many replicas are lost at once; 1 before any were."""
        return max(self.squares / self.lost, 1.0) if self.lost > 0 else 1.0

    @property
    def rate(self) -> LossRate:
        """How often that was."""
        return LossRate(self.lost / self.size, self.exposed_s)


def together(rates: Iterable[LossRate]) -> LossRate:
    """How often replicas were lost in several pools."""
    times = exposed_s = 0.0
    for rate in rates:
        times, exposed_s = times + rate.times, exposed_s + rate.exposed_s
    return LossRate(times, exposed_s)


def watched(losses: Losses | None, replicas: Replicas, at_s: float) -> Losses:
    """The losses after a look: what is ready no more, where no lower target and nothing that drains explains it."""
    leaving = replicas.draining + max(replicas.ready - replicas.target, 0)
    if losses is None or at_s <= losses.at_s:
        return losses or Losses(at_s, replicas.ready, leaving, replicas.target)
    elapsed_s = at_s - losses.at_s
    asked_away = max(losses.target - replicas.target, 0) + max(leaving, losses.leaving)
    gone = max(losses.ready - replicas.ready - asked_away, 0)
    keep = decayed(elapsed_s, LOSSES_HALF_LIFE_S)
    exposed_s = keep * losses.exposed_s + replicas.ready * elapsed_s
    lost, squares = keep * losses.lost + gone, keep * losses.squares + gone**2
    return Losses(at_s, replicas.ready, leaving, replicas.target, lost, exposed_s, squares)


def spares(losses: Losses, others: LossRate, replicas: int, felt_s: float, allowed: float) -> int:
    """The fewest spares with which replicas that are away take more than that for no more than ``allowed`` of the time;
    ``others`` is how often the other pools lost replicas, and ``felt_s`` for how long a loss is felt."""
    own = losses.rate
    if own.times + others.times <= 0 or own.exposed_s <= 0:
        return 0
    shape, exposed_s = own.times + FEW_LOSSES, own.exposed_s
    if others.exposed_s > 0:
        shape, exposed_s = own.times + 1, exposed_s + others.exposed_s / (others.times + FEW_LOSSES)
    stays = exposed_s / (exposed_s + replicas * felt_s)
    chance = within = stays**shape
    count = 0
    while 1 - within > allowed and count * losses.size < MAX_SPARES:
        chance *= (shape + count) / (count + 1) * (1 - stays)
        within += chance
        count += 1
    return min(math.ceil(count * losses.size), MAX_SPARES)
