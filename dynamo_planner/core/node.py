"""Nodes: what policies and guards have in common, and how each finds its own state again.

>>> from dynamo_planner import StepLimit
>>> fast, slow = StepLimit(name="fast", period_s=15), StepLimit(name="slow", period_s=600)
>>> states = [node.remember({"at_s": 0, "pools": {}}) for node in (fast, slow)]
>>> [state and state.name for state in matched_states([slow], states)]
['slow']
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, TypeAdapter, ValidationError, model_serializer

from dynamo_planner.core.component import Component
from dynamo_planner.core.decision import Reason, State


class Node(Component):
    """A policy or a guard: parameters that are data, and a state that is a value.

    ``state_type`` is what the state validates as when it comes back from JSON, anything that pydantic knows; a state
    that does not, or that has another ``state_version``, is reset. ``kind`` names the class in the state, too.

    Args:
        name: Tells several nodes of one kind in a chain apart, so that each keeps its own state whichever of them is
            added or removed. Default ``None``: such nodes are told apart by their order.
    """

    name: str | None = Field(default=None, min_length=1)

    state_type: ClassVar[Any] = Any
    state_version: ClassVar[int] = 1

    @model_serializer(mode="wrap")
    def _with_kind(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = {"kind": self.kind, **fields(self)}
        if self.name is None:
            data.pop("name", None)
        return data

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [(field, value) for field, value in super().__repr_args__() if field != "name" or value is not None]

    def remember(self, value: Any) -> State | None:
        """The node's own value as a state."""
        return (
            None
            if value is None
            else State.unchecked(kind=self.kind, version=self.state_version, data=value, name=self.name)
        )

    def recall(self, state: State | None) -> tuple[Any, tuple[Reason, ...]]:
        """The node's own value out of a state, or ``None`` and a reason where the state is not its own."""
        if state is None:
            return None, ()
        if (state.kind, state.version) != (self.kind, self.state_version):
            found, mine = f"{state.kind!r} version {state.version}", f"{self.kind!r} version {self.state_version}"
            return None, (_reset(f"its state is of {found}, not of {mine}"),)
        if isinstance(state.data, _state_class(type(self))):  # it never left the process
            return state.data, ()
        try:
            return _state_adapter(type(self)).validate_python(state.data), ()
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            return None, (_reset(f"the state of {self.kind!r} does not read: {where}: {first['msg']}"),)


@cache
def _state_class(node: type[Node]) -> type | tuple[()]:
    """The class of states that need no validation: a model or a named tuple; none for any other type."""
    expected = get_args(node.state_type)[0] if get_origin(node.state_type) is Annotated else node.state_type
    is_value = isinstance(expected, type) and (issubclass(expected, BaseModel) or hasattr(expected, "_fields"))
    return expected if is_value else ()


@cache
def _state_adapter(node: type[Node]) -> TypeAdapter[Any]:
    return TypeAdapter(node.state_type)


def _reset(message: str) -> Reason:
    return Reason(code="StateReset", message=f"{message}; it starts anew")


def as_state(state: State | Mapping[str, Any] | None) -> tuple[State | None, tuple[Reason, ...]]:
    """A state out of its JSON form, or ``None`` and a reason where it is none."""
    if state is None or isinstance(state, State):
        return state, ()
    try:
        return State.model_validate(dict(state)), ()
    except (ValidationError, TypeError, ValueError):
        return None, (_reset("the state is not a {kind, version, data} mapping"),)


def matched_states(nodes: Sequence[Node], states: Sequence[State | None] | None) -> list[State | None]:
    """The state of each node, so that adding or removing a node resets no other.

    A state with a name belongs to the node of that kind and name. States without one go to the nodes of their kind in
    order: to those without a name and, where there are more states than these, to those that were only named since.
    """
    left = [state for state in states or () if state is not None]
    matched = [_taken(left, node.kind, node.name) if node.name else None for node in nodes]
    unnamed = Counter(state.kind for state in left if state.name is None)
    unnamed.subtract(node.kind for node in nodes if node.name is None)
    for place, node in enumerate(nodes):
        if node.name is None:
            matched[place] = _taken(left, node.kind, None)
        elif matched[place] is None and unnamed[node.kind] > 0:
            unnamed[node.kind] -= 1
            matched[place] = _taken(left, node.kind, None)
    return matched


def _taken(states: list[State], kind: str, name: str | None) -> State | None:
    """The first state of this kind and name, taken out of the list."""
    place = next((n for n, state in enumerate(states) if (state.kind, state.name) == (kind, name)), None)
    return None if place is None else states.pop(place)


def check_names(nodes: Sequence[Node]) -> None:
    """Raise ``ValueError`` where two nodes share kind and name, and so would share a state."""
    named = Counter((node.kind, node.name) for node in nodes if node.name is not None)
    for (kind, name), count in named.items():
        if count > 1:
            raise ValueError(f"{count} nodes of kind {kind!r} have the name {name!r}: give each its own")
