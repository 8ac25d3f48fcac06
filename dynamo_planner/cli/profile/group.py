"""A group of commands in which a URL is the command ``measure``."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class UrlMeasures(TyperGroup):
    """``profile http://host:8000`` is ``profile measure http://host:8000``, and so are options before the URL."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not ({*self.commands, "--help"} & set(args[:1])) and any("://" in arg for arg in args):
            args = ["measure", *args]
        return super().parse_args(ctx, args)
