"""A cache of the values that were used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class Memo(Generic[V]):
    """A least-recently-used cache, whose copies and pickles are empty.

    A value must follow from its key alone, so that no one can tell whether it was computed now or before.
    ``functools.lru_cache`` would make what only speeds a computation up a part of its key.

    Args:
        most: the number of values that are kept.

    >>> squares = Memo[int](most=2)
    >>> [squares.get(number, lambda: number**2) for number in (2, 3, 2)]
    [4, 9, 4]
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable, compute: Callable[[], V]) -> V:
        """The value of a key, computed where it is not kept."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = compute()
        if len(self._values) > self.most:
            self._values.popitem(last=False)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.most,)
