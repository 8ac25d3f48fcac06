"""Textbook formulas of queues with several servers, for real numbers of servers and arrays of cases."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincc, gammaln

Floats: TypeAlias = npt.NDArray[np.float64]


def erlang_c(servers: npt.ArrayLike, load: npt.ArrayLike) -> Floats:
    """The share of arrivals that wait in M/M/m, ``load`` in busy servers; 1 where the load is more than they can do.

    ``servers`` may be fractional: Erlang B is continued by the incomplete gamma function, ``B = a**m e**-a /
    Gamma(m + 1, a)`` (Jagers and Van Doorn 1986), and ``C = B / (1 - rho (1 - B))``.

    >>> erlang_c(2, 1.0).round(6).item()  # M/M/2 at half load: 1/3
    0.333333
    """
    servers, load = np.broadcast_arrays(np.asarray(servers, float), np.asarray(load, float))
    stable = (load < servers) & (load > 0)
    m, a = np.where(stable, servers, 2.0), np.where(stable, load, 1.0)
    tail = gammaincc(m + 1, a)
    blocked = np.exp(m * np.log(a) - a - gammaln(m + 1)) / np.where(tail > 0, tail, 1.0)
    waits = blocked / (1 - a / m * (1 - blocked))
    return np.where(stable, np.clip(waits, 0, 1), np.where(load > 0, 1.0, 0.0))


def read_only(values: npt.ArrayLike) -> Floats:
    """The array itself where nothing can write to it, else a copy that cannot be written to.

    What a value holds must not change after it was compared or hashed.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


def same_array(one: Floats, other: Floats) -> bool:
    """Whether two arrays hold the same numbers; at once where they are the same object."""
    return one is other or np.array_equal(one, other)
