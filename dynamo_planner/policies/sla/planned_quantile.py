"""The quantile of the forecast to plan for: the lowest with which expected misses are within what is asked.

A quantile alone does not say how many requests are late: a rate a little above the planned one makes few late, one
beyond what keeps up makes all late. So the misses of a replica count ``k`` are expected over the forecast::

    E[m] = sum of w[i] r[i] m(k, r[i]) / sum of w[i] r[i]       at most 1 - share

======  ==================================================================================================
``r``   rates at quantiles in the middle of parts of the forecast, each with its probability ``w``
``m``   the share of requests that ``k`` replicas miss at a rate, by the sizing
======  ==================================================================================================

With rates of 9, 10, 11 and 12, probabilities of 0.5, 0.3, 0.15 and 0.05, and misses of 0, 0, 10 and 100 %,
``(0.15 * 11 * 0.1 + 0.05 * 12 * 1) / 9.75 = 7.8 %`` are expected to be late.
"""

from __future__ import annotations

from collections.abc import Callable

from dynamo_planner.policies.sla.demand import Demand, Outlook
from dynamo_planner.policies.sla.tick import Tick

PARTS = ((0.25, 0.5), (0.65, 0.3), (0.875, 0.15), (0.975, 0.05))
"""Quantiles in the middle of parts of the forecast, and how likely each part is."""

TRIED_QUANTILES = (0.5, 0.6, 0.7, 0.8)
"""The quantiles that are tried, from the lowest on, below that of the plan."""

Attained = Callable[[float, int], float | None]
"""The share of requests that a replica count keeps in time at an arrival rate; ``None`` for unknown."""


def demand_within(
    share: float, quantile: float, outlook: Outlook, tick: Tick, count: Callable[[float], int], attained: Attained
) -> Demand:
    """The demand on a pool at the lowest quantile with which this share is expected to be in time, and at most at
    ``quantile``; ``count`` says the replicas for a rate."""

    def at(level: float) -> Demand:
        return outlook.demand(tick.lead_s, level, tick.pool.spec.role).times(tick.share)

    rates = [(weight, at(part).then) for part, weight in PARTS]
    replicas = 0
    for tried in TRIED_QUANTILES:
        if tried >= quantile:
            break
        demand, before = at(tried), replicas
        replicas = count(demand.then)
        missed = expected_misses(rates, replicas, attained) if replicas != before else 1.0
        if missed is None:
            break
        if missed <= 1 - share:
            return demand
    return at(quantile)


def expected_misses(rates: list[tuple[float, float]], replicas: int, attained: Attained) -> float | None:
    """The share of requests that so many replicas are expected to miss at rates of these probabilities."""
    missed = total = 0.0
    for weight, rate in rates:
        share = attained(rate, replicas)
        if share is None:
            return None
        missed += weight * rate * (1 - share)
        total += weight * rate
    return missed / total if total else 0.0
