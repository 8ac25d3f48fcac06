"""Options that mean the same for every command."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from dynamo_planner.config.problems import validated
from dynamo_planner.core.snapshot import Sla

TtftMs = Annotated[float, typer.Option(help="The TTFT target, in ms.")]
ItlMs = Annotated[float, typer.Option(help="The ITL target, in ms.")]
Attainment = Annotated[float, typer.Option(help="The share of requests that must meet both: 0.99 is 99 %.")]

AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, in place of the text.")]


def print_json(data: Any) -> None:
    """Print the object of ``--json``."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False))


def targets(ttft_ms: float, itl_ms: float, attainment: float) -> Sla:
    """The SLA that the options say. Raises ``ConfigError`` for values that are no targets."""
    return validated(Sla, {"ttft_ms": ttft_ms, "itl_ms": itl_ms, "attainment": attainment}, "targets")
