"""The fewest replicas that do, asked for several counts at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_AT_A_TIME = 8

MOST = 100_000
"""Nobody is told to have more."""


def fewest(
    enough: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]],
    least: int,
    near: int | None = None,
    most: int = MOST,
) -> int:
    """The smallest count from ``least`` on that is enough, where more are enough too; ``most`` if none is.

    It is looked for around ``near`` first.

    >>> fewest(lambda counts: counts >= 1234, 1), fewest(lambda counts: counts >= 12, 1, near=12)
    (1234, 12)
    """
    low, high = least - 1, most
    around = least if near is None else max(near - 2, least)
    step = max(1, least // 40)
    tried = np.append(around + step * np.arange(_AT_A_TIME - 1), most if near is None else least)
    while high - low > 1:
        tried = np.unique(tried[(tried > low) & (tried < high)])
        does = enough(tried)
        high = int(tried[does][0]) if does.any() else high
        low = int(tried[tried < high][-1]) if tried[0] < high else low
        step *= 4
        if high == most:
            tried = np.minimum(low + step * np.arange(1, _AT_A_TIME), most - 1)
        else:
            tried = np.linspace(low, high, min(_AT_A_TIME + 2, high - low + 1)).astype(np.int64)
    return high
