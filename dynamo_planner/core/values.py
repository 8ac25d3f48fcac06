"""The values that every other module is written in: frozen models, read-only mappings, numbers that may be unknown."""

from __future__ import annotations

import math
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from functools import cache
from inspect import Signature
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeVar

from annotated_types import Ge, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetJsonSchemaHandler,
    PlainSerializer,
    ValidationError,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dynamo_planner.core.nearest import with_nearest_names
from dynamo_planner.core.signature import signature_of

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass  # it has no public name
else:
    ModelMetaclass = type(BaseModel)

K = TypeVar("K")
V = TypeVar("V")


class _Readable(ModelMetaclass):
    """Gives models a signature that people can read, also after pydantic has made its own."""

    @property
    def __signature__(self: type[Frozen]) -> Signature:  # type: ignore[misc]  # of a metaclass
        return signature_of(self, self.shorthand)

    @__signature__.setter
    def __signature__(self, _: Signature) -> None:
        """Leave pydantic's own, which lists validators, unused."""


class Frozen(BaseModel, metaclass=_Readable):
    """A value: immutable, equal by content, refuses unknown fields, and survives a round trip through JSON.

    The constructor validates: a user's data goes through it. :meth:`unchecked` makes a value of what is known to be
    right, and :meth:`replace` changes one. Both check the names of the fields and not their contents.

    A field that does not exist is told with the nearest name:

    >>> class Point(Frozen):
    ...     x: float
    ...     height: float = 0.0
    >>> Point(x=1, heigth=2)
    Traceback (most recent call last):
    ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for Point
    heigth
      unknown field, did you mean 'height'? allowed: height, x [type=extra_forbidden, input_value=2, input_type=int]

    A cached property belongs to one object, not to the value: copies and pickles leave without it.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True, protected_namespaces=()
    )

    shorthand: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Names that are taken beside the fields, and the field that each stands for."""

    if not TYPE_CHECKING:

        def __init__(self, /, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise with_nearest_names(error, (*type(self).model_fields, *self.shorthand)) from None

        __init__.__pydantic_base_init__ = True  # data that is validated goes past it, with its context

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not cls.__pydantic_complete__:
            type.__setattr__(cls, "__pydantic_serializer__", _SerializerOnDemand(cls, cls.__pydantic_serializer__))

    @classmethod
    def unchecked(cls, **values: Any) -> Self:
        """A value of what is known to be right, such as fields of another one: no validator runs.

        As ``model_construct``, at a quarter of its cost, and for fields by their names only.

        >>> class Point(Frozen):
        ...     x: float
        ...     y: float = 0.0
        >>> Point.unchecked(x=1.0)
        Point(x=1.0, y=0.0)
        >>> Point.unchecked(x=1.0).replace(z=2.0)
        Traceback (most recent call last):
        ...
        TypeError: Point has no field 'z': its fields are 'x', 'y'
        """
        defaults, required = _fields(cls)
        fields = {**defaults, **values}  # in the order of the fields, as in JSON
        if len(fields) != len(defaults):
            raise _no_such_field(cls, fields)
        if len(values) < len(defaults) and not required <= values.keys():
            missing = ", ".join([repr(name) for name in defaults if name in required - values.keys()])
            raise TypeError(f"{cls.__name__} needs {missing}")
        return _made(cls, fields, set(values), None)

    def replace(self, **changes: Any) -> Self:
        """The same value but for these fields, which are known to be right: no validator runs."""
        fields = {**self._own_fields(), **changes}
        if len(fields) != len(_fields(type(self))[0]):
            raise _no_such_field(type(self), fields)
        private = self.__pydantic_private__
        given = self.__pydantic_fields_set__ | changes.keys()
        return _made(type(self), fields, given, None if private is None else dict(private))

    def _own_fields(self) -> dict[str, Any]:
        """The fields without the cached properties, which live beside them."""
        own, names = self.__dict__, _fields(type(self))[0]
        return own if len(own) == len(names) else {name: own[name] for name in names}

    def __copy__(self) -> Self:
        return self.replace()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return super(Frozen, self.replace()).__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        return {**super().__getstate__(), "__dict__": self._own_fields()}


F = TypeVar("F", bound=Frozen)


class _SerializerOnDemand:
    """Builds a model whose building was deferred when the serializer of one of its values is looked up.

    pydantic's own stand-in does so for the value that is dumped. Before 2.14 it raises for one inside a field of type
    ``Any``, as the memory of a policy is. Looked up on the class, it is pydantic's stand-in.
    """

    def __init__(self, model: type[BaseModel], stand_in: object) -> None:
        self._model, self._stand_in = model, stand_in

    def __get__(self, value: BaseModel | None, _: type[BaseModel]) -> Any:
        if value is None:
            return self._stand_in
        self._model.model_rebuild()
        return self._model.__pydantic_serializer__


# The places of a model's contents, looked up once: values are made dozens of times a decision.
_set_fields, _set_given, _set_extra, _set_private = [
    BaseModel.__dict__[slot].__set__
    for slot in ("__dict__", "__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
]


@cache
def _fields(model: type[BaseModel]) -> tuple[dict[str, Any], frozenset[str]]:
    """The default of each field, in order, and the names of those that have none.

    Defaults are immutable, so they can be shared.
    """
    fields = model.model_fields
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    return defaults, frozenset(name for name, field in fields.items() if field.is_required())


def _made(model: type[F], fields: dict[str, Any], given: set[str], private: dict[str, Any] | None) -> F:
    made = model.__new__(model)
    _set_fields(made, fields)
    _set_given(made, given)
    _set_extra(made, None)
    _set_private(made, private)
    return made


def _no_such_field(model: type[Frozen], given: Iterable[str]) -> TypeError:
    names = _fields(model)[0]
    unknown = ", ".join([repr(name) for name in given if name not in names])
    return TypeError(f"{model.__name__} has no field {unknown}: its fields are {', '.join(map(repr, names))}")


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

    if not TYPE_CHECKING:

        def get(self, key, default=None):  # Mapping's own raises and catches where a key is missing
            return self._items.get(key, default)

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


def or_number(core_schema: CoreSchema, handler: GetJsonSchemaHandler, kind: str) -> JsonSchemaValue:
    """The JSON Schema of a value for which a bare number of a kind may stand, where it is read."""
    schema = handler(core_schema)
    if handler.mode != "validation":
        return schema
    whole = dict(handler.resolve_ref_schema(schema))  # older pydantic refers from here to what is defined here
    return {"anyOf": [{"type": kind, "minimum": 0}, whole]}


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

# In types that fields share, bounds are not Field(...): pydantic before 2.11 mixes up the defaults of such fields.

Unit = Annotated[float, Ge(0), Le(1)]
"""A share, 0 to 1."""

Count = Annotated[int, BeforeValidator(plain), Ge(0)]
"""A whole number of things, at least 0."""

Known = Annotated[Annotated[float, Ge(0)] | None, BeforeValidator(known)]
"""A measured number of at least 0, or ``None`` where it is unknown. NaN and infinity are unknown."""

KnownShare = Annotated[Unit | None, BeforeValidator(known)]
"""A measured share (0 to 1), or ``None`` where it is unknown."""

KnownTime = Annotated[float | None, BeforeValidator(known)]
"""A point in time in Unix seconds, or ``None`` where it is unknown."""

KnobValue = bool | int | float | str
"""What an engine knob can be set to."""
