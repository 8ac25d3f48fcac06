"""Access to a protected server: tokens, passwords, certificates, and parameters that a proxy wants."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.sources.source import SourceError

IN_EVERY_QUERY = frozenset({"query", "time", "timeout", "start", "end", "step"})


class BasicAuth(Frozen):
    """HTTP basic authentication.

    Args:
        username: the user's name.
        password_file: the file with the password.
    """

    username: str
    password_file: Path


class Access(Frozen):
    """Access to a protected server.

    Files are read again for each turn, since tokens are renewed. Each field is optional.

    Args:
        bearer_token_file: the file with a bearer token.
        basic_auth: a user name and password instead.
        ca_file: the certificates to trust instead of the system's.
        parameters: of the URL of each request, as some servers and proxies want it (``{"namespace": "llm"}``,
            ``{"model": "qwen"}``).
        headers: sent with each request (``{"X-Scope-OrgID": "1"}``).
    """

    bearer_token_file: Path | None = None
    basic_auth: BasicAuth | None = None
    ca_file: Path | None = None
    parameters: ReadOnly[str, str] = Field(default_factory=FrozenMap)
    headers: ReadOnly[str, str] = Field(default_factory=FrozenMap)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.bearer_token_file and self.basic_auth:
            raise ValueError("bearer_token_file and basic_auth: there can be only one of them")
        for name, value in self.headers.items():
            if not (_is_plain(name) and _is_plain(value.replace(" ", ""))):
                raise ValueError(f"headers: {name!r} or its value is not plain text")
        return self

    def sent_headers(self) -> dict[str, str]:
        """The headers of a request. Raises :class:`SourceError` where a file cannot be read."""
        if self.bearer_token_file is not None:
            token = _secret(self.bearer_token_file).strip()
            if not _is_plain(token):
                raise SourceError(f"{self.bearer_token_file} should hold one word of plain text, and does not")
            return {**self.headers, "Authorization": f"Bearer {token}"}
        if self.basic_auth is not None:
            pair = f"{self.basic_auth.username}:{_secret(self.basic_auth.password_file)}"
            return {**self.headers, "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        return dict(self.headers)

    def tls(self) -> ssl.SSLContext | None:
        """The certificates to trust; ``None`` for the system's. Raises :class:`SourceError`."""
        if self.ca_file is None:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise SourceError(f"ca_file {self.ca_file} cannot be read: {error}") from error


class QueryAccess(Access):
    """Access to a Prometheus server, whose queries have parameters of their own."""

    @model_validator(mode="after")
    def _parameters_are_not_of_queries(self) -> Self:
        clash = sorted(IN_EVERY_QUERY & self.parameters.keys())
        if clash:
            raise ValueError(f"parameters: {clash[0]!r} is part of every query already")
        return self


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and bool(text) and " " not in text


def _secret(path: Path) -> str:
    """The text of a file, without a line break at its end. No message holds it."""
    try:
        return path.expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read: {type(error).__name__}") from error
