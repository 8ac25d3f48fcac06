"""An endpoint, as `dynamo-planner profile` and its commands are told of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dynamo_planner.config.problems import ConfigError, validated

if TYPE_CHECKING:
    from dynamo_planner.sources.access import Access

TokenFile = Annotated[Path | None, typer.Option(help="A file with a bearer token.")]
Headers = Annotated[list[str] | None, typer.Option(help="NAME=VALUE, sent with each request.")]
Certificates = Annotated[Path | None, typer.Option(help="Certificates to trust.")]
Model = Annotated[str | None, typer.Option(help="The model, where there are several.")]


def base_of(url: str) -> str:
    """The base URL of an endpoint, without ``/v1``. Raises :class:`ConfigError`."""
    from dynamo_planner.sources.fetch import checked_url  # noqa: PLC0415

    try:
        return checked_url(url).removesuffix("/v1")
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
