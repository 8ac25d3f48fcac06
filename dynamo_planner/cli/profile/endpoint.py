"""An endpoint, as `dynamo-planner profile` and its commands are told of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynamo_planner.config.problems import ConfigError, validated

if TYPE_CHECKING:
    from dynamo_planner.sources.access import Access

Url = Annotated[str, typer.Argument(help="The engine's base URL, such as http://localhost:8000.")]
TokenFile = Annotated[Path | None, typer.Option(help="A file with the bearer token (API key).")]
Headers = Annotated[list[str] | None, typer.Option(help="A header of each request, as NAME=VALUE; may be repeated.")]
Certificates = Annotated[Path | None, typer.Option(help="A file of CA certificates to trust, in PEM.")]
Model = Annotated[str | None, typer.Option(help="The model's name, where the endpoint serves several.")]
WithTraffic = Annotated[
    bool, typer.Option("--with-traffic", help="Go on although others use the engine: figures are spoiled.")
]

API_PATH = re.compile(r"/v1(/models|/completions|/chat/completions)?$")
"""The path of the OpenAI API, which is often copied with the URL."""


def base_of(url: str) -> str:
    """The base URL of an endpoint, without the path of its API. Raises :class:`ConfigError`.

    >>> base_of("http://localhost:8000/v1"), base_of("http://localhost:8000/a/v1/chat/completions")
    ('http://localhost:8000', 'http://localhost:8000/a')
    """
    from dynamo_planner.sources.fetch import checked_url  # noqa: PLC0415

    try:
        return API_PATH.sub("", checked_url(url))
    except ValueError as problem:
        raise ConfigError([str(problem)]) from problem


def access_of(token: Path | None, header: list[str] | None, ca: Path | None) -> Access:
    """How requests are authorised. Raises :class:`ConfigError`."""
    from dynamo_planner.sources.access import Access  # noqa: PLC0415

    headers = {}
    for text in header or ():
        field, equals, value = text.partition("=")
        if not equals:
            raise ConfigError([f"--header: {text!r} is not NAME=VALUE"])
        headers[field] = value
    return validated(Access, {"bearer_token_file": token, "ca_file": ca, "headers": headers}, "access")
