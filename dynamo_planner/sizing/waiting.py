"""How long prompts wait in front of replicas, in one queue or in one for each: P(TTFT > target).

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
slots of any length, it is Allen and Cunneen's ``exp(-2 m (1 - rho) t / (s (I + c**2)))``. Where prompts go to the
replicas in turn or at random, each replica has a queue of its own, :mod:`dynamo_planner.sizing.own_queue`.

Where each prompt goes to the replica with the fewest requests, one with x seconds of prompts has ``x / s`` requests
fewer that decode, out of b, and as many fewer end there and are replaced. ``l (1 - x / (s b))`` arrivals instead of l
add to the exponent ``t**2 / (s**2 b (I + c**2))`` up to t = s b, and ``2 t / (s (I + c**2))`` beyond: with 20 requests
that decode and I + c**2 = 3, a queue of ten prompts is ``exp(-100 / 60)`` = 0.19 times as likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from dynamo_planner.sizing.arrays import Floats
from dynamo_planner.sizing.arrivals import MIN_DISPERSION, Arrivals
from dynamo_planner.sizing.own_queue import waits_longer
from dynamo_planner.sizing.queueing import MAX_EXPONENT, erlang_c

OWN_QUEUE_MISS_FACTOR = 2.0
"""The share of late requests over what the formula says, where each replica has a queue of its own. Fitted once to
simulated steps: what is late in steps that are shared is more than the better of both ways to compute says."""

Routing = Literal["least_loaded", "round_robin", "random"]
"""Which replica a request goes to. With ``least_loaded`` none waits while another is idle, nearly, so that there is one
queue; with the others each replica has a queue of its own, and a long prompt holds up those behind it."""

Discipline: TypeAlias = Routing | Literal["fewest_requests"]
"""``fewest_requests``: each replica has a queue of its own, and a prompt goes to the one with the fewest requests."""

FEWEST_DISPERSION = 2.0
"""Dispersion of the prompts that come to one replica where each goes to the one with the fewest requests in flight:
they follow the answers that end there. Fitted once to simulations."""

MIN_PEAKEDNESS = 0.3
"""Peakedness below which Hayward's approximation is not used."""

MIN_VARIANCE = 1e-200
"""Smallest variance, in seconds squared, that is divided by."""

_EDGES = np.array([0, 0.005, 0.015, 0.03, 0.06, 0.1, 0.16, 0.24, 0.34, 0.46, 0.62, 0.8, 1])
_SHARES, _PLACES = np.diff(_EDGES), (_EDGES[1:] + _EDGES[:-1]) / 2

LAG_LEVELS = 32
"""Bins of how far replicas lag."""

ALIKE: Floats = np.ones(1)
"""Services that all take the mean."""


class Service(NamedTuple):
    """The service of prompts for several replica counts, an entry for each.

    Attributes:
        mean_s: mean seconds of a replica that a prompt takes.
        variation: squared coefficient of variation of that.
        step_s: seconds that a step takes: of the one under way, anything from 0 to this is left when a prompt comes.
        left_s: seconds that prompts may wait, by :func:`sampled`; shape (counts, sample).
    """

    mean_s: Floats
    variation: Floats
    step_s: Floats
    left_s: Floats


def sampled(slack_s: Floats) -> Floats:
    """A sample of ascending values, finer where they are small, of which each stands for its own share of them."""
    return np.asarray(slack_s[(_PLACES * len(slack_s)).astype(np.intp)])


def late_shares(
    arrivals: Arrivals,
    replicas: Floats,
    service: Service,
    disciplines: Sequence[Discipline],
    shape: Floats = ALIKE,
    beside: Floats | None = None,
) -> Floats:
    """Shape (disciplines, counts): the share of prompts that are late under this service; all where replicas do not
    keep up. ``shape`` has equally likely services over their mean, for queues in which each waits for its turn.
    ``beside``: requests on a replica that do not wait, for ``fewest_requests``."""
    late = np.ones((len(disciplines), len(replicas)))
    keep_up = replicas > arrivals.requests_per_s * service.mean_s
    if keep_up.any():
        replicas, service = replicas[keep_up], Service(*[entries[keep_up] for entries in service])
        beside = None if beside is None else beside[keep_up]
        behind, weight = _behind(arrivals, replicas, service)
        left = service.left_s[:, None, :] - behind[..., None]
        at_work = np.maximum(-left, 0.0) / service.step_s[:, None, None]
        for row, discipline in enumerate(disciplines):
            waits = _waits_longer(arrivals, replicas, service, np.maximum(left, 0.0), discipline, shape, beside)
            shares = (np.minimum(waits + at_work, 1.0) @ _SHARES * weight).sum(axis=1)
            factor = OWN_QUEUE_MISS_FACTOR if discipline in ("round_robin", "random") else 1.0
            late[row, keep_up] = np.minimum(factor * shares, 1.0)
    return late


