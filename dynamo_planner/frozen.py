"""The values that every other module is written in: frozen models, read-only mappings, numbers that may be unknown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

K = TypeVar("K")
V = TypeVar("V")


class Frozen(BaseModel):
    """A value: immutable, equal by content, refuses unknown fields, and survives a round trip through JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class FrozenMap(Mapping[K, V]):
    """A read-only mapping that, unlike ``types.MappingProxyType``, can be hashed, pickled and deep-copied.

    >>> FrozenMap({"decode": 3})["decode"]
    3
    >>> FrozenMap({"decode": 3})["decode"] = 4
    Traceback (most recent call last):
    ...
    TypeError: 'FrozenMap' object does not support item assignment
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[K, V] | None = None) -> None:
        self._items: dict[K, V] = dict(items or {})

    def __getitem__(self, key: K) -> V:
        return self._items[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)


def plain(value: Any) -> Any:
    """A numpy scalar as the Python number that it holds; anything else unchanged."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def known(value: Any) -> Any:
    """The value, or ``None`` where it is NaN or infinite."""
    value = plain(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _freeze(value: Mapping[K, V]) -> FrozenMap[K, V]:
    return value if isinstance(value, FrozenMap) else FrozenMap(value)


def _thaw(value: Any) -> Any:
    return dict(value) if isinstance(value, FrozenMap) else value


ReadOnly = Annotated[
    Mapping[K, V],
    BeforeValidator(_thaw),
    AfterValidator(_freeze),
    PlainSerializer(dict, return_type=dict[K, V]),
]
"""A mapping field: anything mapping-like goes in, a :class:`FrozenMap` comes out."""

Unit = Annotated[float, Field(ge=0, le=1)]
"""A share, 0 to 1."""

Count = Annotated[int, BeforeValidator(plain), Field(ge=0)]
"""A whole number of things, at least 0."""

Known = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(known)]
"""A measured number of at least 0, or ``None`` where it is unknown. NaN and infinity are unknown."""

KnownShare = Annotated[Unit | None, BeforeValidator(known)]
"""A measured share (0 to 1), or ``None`` where it is unknown."""

KnownTime = Annotated[float | None, BeforeValidator(known)]
"""A point in time in Unix seconds, or ``None`` where it is unknown."""

KnobValue = bool | int | float | str
"""What an engine knob can be set to."""
