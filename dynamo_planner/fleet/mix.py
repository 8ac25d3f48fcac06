"""The cheapest mix of hardware that serves a demand in time, and how requests are to be routed to it.

A model that is served by pools on different GPUs needs no one kind for all of its requests. With ``rate(k, n)`` the
requests per second that ``n`` replicas of kind ``k`` serve in time and ``c(k)`` what one costs, the mix is

``minimise sum(c(k) * n(k))`` so that ``sum(rate(k, n(k))) >= demand``, each ``n(k)`` at most its inventory,

and those that cannot be taken away serve at least the part of the demand that is to survive the loss of all spot
capacity. It is exact: all counts of all kinds but one are tried, for each of which the fewest of the last one follow;
beyond :data:`MAX_TRIED` of them it is an integer program of one variable for each count of each kind (HiGHS through
``scipy``). The weights of a router are the shares of ``sum(rate)``: more to a pool than its part would be late there.

>>> a100 = Hardware("a100", cost=2.0, rates=(0.0, 9.0, 20.0, 31.0, 42.0))
>>> h100 = Hardware("h100", cost=4.0, rates=(0.0, 26.0, 55.0))
>>> mix = cheapest_mix([a100, h100], requests_per_s=34.0)
>>> dict(mix.replicas), mix.cost, {name: round(share, 2) for name, share in mix.weights.items()}
({'a100': 1, 'h100': 1}, 6.0, {'a100': 0.26, 'h100': 0.74})
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from dynamo_planner.core.snapshot import Role, Sla
from dynamo_planner.sizing import Load, PercentileSizing
from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import Arrivals

RATE_TOLERANCE = 1e-3
"""Relative width at which the search for a rate ends."""

MAX_TRIED = 50_000
"""Counts of all kinds but one up to which all are tried; that takes 2 ms at most."""

MAX_RATE_PER_S = 1e6
"""Requests per second of a pool up to which is searched: those without tokens take no time."""

MIN_RATE_PER_S = 1e-4
"""Requests per second at which one hardly ever meets another: where too many are late even so, any number of replicas
serves none in time."""


class Hardware(NamedTuple):
    """One kind of hardware that a model can run on.

    Args:
        name: The name of its pool.
        cost: The price of a replica-hour, in any unit.
        rates: Requests per second that 0, 1, 2, ... replicas serve in time, as many as there may be
            (:func:`rates_in_time`).
        spot: Whether its replicas can be taken away. Default false.
        lost_per_h: The share of its replicas that is lost in an hour. Default 0.
        startup_s: Seconds that a start takes, for which what is lost is away. Default 120.
    """

    name: str
    cost: float
    rates: Sequence[float]
    spot: bool = False
    lost_per_h: float = 0.0
    startup_s: float = 120.0

    def present(self) -> float:
        """The part of the time in which a replica is there: 0.9 with 3.33 losses an hour of 120 s each."""
        return 1.0 / (1.0 + self.lost_per_h * self.startup_s / 3600.0)


class Mix(NamedTuple):
    """A mix of hardware.

    Args:
        replicas: The replicas of each pool.
        weights: The share of the requests that a router is to send to each.
        cost: What it costs in an hour.
        served_per_s: Requests per second that it serves in time.
    """

    replicas: Mapping[str, int]
    weights: Mapping[str, float]
    cost: float
    served_per_s: float


def cheapest_mix(kinds: Sequence[Hardware], requests_per_s: float, on_demand: float = 0.0) -> Mix:
    """The cheapest mix that serves a demand in time.

    Args:
        kinds: The kinds of hardware.
        requests_per_s: The demand.
        on_demand: The share of the demand, 0 to 1, that hardware which cannot be taken away serves. Default 0.

    Where all of it together does not suffice, all of it is the mix.
    """
    rates = [kind.present() * np.asarray(kind.rates, float) for kind in kinds]
    steady = sum(float(own.max()) for own, kind in zip(rates, kinds, strict=True) if not kind.spot)
    demand = min(requests_per_s, float(sum(own.max() for own in rates))) - 1e-9
    base = min(on_demand * requests_per_s, steady) - 1e-9
    largest = max(range(len(kinds)), key=lambda n: len(rates[n]))
    tried = math.prod(len(own) for n, own in enumerate(rates) if n != largest)
    if tried <= MAX_TRIED:
        counts = _tried(kinds, rates, demand, base, largest)
    else:
        counts = _by_program(kinds, rates, demand, base)
    served = [float(own[count]) for own, count in zip(rates, counts, strict=True)]
    total = sum(served)
    return Mix(
        {kind.name: count for kind, count in zip(kinds, counts, strict=True)},
        {kind.name: own / total if total else 0.0 for kind, own in zip(kinds, served, strict=True)},
        float(sum(kind.cost * count for kind, count in zip(kinds, counts, strict=True))),
        total,
    )


def _tried(kinds: Sequence[Hardware], rates: Sequence[Floats], demand: float, base: float, last: int) -> list[int]:
    """All counts of all kinds but the last, each with the fewest of the last that serve what they leave."""
    others = [n for n in range(len(kinds)) if n != last]
    shape = [len(rates[n]) for n in others]
    grid = np.indices(shape).reshape(len(others), math.prod(shape))
    served, lasting, cost = np.zeros((3, grid.shape[1]))
    for n, counts in zip(others, grid, strict=True):
        own = rates[n][counts]
        served, lasting, cost = served + own, lasting + own * (not kinds[n].spot), cost + kinds[n].cost * counts
    missing = np.maximum(demand - served, 0.0 if kinds[last].spot else base - lasting)
    fewest = np.searchsorted(np.maximum.accumulate(rates[last]), missing)
    possible = fewest < len(rates[last])
    if kinds[last].spot:
        possible &= lasting >= base
    best = int(np.argmin(np.where(possible, cost + kinds[last].cost * fewest, np.inf)))
    found = dict(zip(others, grid[:, best].tolist(), strict=True))
    return [found.get(n, int(fewest[best])) for n in range(len(kinds))]


def _by_program(kinds: Sequence[Hardware], rates: Sequence[Floats], demand: float, base: float) -> list[int]:
    """The integer program."""
    rate, cost = np.concatenate(rates), np.concatenate([k.cost * np.arange(len(k.rates)) for k in kinds])
    owner = np.repeat(np.arange(len(kinds)), [len(own) for own in rates])
    one = (owner[None, :] == np.arange(len(kinds))[:, None]).astype(float)
    lasting = np.array([not kind.spot for kind in kinds])[owner] * rate
    found = milp(
        cost,
        integrality=np.ones(len(cost)),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one, 1, 1),
            LinearConstraint(np.vstack([rate, lasting]), [demand, base], np.inf),
        ],
        options={"mip_rel_gap": 0.0},
    )
    places = np.cumsum([0, *[len(own) for own in rates[:-1]]])
    return [int(np.argmax(found.x[start : start + len(own)])) for start, own in zip(places, rates, strict=True)]


def rates_in_time(
    sizing: PercentileSizing, load: Load, sla: Sla, role: Role = "aggregated", most: int = 8
) -> tuple[float, ...]:
    """Requests per second that 0 to ``most`` replicas serve in time, of requests as long as those of a load.

    ``load`` is one at 1 request per second. A rate is in time where ``sla.attainment`` of the attainable requests are.
    """
    if not _in_time(sizing, load, sla, role, 1, MIN_RATE_PER_S):
        return (0.0,) * (most + 1)
    rates = [0.0]
    for count in range(1, most + 1):
        low, high = rates[-1], 2.0 * max(rates[-1], 0.5)
        while high < MAX_RATE_PER_S and _in_time(sizing, load, sla, role, count, high):
            low, high = high, 2.0 * high
        while high - low > RATE_TOLERANCE * high:
            middle = (low + high) / 2
            low, high = (middle, high) if _in_time(sizing, load, sla, role, count, middle) else (low, middle)
        rates.append(low)
    return tuple(rates)


def _in_time(sizing: PercentileSizing, load: Load, sla: Sla, role: Role, count: int, rate: float) -> bool:
    at_rate = replace(load, arrivals=Arrivals(rate))
    return bool(sizing.attainable(at_rate, sla, {role: count}) >= sla.attainment)