def _behind(arrivals: Arrivals, replicas: Floats, service: Service) -> tuple[Floats, Floats]:
    """By how many seconds the replicas may lag, and at the ends of the slots of the path the shares of requests that
    find that; both of shape (counts, levels).

    The path carries the arrivals' variation but not that of the service, which widens it.
    """
    if not arrivals.path.size:
        return np.zeros((len(replicas), 1)), np.ones((len(replicas), 1))
    counts, slots = len(replicas), arrivals.path.size
    widened = np.sqrt(1 + service.variation / max(arrivals.path_dispersion(), MIN_DISPERSION))
    load = arrivals.requests_per_s * service.mean_s
    level_s = np.maximum(service.left_s.max(axis=1), 1e-9) / LAG_LEVELS
    scale = (arrivals.slot_s / replicas / level_s)[:, None]  # of replica-seconds in a slot, to levels
    lag = np.zeros((counts, slots + 1))
    np.cumsum(
        (load * widened)[:, None] * scale * (arrivals.path - 1) + (load - replicas)[:, None] * scale, 1, out=lag[:, 1:]
    )
    lag -= np.minimum.accumulate(lag, axis=1)
    bins = np.minimum(lag + 0.5, LAG_LEVELS + 1.0).astype(np.intp)
    bins += np.arange(counts)[:, None] * (LAG_LEVELS + 2)
    size = counts * (LAG_LEVELS + 2)
    path = np.broadcast_to(arrivals.path, (counts, slots)).ravel()
    weight = np.bincount(bins[:, :-1].ravel(), path, size) + np.bincount(bins[:, 1:].ravel(), path, size)
    weight = weight.reshape(counts, -1)
    found = np.flatnonzero(weight.any(axis=0))
    return level_s[:, None] * found, weight[:, found] / weight.sum(axis=1, keepdims=True)


def _waits_longer(
    arrivals: Arrivals,
    replicas: Floats,
    service: Service,
    than_s: Floats,
    routing: Discipline,
    shape: Floats,
    beside: Floats | None,
) -> Floats:
    """Shape (counts, levels, budgets): the share of prompts that wait for longer than this."""
    dispersion: float | Floats = max(arrivals.dispersion, MIN_DISPERSION)
    if routing in ("round_robin", "random"):  # every n-th request, or any
        dispersion = dispersion / replicas if routing == "round_robin" else 1 + (dispersion - 1) / replicas
        dispersion = np.maximum(dispersion, MIN_DISPERSION)
        return waits_longer(arrivals.requests_per_s / replicas, dispersion, service.mean_s, shape, than_s)
    replicas = replicas[:, None, None]
    mean_s, variation = service.mean_s[:, None, None], service.variation[:, None, None]
    queues: float | Floats = 1.0
    if routing == "fewest_requests":
        queues, dispersion = replicas, FEWEST_DISPERSION + dispersion / replicas
    rate = arrivals.requests_per_s / queues
    servers, load = replicas / queues, rate * mean_s
    peakedness = np.maximum(1 + (dispersion - 1) / 2, MIN_PEAKEDNESS)
    waits = erlang_c(servers / peakedness, load / peakedness)
    spare = servers - load
    over_s = np.minimum(servers * than_s / np.maximum(spare, 1e-12), 1e9)
    if arrivals.path.size and routing == "least_loaded":
        # Longer stretches are in the path. Of replicas with queues of their own, the prompts of each are not: they
        # vary by themselves.
        over_s = np.minimum(over_s, arrivals.slot_s)
    over_s = over_s + 1e-12
    variance = rate * over_s * mean_s**2 * (dispersion + variation)
    exponent = (servers * than_s + spare * over_s) ** 2 / np.maximum(2 * variance, MIN_VARIANCE)
    if routing == "fewest_requests" and beside is not None:
        others = beside[:, None, None] + 1
        fewer_s = np.minimum(than_s, others * mean_s)
        calmer = fewer_s**2 / (mean_s * others) + 2 * (than_s - fewer_s)
        exponent = exponent + calmer / (mean_s * (dispersion + variation))
    return np.asarray(waits * np.exp(-np.minimum(exponent, MAX_EXPONENT)))
