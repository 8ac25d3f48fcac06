"""Names of pools in policies, guards and configurations, checked against the pools that there are.

A field says that it names a pool by its type, :data:`PoolName`, wherever the name stands in it:

>>> from dynamo_planner.core.values import Frozen
>>> class Caps(Frozen):
...     caps: dict[PoolName, int] = {}
...     except_for: tuple[PoolName, ...] | None = None
>>> caps = Caps(caps={"decod": 3}, except_for=("prefill",))
>>> list(pool_names(caps))
[(('caps',), 'decod'), (('except_for',), 'prefill')]
>>> no_such_pool("decod", ["decode", "prefill"])
"'decod' is not a pool, did you mean 'decode'? there are decode, prefill"
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from dynamo_planner.core.nearest import did_you_mean

_MARK = "names a pool"

PoolName = Annotated[str, _MARK]
"""The name of a pool. Configurations that name one that does not exist are refused."""

Steps = tuple[str | int, ...]
"""The path of a field: names of fields, keys and positions."""


def pool_names(value: Any) -> Iterator[tuple[Steps, str]]:
    """Every name of a pool in a value, with the path of the field that it stands in."""
    yield from dict.fromkeys(_names(value, None, (), named=False))


def _names(value: Any, annotation: Any, path: Steps, *, named: bool) -> Iterator[tuple[Steps, str]]:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            marked = _MARK in field.metadata
            yield from _names(getattr(value, name, None), field.annotation, (*path, name), named=marked)
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _names(value, arguments[0], path, named=named or _MARK in arguments[1:])
    elif origin in {Union, UnionType}:
        for argument in arguments:
            yield from _names(value, argument, path, named=named)
    elif isinstance(value, str):
        yield from [(path, value)] if named else []
    elif isinstance(value, Mapping):
        of_key, of_value = arguments if len(arguments) == 2 else (None, None)
        for key, entry in value.items():
            yield from _names(key, of_key, path, named=False)
            yield from _names(entry, of_value, (*path, key), named=False)
    elif isinstance(value, tuple | list) and value and not isinstance(value[0], int | float):
        for position, entry in enumerate(value):
            argument = arguments[min(position, len(arguments) - 1)] if arguments else None
            each = arguments[0] if len(arguments) == 2 and arguments[1] is Ellipsis else argument
            at = path if isinstance(entry, str) else (*path, position)
            yield from _names(entry, each, at, named=False)


def no_such_pool(name: str, pools: Collection[str]) -> str:
    """The message about a name that is no pool: the nearest name, and those that there are."""
    hint = did_you_mean(name, pools)
    return f"{name!r} is not a pool{hint} there are {', '.join(pools) or 'none'}"


def shown_path(path: Steps) -> str:
    """The path of a field for people.

    >>> shown_path(("policy", 1, "pools"))
    'policy[1].pools'
    """
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
