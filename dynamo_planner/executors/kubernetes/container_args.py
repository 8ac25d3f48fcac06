"""Where a container's command, arguments or environment say the value of a knob, and how they say another one.

Three forms are understood: ``--flag 8`` and ``--flag=8`` in the lists ``command`` and ``args`` (with hyphens or
underscores), the same inside the one text that a shell is given with ``-c``, and a variable with a literal value in
``env``. Everything else is refused: a change must be certain to mean what it is meant to.

>>> from dynamo_planner.engines import catalogue
>>> container = {"command": ["bash", "-c"], "args": ["exec python3 -m dynamo.vllm --max-num-seqs 256 --model m"]}
>>> place = place_of(container, "/spec", catalogue("vllm")["max_num_seqs"])
>>> place.value, place.pointer, place.saying(64)
(256, '/spec/args/0', 'exec python3 -m dynamo.vllm --max-num-seqs 64 --model m')
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dynamo_planner.core.values import KnobValue
from dynamo_planner.engines import Knob

_SHELLS = {"sh", "bash", "dash", "ash", "zsh"}
_NUMBER = re.compile(r"\d+(\.\d+)?")
_COMMAND_FLAG = re.compile(r"-[a-z]*c")


class NotUnderstoodError(Exception):
    """A manifest does not say a knob in a form that can be changed; the message says what would be."""


class Place(NamedTuple):
    """The text that says a value, by its JSON pointer; ``start`` and ``end`` are where in the text the value is."""

    pointer: str
    text: str
    start: int
    end: int

    @property
    def value(self) -> int | float:
        """The value that is said."""
        said = self.text[self.start : self.end]
        return float(said) if "." in said else int(said)

    def saying(self, value: KnobValue) -> str:
        """The text with another value."""
        return f"{self.text[: self.start]}{value}{self.text[self.end :]}"


def place_of(container: Mapping[str, Any], pointer: str, knob: Knob) -> Place:
    """Where a container says a knob; ``pointer`` is that of the container. Raises :class:`NotUnderstoodError`."""
    found = [*_in_arguments(container, pointer, knob), *_in_environment(container, pointer, knob)]
    names = " or ".join(filter(None, (knob.argument, knob.variable and f"the variable {knob.variable}")))
    if not found:
        raise NotUnderstoodError(f"{knob.name}: it does not say {names}: add it, with the value that it has now")
    if len(found) > 1:
        raise NotUnderstoodError(f"{knob.name}: it says {names} {len(found)} times: leave one")
    (place,) = found
    said = place.text[place.start : place.end]
    if not _NUMBER.fullmatch(said):
        raise NotUnderstoodError(f"{knob.name}: its value {said!r} is no plain number: write one")
    return place


def _in_arguments(container: Mapping[str, Any], pointer: str, knob: Knob) -> Iterator[Place]:
    if knob.argument is None:
        return
    words: list[tuple[str, str]] = []
    for field in ("command", "args"):
        given = container.get(field) or ()
        if (
            not isinstance(given, Sequence)
            or isinstance(given, str)
            or not all(isinstance(each, str) for each in given)
        ):
            raise NotUnderstoodError(f"{knob.name}: {field} is no list of texts: make it one")
        words += [(f"{pointer}/{field}/{position}", text) for position, text in enumerate(given)]
    flag = _flag(knob.argument)
    for position, (where, text) in enumerate(words):
        if flag.fullmatch(text):
            if position + 1 == len(words):
                raise NotUnderstoodError(f"{knob.name}: {text} has no value: give it one")
            after, value = words[position + 1]
            yield Place(after, value, 0, len(value))
        elif joined := re.match(rf"{flag.pattern}=", text):
            yield Place(where, text, joined.end(), len(text))
        elif mentioned := list(re.finditer(rf"(?<!\S){flag.pattern}(?![\w-])", text)):
            if not _is_for_a_shell([word for _, word in words], position):
                raise NotUnderstoodError(
                    f"{knob.name}: {knob.argument} is inside a longer text: make it a word of its own"
                )
            for each in mentioned:
                yield _in_script(where, text, each.end(), knob)


def _flag(argument: str) -> re.Pattern[str]:
    """A flag with hyphens or underscores, as argument parsers take both for one."""
    dashes, name = argument[: -len(argument.lstrip("-"))], argument.lstrip("-")
    return re.compile(re.escape(dashes) + "[-_]".join(map(re.escape, re.split("[-_]", name))))


def _is_for_a_shell(words: Sequence[str], position: int) -> bool:
    """Whether a text is what a shell runs: ``bash -c TEXT``."""
    before = words[:position]
    return len(before) >= 2 and PurePosixPath(before[0]).name in _SHELLS and bool(_COMMAND_FLAG.fullmatch(before[-1]))


def _in_script(where: str, text: str, after: int, knob: Knob) -> Place:
    value = re.compile(r"(?:=|[ \t]+|[ \t]*\\\n[ \t]*)(\S+)").match(text, after)
    if value is None:
        raise NotUnderstoodError(f"{knob.name}: {knob.argument} has no value: give it one")
    return Place(where, text, *value.span(1))


def _in_environment(container: Mapping[str, Any], pointer: str, knob: Knob) -> Iterator[Place]:
    for position, variable in enumerate(container.get("env") or ()):
        if knob.variable is not None and variable.get("name") == knob.variable:
            value = variable.get("value")
            if not isinstance(value, str):
                raise NotUnderstoodError(f"{knob.name}: {knob.variable} has no literal value: give it one")
            yield Place(f"{pointer}/env/{position}/value", value, 0, len(value))
