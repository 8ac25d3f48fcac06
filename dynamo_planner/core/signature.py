"""Signatures of models for people: types without their validators, and the names that are taken beside the fields."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, Signature
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def signature_of(model: type[BaseModel], shorthand: Mapping[str, str]) -> Signature:
    """The signature of a model, as a notebook shows it.

    A shorthand and the field that it stands for have the default ``...``: one of the two is given.

    Args:
        model: the model.
        shorthand: for each name that is taken beside the fields, the field that it stands for.

    >>> from dynamo_planner import Sla
    >>> print(signature_of(Sla, {}))
    (*, ttft_ms: float, itl_ms: float, attainment: float = 0.99)
    """
    taken: dict[str, Parameter] = {}
    for name, field in model.model_fields.items():
        default: Any = field.get_default(call_default_factory=True)
        if name in shorthand.values():
            default = _Text("...")
        elif field.is_required():
            default = Parameter.empty
        kind = type_text(field.annotation)
        if name in shorthand:
            kind += " | " + type_text(_field(model, shorthand[name], name))
        taken[name] = _parameter(name, kind, _brief(default) if isinstance(default, BaseModel) else default)
    for name, field_name in shorthand.items():
        if name not in taken:
            taken[name] = _parameter(name, type_text(_field(model, field_name, name)), _Text("..."))
    return Signature(list(taken.values()))


def type_text(annotation: Any) -> str:
    """A type as people write it.

    >>> type_text(Mapping[str, Annotated[int, "at least 1"] | None])
    'Mapping[str, int | None]'
    """
    if annotation in (None, NoneType):
        return str(None)
    if annotation is ...:
        return "..."
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(inner[0])
    if origin in (Union, UnionType):
        return " | ".join(dict.fromkeys(map(type_text, inner)))
    if origin is Literal:
        return " | ".join(map(repr, inner))
    name = getattr(origin or annotation, "__name__", str(annotation))
    return f"{name}[{', '.join(map(type_text, inner))}]" if inner else name


def _field(model: type[BaseModel], field_name: str, name: str) -> Any:
    """The type of a field of the model in a field."""
    part: Any = model.model_fields[field_name].annotation
    return part.model_fields[name].annotation


def _parameter(name: str, kind: str, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, annotation=_Text(kind), default=default)


class _Text(str):
    """Text that is shown without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


def _brief(value: BaseModel) -> _Text:
    """A value with the fields that differ from their own defaults."""
    model = type(value)
    fields = {name: field.get_default(call_default_factory=True) for name, field in model.model_fields.items()}
    own = [f"{name}={part!r}" for name, part in value if part != fields[name]]
    return _Text(f"{model.__name__}({', '.join(own)})")
