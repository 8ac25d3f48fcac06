"""Commands for the local backend: ``status``, ``stop`` and ``doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DISAGREES = 1

StateDir = Annotated[
    Path | None, typer.Option(help="Where state files are; `DYN_LOCAL_STATE_DIR` or ~/.dynamo/state otherwise.")
]


Namespace = Annotated[str | None, typer.Argument(help="Only this namespace.", show_default=False)]


def status(
    namespace: Namespace = None,
    state_dir: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object per namespace and line.")] = False,
) -> None:
    """Show the local workers: pids, GPUs, logs, the state file, and what disagrees.

    Exits 1 where something disagrees.

    Example: `dynamo-planner status`
    """
    from dynamo_planner.cli.upkeep import show_all  # noqa: PLC0415  # needs the extra circus

    if not show_all(namespace, state_dir, as_json=as_json):
        raise typer.Exit(DISAGREES)


def stop(
    namespace: Annotated[str, typer.Argument(help="The namespace to end.", show_default=False)],
    state_dir: StateDir = None,
    within_s: Annotated[float, typer.Option(min=0, help="How long to wait for a planner that runs it.")] = 700.0,
) -> None:
    """Drain all workers of a namespace, end its planner and its arbiter, and remove its state file.

    Each worker finishes what it has accepted, for as long as its `graceful_timeout_s`.

    Example: `dynamo-planner stop llama`
    """
    from dynamo_planner.cli.upkeep import stop_namespace  # noqa: PLC0415  # needs the extra circus

    stop_namespace(namespace, state_dir, within_s)


def doctor(
    namespace: Namespace = None,
    state_dir: StateDir = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Mend without asking.")] = False,
) -> None:
    """Find what a crash left behind, and mend it, asking before each step.

    Example: `dynamo-planner doctor llama`
    """
    from dynamo_planner.cli.upkeep import mend_all  # noqa: PLC0415  # needs the extra circus

    mend_all(namespace, state_dir, yes=yes)
