"""The nearest name, for messages about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


def did_you_mean(name: object, allowed: Iterable[str]) -> str:
    """The hint after a wrong name: the nearest of the allowed ones, or a semicolon where none is near.

    >>> did_you_mean("decod", ["prefill", "decode"]), did_you_mean("x", ["prefill"])
    (", did you mean 'decode'?", ';')
    """
    close = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f", did you mean {close[0]!r}?" if close else ";"


def unknown_field(name: object, allowed: Iterable[str]) -> str:
    """The message about a field that does not exist.

    >>> unknown_field("itl", ["ttft_ms", "itl_ms"])
    "unknown field, did you mean 'itl_ms'? allowed: itl_ms, ttft_ms"
    """
    names = sorted(set(allowed))
    return f"unknown field{did_you_mean(name, names)} allowed: {', '.join(names)}"


def with_nearest_names(error: ValidationError, allowed: Iterable[str]) -> ValidationError:
    """The same error, but that unknown fields are told with the nearest of the allowed names."""
    problems = error.errors(include_url=False)
    if not any(_is_unknown(details) for details in problems):
        return error
    names = tuple(allowed)
    told = [
        InitErrorDetails(
            type=PydanticCustomError(
                details["type"],
                "{problem}",
                {"problem": unknown_field(details["loc"][0], names) if _is_unknown(details) else details["msg"]},
            ),
            loc=details["loc"],
            input=details["input"],
        )
        for details in problems
    ]
    return ValidationError.from_exception_data(error.title, told)


def _is_unknown(details: Any) -> bool:
    return bool(details["type"] == "extra_forbidden" and len(details["loc"]) == 1)
