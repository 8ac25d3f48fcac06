"""Options that mean the same for every command."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, in place of the text.")]


def print_json(data: Any) -> None:
    """Print the object of ``--json``."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))
