"""What was worked out lately, so that the next tick need not do it again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

V = TypeVar("V")


class Memo(Generic[V]):
    """The last ``most`` values by their keys. A value must follow from its key alone, so that nobody can tell whether
    it was worked out now or before. Copies and pickles are empty.

    >>> squares = Memo[int](most=2)
    >>> [squares.get(number, lambda: number**2) for number in (2, 3, 2)]
    [4, 9, 4]
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._values: OrderedDict[Hashable, V] = OrderedDict()

    def get(self, key: Hashable, worked_out: Callable[[], V]) -> V:
        """The value of a key, worked out where it is not kept."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = worked_out()
        if len(self._values) > self.most:
            self._values.popitem(last=False)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.most,)
