"""Lost replicas: crashes and preemptions that were seen, and the spare replicas that they make worth having.

A replica that is lost is away for as long as a start takes, so that ``n`` replicas of which each is lost ``r`` times a
second have ``n r lead`` away on average, as a Poisson number. The spares are the fewest that cover it but for the share
of the time that may be missed. With 3 lost in 8 hours of one replica, 8 replicas and starts of 60 s, 0.05 are away:
one or more for 4.9 % of the time, and two or more for 0.1 %. Where 0.5 % may be missed, that is one spare.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dynamo_planner.core.snapshot import Replicas
from dynamo_planner.forecasting.experts.base import decayed

LOSSES_HALF_LIFE_S = 21_600.0
"""Losses that were seen keep half their weight over this time, in seconds."""

MAX_SPARES = 8
"""The most spares of a pool."""


class Losses(NamedTuple):
    """The replicas of a pool that were lost.

    Args:
        at_s: When they were last looked at, in Unix seconds.
        ready: The ready replicas then.
        leaving: The replicas then that were not to stay: those that drained, and the ready ones beyond the target.
        target: The target then.
        lost: Replicas that were lost, fading.
        exposed_s: Seconds that replicas were ready, added up over them and fading alike.
    """

    at_s: float
    ready: int
    leaving: int
    target: int
    lost: float = 0.0
    exposed_s: float = 0.0


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
    return Losses(at_s, replicas.ready, leaving, replicas.target, keep * losses.lost + gone, exposed_s)


def spares(losses: Losses, replicas: int, lead_s: float, allowed: float) -> int:
    """The fewest spares with which replicas that are away take more than that for no more than ``allowed`` of the
    time."""
    if losses.lost <= 0 or losses.exposed_s <= 0:
        return 0
    away = losses.lost / losses.exposed_s * replicas * lead_s
    chance, within, count = math.exp(-away), math.exp(-away), 0
    while 1 - within > allowed and count < MAX_SPARES:
        count += 1
        chance *= away / count
        within += chance
    return count
