"""What is wrong with a configuration: one line for each problem, with the path of the field and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, TypeAdapter, ValidationError

from dynamo_planner.config.kinds import kinds
from dynamo_planner.core.nearest import unknown_field
from dynamo_planner.core.policy import Guard, Policy
from dynamo_planner.core.pool_names import Steps, no_such_pool, pool_names, shown_path

T = TypeVar("T")


class ConfigError(ValueError):
    """A configuration does not hold: one line for each problem, with the path of the field and what is allowed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def validated(expected: type[T], data: Any, path: str, context: Mapping[str, Any] | None = None) -> T:
    """Validate data that stands at ``path``, under a validation context.

    Raises :class:`ConfigError` with the path of each problem, what was given, and what is allowed.
    """
    try:
        return TypeAdapter(expected).validate_python(data, context=dict(context or {}))
    except ValidationError as error:
        walk = _Walk(expected, data, context)
        problems = [details for details in error.errors() if not _follows_from_another(details)]
        raise ConfigError([_problem(details, walk, path) for details in problems]) from error


def _follows_from_another(details: Any) -> bool:
    """Whether a list is said to be too short only because the entries that it has are wrong."""
    return bool(details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"])


def unknown_pools(value: Any, data: Any, pools: Collection[str]) -> list[str]:
    """A problem for each name in a value that is none of these pools; ``data`` is what the value was built from."""
    return [
        f"{shown_path(written_path(path, data))}: {no_such_pool(name, pools)}"
        for path, name in pool_names(value)
        if name not in pools
    ]


def written_path(path: Steps, data: Any) -> Steps:
    """The path of a field as its user wrote it: a list of a policy and its guards is built as ``guarded``."""
    written: list[str | int] = []
    steps = iter(path)
    for step in steps:
        while isinstance(data, list) and len(data) == 1 and isinstance(step, str):  # a policy without guards
            written.append(0)
            data = data[0]
        if isinstance(data, list) and step == "policy":
            place: str | int = 0
        elif isinstance(data, list) and step == "guards":
            place = int(next(steps)) + 1
        else:
            place = step
        written.append(place)
        data = _item(data, place)
    return tuple(written)


@contextmanager
def problems_at(path: str) -> Iterator[None]:
    """Raise a ``ValueError`` of what a part of a configuration describes as a :class:`ConfigError` with its path."""
    try:
        yield
    except ConfigError:
        raise
    except ValueError as error:
        joint = "." if re.match(r"[a-z_]+[.\[]", str(error)) else ": "  # a message may begin with the path of a field
        raise ConfigError([f"{path}{joint}{error}"]) from error


def _problem(details: Any, walk: _Walk, path: str) -> str:
    location = tuple(step for step in details["loc"] if step != "[key]")  # a wrong key stands where its value would
    where, owner = walk.to(location, path)
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        _, owner = walk.to(details["loc"][:-1], path)
        allowed = (*owner.model_fields, *getattr(owner, "shorthand", ()))
        return f"{where}: {unknown_field(details['loc'][-1], allowed)}"
    if details["type"] == "tuple_type":
        return f"{where}: expected a list, got {details['input']!r}"
    if details["type"].startswith("union_tag_") and details["ctx"]["discriminator"] == "'kind'":
        kinds = [member.model_fields["kind"].default for member in get_args(owner)]
        given = (
            "its kind is missing" if details["type"] == "union_tag_not_found" else f"no kind {details['ctx']['tag']!r}"
        )
        return f"{where}: {given}; allowed: {', '.join(kinds)}"
    if details["type"] == "missing":
        _, owner = walk.to(details["loc"][:-1], path)
        short = [name for name, field in getattr(owner, "shorthand", {}).items() if field == details["loc"][-1]]
        return f"{where}: {message}{'; or give ' if short else ''}{', '.join(short)}"
    if details["type"] == "less_than" and details["ctx"]["lt"] == 1 and 1 < float(details["input"]) <= 100:
        return f"{where}: {message} (got {details['input']!r}; {details['input']} % is {details['input'] / 100:g})"
    if details["type"] in {"value_error", "kind"}:
        return f"{where}: {message}"
    return f"{where}: {message} (got {details['input']!r})"


class _Walk:
    """Follows the location of an error through data and the types that it was validated as."""

    def __init__(self, expected: Any, data: Any, context: Mapping[str, Any] | None) -> None:
        self._expected, self._data, self._context = expected, data, context

    def to(self, location: Iterable[str | int], path: str) -> tuple[str, Any]:
        """The path of a location as a user writes it, without the tags of unions, and the type that stands there."""
        expected, value = self._expected, self._data
        for step in location:
            expected, shown = self._step(expected, value, step)
            if shown:
                path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
                value = _item(value, step)
        return path, self._class_of(expected, value)

    def _step(self, expected: Any, value: Any, step: str | int) -> tuple[Any, bool]:
        """The type at the next step, and whether the step is one of the data rather than a tag of a union."""
        expected = self._class_of(expected, value)
        if isinstance(step, int) and expected is Policy:  # a list is a policy and its guards
            return (Guard if step else Policy), True
        if isinstance(expected, type) and issubclass(expected, BaseModel):
            field = expected.model_fields.get(str(step))
            return (field.annotation if field else None), True
        arguments = [argument for argument in get_args(expected) if argument not in {type(None), Ellipsis}]
        if get_origin(expected) in {Union, UnionType} and len(arguments) > 1:
            tagged = [member for member in arguments if step in _tags(member)]
            return (tagged[0], False) if tagged else (None, True)
        return (arguments[-1] if arguments else None), True

    def _class_of(self, expected: Any, value: Any) -> Any:
        """The type itself, without what is around it; of a policy or the like, the class that the data names."""
        arguments = [argument for argument in get_args(expected) if argument is not type(None)]
        if get_origin(expected) is Annotated or (get_origin(expected) in {Union, UnionType} and len(arguments) == 1):
            return self._class_of(arguments[0], value)
        for registry in kinds():
            if expected is registry.base:
                with suppress(ValueError):
                    return registry.class_of(value, self._context)
        return expected


def _item(value: Any, step: str | int) -> Any:
    try:
        return value[step]
    except (TypeError, KeyError, IndexError):
        return None


def _tags(member: Any) -> set[Any]:
    """What pydantic calls a member of a union in the location of an error."""
    tags = {each.tag for each in get_args(member)[1:] if isinstance(each, Tag)}
    if get_origin(member) is Annotated:
        member = get_args(member)[0]
    kind = member.model_fields.get("kind") if isinstance(member, type) and issubclass(member, BaseModel) else None
    return tags | {getattr(member, "__name__", None), kind.default if kind else None}
