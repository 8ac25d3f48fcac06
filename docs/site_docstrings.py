"""Docstrings as Markdown: doctests become blocks of code, and roles and literal blocks of reStructuredText go."""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")
DOCTEST = re.compile(r"(?m)^( *)>>> .*(?:\n.*\S.*)*")


class MarkdownDocstrings(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """One docstring.

    >>> as_markdown("A :class:`Hold`, as in::\\n\\n    a = b\\n\\n>>> 1 + 1\\n2").splitlines()
    ['A `Hold`, as in:', '', '    a = b', '', '```pycon', '>>> 1 + 1', '2', '```']
    """
    text = re.sub(r"(?m)^::\n", "", ROLE.sub(r"`\1`", text))
    text = re.sub(r"(?m)(?<=\S)::$", ":", text)
    return DOCTEST.sub(lambda found: f"{found[1]}```pycon\n{found[0]}\n{found[1]}```", text)


def docstring_of(model: type) -> tuple[str, dict[str, str]]:
    """The text of a docstring, and its fields with their meaning."""
    words: list[str] = []
    fields: dict[str, str] = {}
    parsed = griffe.Docstring(as_markdown(inspect.cleandoc(model.__doc__ or ""))).parse("google", warnings=False)
    for section in parsed:
        if isinstance(section, griffe.DocstringSectionText):
            words.append(section.value)
        elif isinstance(section, griffe.DocstringSectionParameters):
            fields |= {each.name: each.description for each in section.value}
    return "\n\n".join(words), fields


def described(model: type) -> dict[str, str]:
    """The meaning of a model's fields, also of those that it inherits."""
    found: dict[str, str] = {}
    for each in reversed(model.__mro__):
        found |= docstring_of(each)[1] if each.__module__.startswith("dynamo_planner") else {}
    return found
