"""The fewest replicas that do, asked for several counts at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from dynamo_planner.sizing.queueing import Floats

_AT_A_TIME = 8

MOST = 100_000
"""Nobody is told to have more."""


def fewest(
    attained: Callable[[npt.NDArray[np.int64]], Floats],
    attainment: float,
    least: int,
    near: int | None = None,
    most: int = MOST,
) -> tuple[int, float]:
    """The smallest count from ``least`` on that attains enough, where more never attain less, and what it attains;
    ``most`` if none does.

    It is looked for around ``near`` first.

    >>> fewest(lambda counts: counts / 2000, 0.617, 1), fewest(lambda counts: counts / 20, 0.6, 1, near=12)
    ((1234, 0.617), (12, 0.6))
    """
    low, high, share = least - 1, most, None
    step = max(1, least // 40)
    tried = least + step * np.arange(_AT_A_TIME) if near is None else max(near, least) + np.arange(-1, 2)
    while high - low > 1:
        tried = np.unique(tried[(tried > low) & (tried < high)])
        shares = attained(tried)
        does = shares >= attainment
        if does.any():
            first = int(np.argmax(does))
            high, share = int(tried[first]), float(shares[first])
        low = max([low, *tried[tried < high].tolist()])
        if high == most:
            tried = np.minimum(low + step * np.arange(1, _AT_A_TIME + 1), most - 1)
            step *= 4
        else:
            tried = np.linspace(low, high, min(_AT_A_TIME + 2, high - low + 1)).astype(np.int64)
    return high, float(attained(np.array([high]))[0]) if share is None else share
