"""The engine's container in a manifest, and the place of a knob's value in its command, arguments or environment.

Three forms are supported: ``--flag 8`` and ``--flag=8`` in the lists ``command`` and ``args`` (with hyphens or
underscores), the same inside the one text that a shell is given with ``-c``, and a variable with a literal value in
``env``. Everything else is refused, because a change must be certain to have its meaning.

>>> from dynamo_planner.engines import catalogue
>>> container = {"command": ["bash", "-c"], "args": ["exec python3 -m dynamo.vllm --max-num-seqs 256 --model m"]}
>>> location = locate_knob(container, "/spec", catalogue("vllm")["max_num_seqs"])
>>> location.value, location.pointer, location.with_value(64)
(256, '/spec/args/0', 'exec python3 -m dynamo.vllm --max-num-seqs 64 --model m')
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dynamo_planner.core.values import KnobValue
from dynamo_planner.engines import Knob
from dynamo_planner.executors.kubernetes.graph import GraphComponent

_SHELLS = {"sh", "bash", "dash", "ash", "zsh"}
_NUMBER = re.compile(r"\d+(\.\d+)?")
_COMMAND_FLAG = re.compile(r"-[a-z]*c")


class UnsupportedManifestError(Exception):
    """A manifest has no value of a knob in a form that can be changed; the message says what to write."""


Container = tuple[str, Mapping[str, Any]]
"""The JSON pointer of a container, and the container."""

MAIN = "main"
"""The name that Dynamo's operator gives the engine's container."""


class KnobLocation(NamedTuple):
    """The place of a knob's value in a manifest.

    Args:
        pointer: JSON pointer of the text that contains the value.
        text: The text.
        start: Where the value begins in it.
        end: Where the value ends.
    """

    pointer: str
    text: str
    start: int
    end: int

    @property
    def value(self) -> int | float:
        """The value."""
        number = self.text[self.start : self.end]
        return float(number) if "." in number else int(number)

    def with_value(self, value: KnobValue) -> str:
        """The text with another value."""
        return f"{self.text[: self.start]}{value}{self.text[self.end :]}"


def locate_knob(container: Mapping[str, Any], pointer: str, knob: Knob) -> KnobLocation:
    """The place of a knob in the container at ``pointer``. Raises :class:`UnsupportedManifestError`."""
    found = [*_in_arguments(container, pointer, knob), *_in_environment(container, pointer, knob)]
    names = " or ".join(filter(None, (knob.argument, knob.variable and f"the variable {knob.variable}")))
    if not found:
        raise UnsupportedManifestError(f"{knob.name}: {names} is not there: add it, with the value that it has now")
    if len(found) > 1:
        raise UnsupportedManifestError(f"{knob.name}: {names} is there {len(found)} times: leave one")
    (location,) = found
    value = location.text[location.start : location.end]
    if not _NUMBER.fullmatch(value):
        raise UnsupportedManifestError(f"{knob.name}: its value {value!r} is no plain number: write one")
    return location


def _in_arguments(container: Mapping[str, Any], pointer: str, knob: Knob) -> Iterator[KnobLocation]:
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
            raise UnsupportedManifestError(f"{knob.name}: {field} is no list of texts: make it one")
        words += [(f"{pointer}/{field}/{position}", text) for position, text in enumerate(given)]
    flag = _flag(knob.argument)
    for position, (where, text) in enumerate(words):
        if flag.fullmatch(text):
            if position + 1 == len(words):
                raise UnsupportedManifestError(f"{knob.name}: {text} has no value: give it one")
            after, value = words[position + 1]
            yield KnobLocation(after, value, 0, len(value))
        elif joined := re.match(rf"{flag.pattern}=", text):
            yield KnobLocation(where, text, joined.end(), len(text))
        elif mentioned := list(re.finditer(rf"(?<!\S){flag.pattern}(?![\w-])", text)):
            if not _is_for_a_shell([word for _, word in words], position):
                raise UnsupportedManifestError(
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


def _in_script(where: str, text: str, after: int, knob: Knob) -> KnobLocation:
    value = re.compile(r"(?:=|[ \t]+|[ \t]*\\\n[ \t]*)(\S+)").match(text, after)
    if value is None:
        raise UnsupportedManifestError(f"{knob.name}: {knob.argument} has no value: give it one")
    return KnobLocation(where, text, *value.span(1))


def _in_environment(container: Mapping[str, Any], pointer: str, knob: Knob) -> Iterator[KnobLocation]:
    for position, variable in enumerate(container.get("env") or ()):
        if knob.variable is not None and variable.get("name") == knob.variable:
            value = variable.get("value")
            if not isinstance(value, str):
                raise UnsupportedManifestError(f"{knob.name}: {knob.variable} has no literal value: give it one")
            yield KnobLocation(f"{pointer}/env/{position}/value", value, 0, len(value))


def container_of_component(component: GraphComponent, name: str | None) -> Container:
    """The container of a component: ``podTemplate`` in ``spec.components``, ``extraPodSpec`` in ``spec.services``.

    Raises :class:`UnsupportedManifestError`.
    """
    if component.index is not None:
        template = component.spec.get("podTemplate")
        return container_of_template(f"/spec/components/{component.index}/podTemplate", template, name)
    main = (component.spec.get("extraPodSpec") or {}).get("mainContainer")
    if not isinstance(main, Mapping):
        raise UnsupportedManifestError(
            f"component {component.name} has no extraPodSpec.mainContainer: give its command there"
        )
    return f"/spec/services/{_escaped(component.name)}/extraPodSpec/mainContainer", main


def container_of_template(pointer: str, template: Any, name: str | None) -> Container:
    """The container of a pod template: that of this name, else ``main``, else the only one.

    Raises :class:`UnsupportedManifestError`.
    """
    containers = list(((template or {}).get("spec") or {}).get("containers") or ())
    names = [each.get("name") for each in containers]
    wanted = name or (MAIN if MAIN in names else None)
    found = [k for k, each in enumerate(names) if wanted is None or each == wanted]
    if len(found) != 1:
        listed = ", ".join(map(str, names)) or "none"
        raise UnsupportedManifestError(
            f"it is not clear which container is the engine's, give container: there are {listed}"
        )
    return f"{pointer}/spec/containers/{found[0]}", containers[found[0]]


def _escaped(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
