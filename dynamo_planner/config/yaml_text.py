"""YAML text as data, without repeated keys, and the line of each field (extra ``cli``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from dynamo_planner.core.pool_names import Steps


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that repeats a key, of which YAML parsers keep the last without a word.

    The check precedes the merging of ``<<``: a key may override one that is merged.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            line, name = key.start_mark.line + 1, (key.tag, str(key.value))
            if isinstance(key, yaml.ScalarNode) and name in first:
                raise ValueError(f"line {line}: the key {key.value!r} is given already in line {first[name]}: drop one")
            first[name] = line
        return node


def read_yaml(text: str) -> Any:
    """The data of a YAML text. Raises ``ValueError`` where it is none, or repeats a key."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # a safe loader
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error


def field_lines(text: str) -> dict[Steps, int]:
    """The line of each field of a YAML or JSON text, by its path; the text is known to be right."""
    return dict(_lines(yaml.compose(text, yaml.SafeLoader), ()))


def _lines(node: yaml.Node | None, path: Steps) -> Iterator[tuple[Steps, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, key.value), key.start_mark.line + 1
            yield from _lines(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*path, position), value.start_mark.line + 1
            yield from _lines(value, (*path, position))
