"""A group of commands in which a URL is the command ``measure``."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperGroup

ADDRESS = re.compile(r"://|^[\w.-]+:\d+")
"""What tells an address: a scheme, or a host with a port."""


class UrlMeasures(TyperGroup):
    """``profile http://host:8000`` is ``profile measure http://host:8000``, and so are options before the URL."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ({*self.commands, "--help"} & set(args[:1])) and any(ADDRESS.search(arg) for arg in args):
            args = ["measure", *args]
        return super().parse_args(ctx, args)
