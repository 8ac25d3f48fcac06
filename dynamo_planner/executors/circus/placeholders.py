"""Placeholders for what differs between workers: ``{port}``, ``{name}``, ``{namespace}``, ``{pool}``, ``{gpus}``, and
the pool's knobs by their names.

A placeholder is a bare lower-case word between single braces. Every other brace is literal, so JSON passes unchanged,
and so does a word between double braces, as templates have them. An unknown word is refused.

>>> fill('{"port":{port},"template":"{{role}}","empty":{}}', {"port": "8000"})
'{"port":8000,"template":"{{role}}","empty":{}}'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PLACEHOLDERS = ("port", "name", "namespace", "pool", "gpus")

_WORD = re.compile(r"\{\{[a-z_]+\}\}|\{([a-z_]+)\}")


def words(text: str) -> set[str]:
    """The placeholders in a text, known or not.

    >>> sorted(words('--port={port} --json={"a": 1} --host={hots} {{literal}}'))
    ['hots', 'port']
    """
    return {match[1] for match in _WORD.finditer(text) if match[1]}


def check(text: str, knobs: Iterable[str]) -> None:
    """Raises :class:`ValueError` where a text has an unknown placeholder."""
    unknown = sorted(words(text).difference(PLACEHOLDERS, knobs))
    if unknown:
        allowed = ", ".join(f"{{{word}}}" for word in (*PLACEHOLDERS, *knobs))
        raise ValueError(f"unknown placeholder {{{unknown[0]}}} in {text!r}; there are {allowed}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with its placeholders replaced."""
    return _WORD.sub(lambda match: values[match[1]] if match[1] else match[0], text)
