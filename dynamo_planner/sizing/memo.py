"""Caches: of the values that were used last, and of the last one alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from operator import is_
from typing import Any, Generic, TypeVar

V = TypeVar("V")

_MISSING: Any = object()


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
        values = self._values
        value: V = values.pop(key, _MISSING)  # and in again as the last: keys are hashed as seldom as can be
        if value is _MISSING:
            value = compute()
        values[key] = value
        if len(values) > self.most:
            values.popitem(last=False)
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.most,)


class Latest(Generic[V]):
    """The value of the arguments that were given last, whose copies and pickles are empty.

    Arguments are immutable, and are compared by identity: for values that cost more to compare than they save.

    >>> total, numbers = Latest[int](), (1, 2, 3)
    >>> total.get(sum, numbers), total.get(sum, numbers)  # the second is not added up
    (6, 6)
    """

    def __init__(self) -> None:
        self._last: tuple[tuple[Any, ...], V] | None = None

    def get(self, compute: Callable[..., V], *given: Any) -> V:
        """The value of these arguments, computed where they are not the last ones."""
        last = self._last
        if last is not None and all(map(is_, last[0], given)):
            return last[1]
        value = compute(*given)
        self.keep(value, *given)
        return value

    def keep(self, value: V, *given: Any) -> None:
        """Keep the value of these arguments, which was computed elsewhere."""
        self._last = given, value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
