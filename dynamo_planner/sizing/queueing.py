"""Queueing formulas for fractional numbers of servers, and the smallest replica count that meets a target."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, gammaln

from dynamo_planner.sizing.arrays import Floats

MAX_EXPONENT = 700.0
"""Larger exponents of a decaying exponential count as this: double precision holds no smaller one."""

MAX_LOADS, MAX_IDLE_REPLICAS = 32, 32
"""What this many times the load and this many replicas more do not attain, no number of replicas does."""

COUNTS_AT_ONCE = 8
"""Counts that one vectorised evaluation takes, which costs about as much for eight as for one."""

STEP_SHARE = 40
"""The first bracketing step is a 40th of the smallest count that may do, and at least 1; each further one is
:data:`STEP_GROWTH` times as long."""

STEP_GROWTH = 4


def erlang_c(servers: npt.ArrayLike, load: npt.ArrayLike) -> Floats:
    """Erlang C: the share of arrivals that wait in M/M/m; 1 where the load is more than the servers can do.

    ::

        C = B / (1 - rho (1 - B))
        B = a**m e**-a / Gamma(m + 1, a)

    ======  ==============================================================================================
    symbol  meaning
    ======  ==============================================================================================
    m       ``servers``, which may be fractional
    a       ``load``, in busy servers
    rho     utilisation, ``a / m``
    B       Erlang B, continued by the incomplete gamma function (Jagers and Van Doorn 1986)
    ======  ==============================================================================================

    >>> erlang_c(2, 1.0).round(6).item()  # M/M/2 at half load: 1/3
    0.333333
    >>> erlang_c(2, [0.0, 2.0]).tolist()  # clamps: no load never waits, a load of all servers always
    [0.0, 1.0]
    """
    servers, load = np.asarray(servers, float), np.asarray(load, float)
    stable = (load < servers) & (load > 0)
    m, a = np.where(stable, servers, 2.0), np.where(stable, load, 1.0)
    tail = gammaincc(m + 1, a)
    blocked = np.exp(m * np.log(a) - a - gammaln(m + 1)) / np.where(tail > 0, tail, 1.0)
    waits = blocked / (1 - a / m * (1 - blocked))
    return np.where(stable, np.minimum(np.maximum(waits, 0), 1), load > 0)


def most_replicas(load: float) -> int:
    """The replica count that attains all that can be had, for a load in busy replicas.

    >>> most_replicas(0.0), most_replicas(2.5)
    (32, 112)
    """
    return math.ceil(MAX_LOADS * load) + MAX_IDLE_REPLICAS


def smallest_count(
    attained: Callable[[npt.NDArray[np.int64]], Floats],
    attainment: float,
    least: int,
    near: int | None = None,
    most: int = 1000,
) -> tuple[int, float, float]:
    """The smallest replica count that meets a target, the share that it attains, and the share that can be had.

    That is what ``most`` replicas attain, and the target is this share of it: where it falls, the count neither jumps
    nor is ever ``most``. Vectorised bracketing and bisection from ``least`` on, beginning around ``near`` where that is
    given. The attained share must not fall as the count rises.

    >>> smallest_count(lambda counts: np.minimum(counts / 200, 1), 0.615, 1)
    (123, 0.615, 1.0)
    >>> smallest_count(lambda counts: np.minimum(counts / 20, 0.8), 0.9, 1, near=12)  # .9 of .8 is .72
    (15, 0.75, 0.8)
    """
    low, high, share = least - 1, most, 0.0
    step = max(1, least // STEP_SHARE)
    first = max(near or 0, least)
    tried = (
        [least + step * number for number in range(COUNTS_AT_ONCE)] if near is None else [first - 1, first, first + 1]
    )
    reachable: float | None = None
    while True:
        counts = sorted({count for count in tried if low < count < high})
        if reachable is None:
            *shares, reachable = attained(np.array([*counts, most])).tolist()
            share = reachable
        else:
            shares = attained(np.array(counts)).tolist()
        for count, attains in zip(counts, shares, strict=True):
            if attains >= attainment * reachable:
                high, share = count, attains
                break
            low = count
        if high - low <= 1:
            break
        if high == most:
            tried = [min(low + step * number, most - 1) for number in range(1, COUNTS_AT_ONCE + 1)]
            step *= STEP_GROWTH
        else:
            tried = np.linspace(low, high, min(COUNTS_AT_ONCE + 2, high - low + 1)).astype(np.int64).tolist()
    return high, share, reachable
