"""The values that every other module is written in: frozen models, read-only mappings, numbers that may be unknown."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from functools import cache
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

K = TypeVar("K")
V = TypeVar("V")


class Frozen(BaseModel):
    """A value: immutable, equal by content, refuses unknown fields, and survives a round trip through JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @classmethod
    def trusted(cls, **values: Any) -> Self:
        """A value of what is known to be right, such as validated fields of another one: made without validation.

        As ``model_construct``, at a quarter of its cost, and for fields by their names only.
        """
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", {**_defaults(cls), **values})  # in the order of the fields, as in JSON
        object.__setattr__(made, "__pydantic_fields_set__", set(values))
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made

    def changed(self, **values: Any) -> Self:
        """The same with other values that are known to be right."""
        return self.trusted(**{**self.__dict__, **values})


@cache
def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    """The values that fields have where none is given; they are immutable, so they can be shared."""
    return {
        name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in model.model_fields.items()
    }


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

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def keys(self) -> KeysView[K]:
        return self._items.keys()

    def values(self) -> ValuesView[V]:
        return self._items.values()

    def items(self) -> ItemsView[K, V]:
        return self._items.items()

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
