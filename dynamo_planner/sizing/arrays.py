"""Arrays as values: read-only, and compared by content."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]


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
