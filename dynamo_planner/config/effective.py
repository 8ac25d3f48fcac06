"""The effective configuration of ``run`` as YAML: every field, its value, and where that comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from dynamo_planner.config.files import read_data
from dynamo_planner.config.run import load_config
from dynamo_planner.config.yaml_text import field_lines
from dynamo_planner.core.component import Component
from dynamo_planner.core.node import Node
from dynamo_planner.core.policy import Guarded
from dynamo_planner.core.pool_names import Steps
from dynamo_planner.executors.config import ExecutorConfig

DEFAULT = "default"
COMMENT_COLUMN = 60


@dataclass(frozen=True)
class _Leaf:
    text: str
    origin: str


_Tree = _Leaf | dict[str, Any] | list[Any]


def effective_config(path: Path) -> str:
    """The configuration in a file with all defaults, as YAML that :func:`load_config` reads to the same configuration.

    A comment at each value says where it comes from: the line of the file, an environment variable, or the default.
    What the environment says stands there as a value.
    Raises :class:`ConfigError`.
    """
    config = load_config(path)
    tree = _Origins(path).tree(config, read_data(path), (), DEFAULT)
    assert isinstance(tree, dict)  # noqa: S101
    return "".join(f"{line}\n" for line in _mapping_lines(tree, ""))


class _Origins:
    """Follows a configuration and the data that it was built from, side by side."""

    def __init__(self, path: Path) -> None:
        self._file = path.name
        self._lines = field_lines(path.read_text(encoding="utf-8"))

    def tree(self, value: Any, data: Any, path: Steps, origin: str) -> _Tree:
        """What there is to print of a value, which was built from the data at this path."""
        if isinstance(data, list) and isinstance(value, BaseModel):  # a policy and its guards
            parts = (value.policy, *value.guards) if isinstance(value, Guarded) else (value,)
            return [
                self.tree(part, entry, (*path, place), self._given(path, place))
                for place, (part, entry) in enumerate(zip(parts, data, strict=True))
            ]
        if isinstance(value, BaseModel) and not isinstance(data, str | int | float):
            return self._fields(value, data if isinstance(data, Mapping) else {}, path, origin)
        if isinstance(value, BaseModel):  # a short form, such as the name of a profile
            return _Leaf(json.dumps(data), origin)
        if isinstance(value, Mapping) and value:
            given = data if isinstance(data, Mapping) else {}
            return {
                str(key): self.tree(
                    entry, given.get(key), (*path, key), self._given(path, key) if key in given else origin
                )
                for key, entry in value.items()
            }
        if isinstance(value, list | tuple) and any(isinstance(entry, BaseModel | Mapping) for entry in value):
            each = data if isinstance(data, Sequence) else [None] * len(value)
            return [self.tree(entry, each[n], (*path, n), origin) for n, entry in enumerate(value)]
        return _Leaf(json.dumps(to_jsonable_python(value, fallback=dict)), origin)

    def _fields(self, value: BaseModel, data: Mapping[str, Any], path: Steps, origin: str) -> _Tree:
        fields: dict[str, Any] = {}
        if isinstance(value, Component):
            fields["kind"] = _Leaf(json.dumps(value.kind), self._given(path, "kind") if "kind" in data else origin)
        environment = value.from_environment() if isinstance(value, ExecutorConfig) else {}
        for name in type(value).model_fields:
            own = getattr(value, name)
            if name in data:
                fields[name] = self.tree(own, data[name], (*path, name), self._given(path, name))
            elif name in environment:
                fields[name] = _Leaf(json.dumps(environment[name][0]), environment[name][1])
            elif not (name == "name" and isinstance(value, Node)):  # which tells nodes of one kind apart, if need be
                fields[name] = self.tree(own, None, (*path, name), DEFAULT)
        return fields

    def _given(self, path: Steps, step: str | int) -> str:
        line = self._lines.get((*path, step))
        return self._file if line is None else f"{self._file}:{line}"


def _mapping_lines(tree: dict[str, Any], indent: str) -> Iterator[str]:
    for key, entry in tree.items():
        name = key if key.isidentifier() else json.dumps(key)
        if isinstance(entry, _Leaf):
            yield _commented(f"{indent}{name}: {entry.text}", entry.origin)
        else:
            yield f"{indent}{name}:"
            yield from _entry_lines(entry, f"{indent}  ")


def _entry_lines(tree: _Tree, indent: str) -> Iterator[str]:
    if isinstance(tree, dict):
        yield from _mapping_lines(tree, indent)
    elif isinstance(tree, list):
        for entry in tree:
            if isinstance(entry, _Leaf):
                yield _commented(f"{indent}- {entry.text}", entry.origin)
                continue
            first, *others = _entry_lines(entry, f"{indent}  ")
            yield f"{indent}- {first.lstrip()}"
            yield from others


def _commented(line: str, origin: str) -> str:
    return f"{line:<{COMMENT_COLUMN}}  # {origin}"
